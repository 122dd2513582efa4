"""Lines that many databases have at once: one for all, with their names."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from qjsupervisor.master.database_log import LONGEST_S, QUIET_S, DatabaseLog
from tests.unit.supervised import FakeLoop, Rig


class Written:
    """A log at a time that the test sets."""

    def __init__(self, events: list[Any]) -> None:
        self._events = events
        self.now_s = 100.0
        self.loop = FakeLoop()
        self.log = DatabaseLog(self.loop, lambda: self.now_s)

    def after(self, seconds: float) -> list[Any]:
        """What is written by then, since the last call."""
        self.now_s += seconds
        self.loop.run_until(self.now_s)
        found = [each for each in self._events if each["log_level"] != "debug"]
        self._events.clear()
        return found


@pytest.fixture
def written(log_events: list[Any]) -> Written:
    return Written(log_events)


def test_a_line_of_one_database_is_what_it_would_be_without_us(written: Written) -> None:
    written.log.of("a", slot=3).warning("worker_reaped", worker_pid=7, reason="killed")
    assert written.after(QUIET_S / 2) == [], "others may have it too"
    assert written.after(QUIET_S) == [
        {
            "log_level": "warning",
            "event": "worker_reaped",
            "database": "a",
            "slot": 3,
            "worker_pid": 7,
            "reason": "killed",
        }
    ]


def test_equal_lines_of_several_become_one(written: Written) -> None:
    for number in range(200):
        written.log.of(f"db{number}", slot=number).error("database_lost", reason="password", worker_pid=number)
    written.log.of("z", slot=1).error("database_lost", reason="another")
    many, one = written.after(QUIET_S)
    assert many.pop("names").endswith("db48, db49 and 150 more")
    assert many == {"log_level": "error", "event": "database_lost", "databases": 200, "reason": "password"}
    assert (one["database"], one["reason"]) == ("z", "another")


def test_those_that_come_in_one_by_one_wait_for_each_other_but_not_for_ever(written: Written) -> None:
    lines = []
    for number in range(int(2 * LONGEST_S / QUIET_S) * 2):
        written.log.of(f"db{number}").info("database_ready")
        lines += written.after(QUIET_S / 2)
    lines += written.after(QUIET_S)
    assert [len(lines), sum(each["databases"] for each in lines)] == [2, number + 1]


def test_the_order_stays(written: Written) -> None:
    """Though the first one of them is still waiting for more of its kind."""
    written.log.of("a").warning("database_lost")
    written.log.of("a").info("database_ready")
    written.now_s += QUIET_S * 0.8
    written.log.of("b").warning("database_lost")
    written.log.of("c").info("worker_spawned")
    assert written.after(QUIET_S * 0.8) == []
    assert [each["event"] for each in written.after(QUIET_S)] == ["database_lost", "database_ready", "worker_spawned"]


def test_one_database_twice_is_one(written: Written) -> None:
    for _ in range(3):
        written.log.of("a").error("database_lost", reason="password")
    (line,) = written.after(QUIET_S)
    assert line["database"] == "a"


def test_at_the_end_nothing_waits(written: Written) -> None:
    written.log.of("a").info("worker_reaped")
    written.log.flush()
    assert [each["event"] for each in written.after(0)] == ["worker_reaped"]
    assert written.after(60) == []


def test_what_workers_say_is_one_line(log_events: list[Any]) -> None:
    rig = Rig()
    rig.scan(a="ready", b="ready")
    log_events.clear()
    for name in "ab":
        rig.hear(name, {"is": "log", "level": "error", "event": "database_lost", "facts": {"reason": "password"}})
    rig.step(1)
    told = [each for each in log_events if each["log_level"] == "error"]
    assert [(each["event"], each["names"]) for each in told] == [("database_lost", "a, b")]


@pytest.mark.parametrize("line", [{"level": "fatal"}, {"event": 1}, {"facts": []}])
def test_a_line_that_is_none(line: dict[str, Any]) -> None:
    rig = Rig()
    rig.scan(a="ready")
    rig.hear("a", {"is": "log", "level": "error", "event": "e", "facts": {}, **line})
    assert rig.child("a").signals == [signal.SIGABRT]
