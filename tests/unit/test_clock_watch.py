"""A clock that nobody sets costs nothing; what follows when it is set: test_timetable.py."""

from __future__ import annotations

import os

from qjsupervisor.loop import Loop
from qjsupervisor.master.clock_watch import ClockWatch


def test_it_is_silent_while_nobody_sets_the_clock_and_leaves_nothing_behind() -> None:
    heard: list[float] = []
    with Loop() as loop:
        before = len(os.listdir("/proc/self/fd"))
        watch = ClockWatch(loop, heard.append)
        loop.turn(0.0)
        assert heard == []
        watch.close()
        assert len(os.listdir("/proc/self/fd")) == before
        loop.turn(0.0)


def test_a_child_closes_its_copy() -> None:
    with Loop() as loop:
        watch = ClockWatch(loop, lambda _now_s: None)
        before = len(os.listdir("/proc/self/fd"))
        loop.unregister(max(int(fd) for fd in os.listdir("/proc/self/fd") if is_timer(fd)))
        watch.close_in_child()
        assert len(os.listdir("/proc/self/fd")) == before - 1


def is_timer(fd: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("anon_inode:[timerfd]")
    except OSError:
        return False
