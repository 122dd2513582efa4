"""The place where lines go, when it is ill."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from qjsupervisor.logsink import Frames, LogSink


def report(lost: int, reason: str) -> bytes:
    return f"lost {lost}: {reason}\n".encode()


@contextmanager
def stdout_is(fd: int) -> Iterator[None]:
    """Let descriptor 1 be another one for a while."""
    kept = os.dup(1)
    os.dup2(fd, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(write)
    with suppress(OSError):  # one test closes this end
        os.close(read)


def read_all(fd: int) -> bytes:
    data = b""
    while True:
        try:
            part = os.read(fd, 1 << 20)
        except BlockingIOError:
            return data
        if not part:
            return data
        data += part


def test_reader_that_stands_still_stops_nobody(pipe: tuple[int, int]) -> None:
    read, write = pipe
    line = b"x" * 999 + b"\n"
    with stdout_is(write):
        sink = LogSink(None, report)
        while not sink.lost_in_all:
            sink.write(line)
        sink.write(line)
        full = read_all(read)
        assert set(full.split(b"\n")) == {line[:-1], b""}
        sink.write(b"back\n")
        sink.close()
    assert read_all(read) == b"lost 2: Resource temporarily unavailable\nback\n"


def test_pipe_that_only_its_owner_may_open_is_asked_first(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = pipe

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with stdout_is(write):
        monkeypatch.setattr(os, "open", refuse)
        sink = LogSink(None, report)
        monkeypatch.undo()
        while not sink.lost_in_all:
            sink.write(b"y" * 999 + b"\n")
        read_all(read)
        sink.write(b"back\n")
    assert read_all(read).endswith(b"lost 1: Resource temporarily unavailable\nback\n")


def test_the_other_owners_of_the_pipe_still_block(pipe: tuple[int, int]) -> None:
    _, write = pipe
    with stdout_is(write):
        sink = LogSink(None, report)
        sink.write(b"line\n")
        assert os.get_blocking(1)
        sink.close()


def test_closed_pipe(pipe: tuple[int, int]) -> None:
    read, write = pipe
    with stdout_is(write):
        sink = LogSink(None, report)
        os.close(read)
        sink.write(b"line\n")
        sink.write(b"line\n")
        sink.close()
    assert sink.lost_in_all == 2


def test_socket_as_standard_output() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, stdout_is(theirs.fileno()):
        sink = LogSink(None, report)
        sink.write(b"line\n")
        assert ours.recv(100) == b"line\n"
        while not sink.lost_in_all:
            sink.write(b"z" * 999 + b"\n")
        sink.close()


def test_no_standard_output() -> None:
    kept = os.dup(1)
    os.close(1)
    try:
        sink = LogSink(None, report)
        sink.write(b"line\n")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert sink.lost_in_all == 1


def test_full_disk_when_it_is_opened_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    sink = LogSink(str(tmp_path / "log"), report)
    sink.write(b"lost\n")
    monkeypatch.undo()
    sink.write(b"back\n")
    assert (tmp_path / "log").read_bytes() == b"lost 1: No space left on device\nback\n"
    sink.close()


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Each write takes so many bytes at most."""
    write = os.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:size]))
        yield


def test_line_that_was_begun_is_finished_first(tmp_path: Path) -> None:
    sink = LogSink(str(tmp_path / "log"), report)
    with room_for(4):
        sink.write(b"0123456789\n")
    assert (tmp_path / "log").read_bytes() == b"0123"
    sink.write(b"next\n")
    assert (tmp_path / "log").read_bytes() == b"0123456789\nnext\n"
    assert sink.lost_in_all == 0
    sink.close()


def test_new_file_has_no_access_for_others(tmp_path: Path) -> None:
    LogSink(str(tmp_path / "log"), report).close()
    assert (tmp_path / "log").stat().st_mode & 0o007 == 0


def test_file_that_cannot_be_opened_again_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = LogSink(str(folder / "log"), report)
    folder.rename(tmp_path / "moved")
    sink.write(b"line\n")
    sink.reopen()
    sink.write(b"line\n")
    assert (tmp_path / "moved" / "log").read_bytes() == b"line\nline\n"
    assert sink.lost_in_all == 0
    sink.close()


def test_reopen_in_a_handler_that_interrupted_a_write(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = LogSink(str(path), report)
    with sink._lock:
        sink.reopen()
    path.unlink()
    sink.write(b"line\n")
    assert path.read_bytes() == b"line\n"
    sink.close()


def test_child_forgets_what_is_its_parents_to_report(tmp_path: Path) -> None:
    sink = LogSink(str(tmp_path / "log"), report)
    with room_for(2):
        sink.write(b"line\n")
    sink._lock.acquire()
    sink.forget()
    sink.write(b"child\n")
    assert (tmp_path / "log").read_bytes() == b"lichild\n"
    sink.close()


def test_lines_of_several_processes_through_one_pipe(tmp_path: Path) -> None:
    """Long ones are in parts among others'; what has no room is counted and told with the next line."""
    path, frames = str(tmp_path / "log"), Frames()
    sink = LogSink(path, report)
    lines = sink.into_pipe()
    os.set_blocking(lines, False)
    long, children = b"z" * 10_000 + b"\n", []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            for _ in range(10):
                sink.write(long)
                sink.write(b"short\n")
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    got = frames.take(read_all(lines)).split(b"\n")
    assert sorted(set(got)) == [b"", b"short", long[:-1]]
    assert (got.count(b"short"), got.count(long[:-1])) == (30, 30)
    while not sink.lost_in_all:
        sink.write(b"x" * 999 + b"\n")
    full = frames.take(read_all(lines))
    assert set(full.split(b"\n")) == {b"x" * 999, b""}
    sink.write(b"back\n")
    assert frames.take(read_all(lines)) == b"lost 1: Resource temporarily unavailable\nback\n"
    sink.close()
    assert not (tmp_path / "log").read_bytes()
    os.close(lines)
