"""The state file: what is read of it, whatever it holds; when it is written, and what if that fails."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from qjsupervisor.errors import ConfigError
from qjsupervisor.master import state_file
from qjsupervisor.master.state_file import StateFile
from tests.unit.supervised import CONFIG, FakeChild, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(replace(CONFIG, control_socket=str(tmp_path / "control.sock")))


def writer(rig: Rig) -> FakeChild:
    return next(each for each in reversed(rig.spawner.children) if each.title == "qjsupervisor: state")


def writes(rig: Rig) -> int:
    return sum(each.title == "qjsupervisor: state" for each in rig.spawner.children)


def write(rig: Rig) -> None:
    """What the child does, here."""
    child = writer(rig)
    exit_code = child.body(child.pipe)  # type: ignore[arg-type]
    assert rig.operations.state.reaped(child.pid, exit_code, rig.now_s)


def on_disk(rig: Rig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(rig.operations.state.path).read_text())
    return found


# -- writing -------------------------------------------------------------------------------------------------


def test_nothing_is_written_where_nothing_is_to_be_kept(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.operations.state.changed(rig.now_s)
    rig.step(5)
    rig.operations.state.finish(rig.now_s)
    assert writes(rig) == 0


def test_a_pause_is_in_the_file_within_a_second_and_gone_after_its_end(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.orders.handle({"do": "pause", "database": "a", "channel": "slow", "for_s": 60, "by": "anna"})
    rig.step()
    write(rig)
    (pause,) = on_disk(rig)["pauses"]
    assert (pause["database"], pause["channel"], pause["by"]) == ("a", "root.slow", "anna")
    assert pause["until"] == pytest.approx(rig.wall_s + 60)
    assert os.stat(rig.operations.state.path).st_mode & 0o777 == 0o600
    rig.step(60)
    write(rig)
    assert "pauses" not in on_disk(rig)


def test_many_changes_are_one_write_a_second(rig: Rig) -> None:
    rig.scan(a="ready")
    for number in range(30):
        rig.orders.handle({"do": "pause", "database": "a", "channel": f"c{number}"})
        rig.step(0.1)
        if rig.operations.state.is_busy:
            write(rig)
    rig.step(1)
    write(rig)
    assert writes(rig) == 4
    assert len(on_disk(rig)["pauses"]) == 30


def test_what_changes_during_a_write_is_written_by_the_next_one(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.orders.handle({"do": "pause", "database": "a"})
    rig.step()
    rig.orders.handle({"do": "pause"})
    rig.step(0.5)
    assert writes(rig) == 1
    write(rig)
    rig.step(0.5)
    write(rig)
    assert len(on_disk(rig)["pauses"]) == 2


def test_a_new_database_that_was_resumed_is_in_the_file(rig: Rig) -> None:
    """What was written at first was the very object that changed: nothing was ever written again."""
    hold = Rig(replace(CONFIG, control_socket=rig.operations.config.control_socket, holds_new=True))
    hold.scan(a="ready")
    hold.step()
    write(hold)
    hold.scan(a="ready", b="ready")
    assert set(on_disk(hold)["databases"]["known"]) == {"a"}
    hold.orders.handle({"do": "resume", "database": "b"})
    hold.step(1)
    write(hold)
    assert set(on_disk(hold)["databases"]["known"]) == {"a", "b"}


def test_the_stop_writes_what_is_not_written_and_only_that(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.orders.handle({"do": "pause", "database": "a"})
    rig.step()
    rig.orders.handle({"do": "pause"})
    rig.operations.state.finish(rig.now_s)
    rig.operations.state.finish(rig.now_s)
    write(rig)
    assert rig.operations.state.is_busy, "the last change is written at once"
    write(rig)
    assert not rig.operations.state.is_busy
    assert len(on_disk(rig)["pauses"]) == 2
    assert writes(rig) == 2


def test_a_write_that_hangs_is_killed_told_once_and_tried_again(rig: Rig) -> None:
    rig.scan(a="ready")
    with capture_logs() as logs:
        rig.orders.handle({"do": "pause", "database": "a"})
        rig.step()
        child = writer(rig)
        rig.step(state_file.WRITE_TIMEOUT_S)
        assert child.signals == [signal.SIGKILL]
        assert "does its file system answer?" in rig.operations.status(rig.now_s)["state_file"]["error"]
        rig.step(60)
        assert writes(rig) == 1, "it waits inside the kernel: no second one"
        rig.operations.state.reaped(child.pid, -signal.SIGKILL, rig.now_s)
        rig.step(state_file.RETRY_S)
        write(rig)
    assert [each["event"] for each in logs if each["event"].startswith("state")] == [
        "state_not_written",
        "state_written",
    ]
    assert rig.operations.status(rig.now_s)["state_file"]["error"] is None


def test_a_full_disk_is_told_and_leaves_the_former_file(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.scan(a="ready")
    rig.orders.handle({"do": "pause", "database": "a"})
    rig.step()
    write(rig)
    before = on_disk(rig)

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    rig.orders.handle({"do": "pause"})
    rig.step(1)
    write(rig)
    assert "No space left" in rig.operations.status(rig.now_s)["state_file"]["error"]
    assert on_disk(rig) == before
    assert os.listdir(os.path.dirname(rig.operations.state.path)) == ["control.sock.state"]
    monkeypatch.undo()
    rig.step(state_file.RETRY_S)
    write(rig)
    assert len(on_disk(rig)["pauses"]) == 2


def test_no_process_for_it_costs_nothing_else(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.spawner.error = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    rig.orders.handle({"do": "pause", "database": "a"})
    rig.step()
    assert "no process" in rig.operations.status(rig.now_s)["state_file"]["error"]
    rig.step(state_file.RETRY_S)
    write(rig)
    assert on_disk(rig)["pauses"]


def test_sections_of_others_are_left_as_they_are(rig: Rig) -> None:
    state = rig.operations.state
    state._take(b'{"version": 1, "rates": {"root.mail": [1, 2]}, "pauses": []}')
    state.add("mine", lambda now_s, wall_s: {"at": wall_s})
    state.changed(rig.now_s)
    rig.step()
    write(rig)
    kept = on_disk(rig)
    assert kept["rates"] == {"root.mail": [1, 2]}
    assert kept["mine"] == {"at": rig.wall_s}
    assert kept["version"] == 1


# -- reading -------------------------------------------------------------------------------------------------


def test_a_start_forks_nothing_to_read_what_lies_beside_the_control_socket(rig: Rig) -> None:
    Path(rig.operations.state.path).write_text('{"version": 1, "pauses": [1]}')
    rig.operations.state.read()
    assert rig.operations.state.section("pauses") == [1]
    assert rig.spawner.children == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no JSON object"),
        (b"{", "no JSON object"),
        (b"\xff\xfe\x00", "no JSON object"),
        (b"[1]", "no JSON object"),
        (b"[" * 200_000, "no JSON object"),
        (b'{"version": 9' + b"9" * 5_000 + b"}", "no JSON object"),
        (b"{}", "version is None"),
        (b'{"version": 2}', "version is 2"),
        (b'{"version": "1"}', "version is 1"),
    ],
)
def test_a_broken_file_is_ignored_with_one_line_and_put_aside(rig: Rig, content: bytes, reason: str) -> None:
    path = Path(rig.operations.state.path)
    path.write_bytes(content)
    state = rig.operations.state
    with capture_logs() as logs:
        state._take(content)
    assert [each["event"] for each in logs] == ["state_ignored"]
    assert reason in logs[0]["reason"]
    assert state.section("pauses") is None
    rig.scan(a="ready")
    rig.orders.handle({"do": "pause", "database": "a"})
    rig.step()
    write(rig)
    assert on_disk(rig)["pauses"]
    assert path.with_name(path.name + ".ignored").read_bytes() == content
    assert state.error is None


def test_a_folder_is_not_shared_with_a_supervisor_that_runs(tmp_path: Path, rig: Rig) -> None:
    config = replace(CONFIG, state_dir=str(tmp_path), control_socket="/elsewhere")
    with socket.socket(socket.AF_UNIX) as sock:
        path = str(tmp_path / "other.sock")
        sock.bind(path)
        content = json.dumps({"version": 1, "socket": path}).encode()
        StateFile(config, rig.parts)._take(content)
        sock.listen()
        with pytest.raises(ConfigError, match=r"in use by the supervisor at .*other\.sock"):
            StateFile(config, rig.parts)._take(content)
