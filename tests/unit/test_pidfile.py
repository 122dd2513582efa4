"""Pidfile: the lock is the truth, and nobody's file is harmed."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from qjsupervisor.errors import AlreadyRunning, ConfigError, NoRoom, unusable_path
from qjsupervisor.master.pidfile import Pidfile
from qjsupervisor.states import EX_CANTCREAT, EX_SOFTWARE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "qjsupervisor.pid"


def test_names_us_and_goes_with_us(path: Path) -> None:
    with Pidfile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_the_second_one_learns_who_runs(path: Path) -> None:
    with Pidfile(str(path)):
        with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()} runs already") as raised:
            Pidfile(str(path)).acquire()
        assert raised.value.pid == os.getpid()
        assert raised.value.exit_status == EX_CANTCREAT
        assert path.read_text() == f"{os.getpid()}\n"


def test_what_a_killed_one_left_is_taken_over_even_if_its_pid_lives(path: Path) -> None:
    path.write_text("1\nrest of a longer number")
    path.write_text("1\n")
    with Pidfile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_an_empty_file_is_taken_over(path: Path) -> None:
    path.touch()
    with Pidfile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("text", ["[options]\ndb_host = x\n", "12 34\n", "-1\n", "1" * 40])
def test_a_file_that_is_no_pidfile_is_left_alone(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match="something other than a process id"):
        Pidfile(str(path)).acquire()
    assert path.read_text() == text


def test_links_are_not_followed(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("")
    path.symlink_to(victim)
    with pytest.raises(ConfigError, match="symbolic link"):
        Pidfile(str(path)).acquire()
    path.unlink()
    path.hardlink_to(victim)
    with pytest.raises(ConfigError, match="hard link"):
        Pidfile(str(path)).acquire()
    assert victim.read_text() == ""


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pidfile: .*none/pid cannot be opened: No such file"):
        Pidfile(str(tmp_path / "none" / "pid")).acquire()


def test_a_fifo_does_not_block(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="not a regular file"):
        Pidfile(str(path)).acquire()


def test_release_leaves_a_file_that_is_somebody_elses_by_now(path: Path) -> None:
    ours = Pidfile(str(path))
    ours.acquire()
    path.unlink()
    with Pidfile(str(path)):
        ours.release()
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_refused_start_leaks_no_descriptor(path: Path) -> None:
    with Pidfile(str(path)):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with pytest.raises(AlreadyRunning):
                Pidfile(str(path)).acquire()
        assert len(os.listdir("/proc/self/fd")) == before


def test_only_we_can_open_it(path: Path) -> None:
    path.write_text("1\n")
    path.chmod(0o644)
    with Pidfile(str(path)):
        assert path.stat().st_mode & 0o777 == 0o600


def a_dead_pid() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_a_strangers_lock_on_a_file_that_all_can_read_stops_nobody(path: Path) -> None:
    path.write_text(f"{a_dead_pid()}\n")
    path.chmod(0o644)
    with path.open() as stranger:
        fcntl.flock(stranger, fcntl.LOCK_EX)
        with Pidfile(str(path)):
            assert path.read_text() == f"{os.getpid()}\n"
            with pytest.raises(AlreadyRunning):
                Pidfile(str(path)).acquire()


def test_a_lock_that_only_we_can_hold_is_believed(path: Path) -> None:
    """Also where the number means another process: one in another container, say."""
    path.write_text(f"{a_dead_pid()}\n")
    path.chmod(0o600)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning):
            Pidfile(str(path)).acquire()


def test_a_full_disk_is_said_and_is_not_final() -> None:
    """/dev/full is no regular file: what its write says is looked at here."""
    error = unusable_path("pidfile", "/run/x", "cannot be written", OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(error, NoRoom)
    assert error.exit_status == EX_SOFTWARE
    assert str(error) == "pidfile: /run/x cannot be written: No space left on device"
    assert isinstance(unusable_path("pidfile", "/x", "cannot be opened", OSError(errno.EACCES, "no")), ConfigError)
