"""Pidfile: the lock is the truth, and nobody's file is harmed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qjsupervisor.errors import AlreadyRunning, ConfigError
from qjsupervisor.master.pidfile import Pidfile
from qjsupervisor.states import EX_CANTCREAT


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
    with pytest.raises(ConfigError, match="no regular file"):
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
