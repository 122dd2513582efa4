"""A schedule over both changes of daylight saving time, and over a clock that is set, as libfaketime shows them.

libfaketime moves the wall clock of the supervisor only. The kernel tells the supervisor of a clock that is set: the
test sets the machine's clock to what it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until

ZONE = "Europe/Berlin"
SCHEDULE = "root.night: closed sun 02:30-04:00; root.early: closed sun 01:00-02:30"
#: From a change to its line in the log, on a machine that does much else.
LATE_S = 1.5
#: 01:59:59 is followed by 03:00; 02:59:59 is followed by 02:00.
SPRING, AUTUMN = "2026-03-29T", "2026-10-25T"


class Clock:
    """The supervisor's wall clock, as this file has it; `text`: of a clock on the wall in ZONE."""

    def __init__(self, folder: Path) -> None:
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        assert library is not None, "there is no libfaketime: apt-get install faketime"
        self._file = folder / "clock"
        self._ahead_s = 0.0
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def now_s(self) -> float:
        return time.time() + self._ahead_s

    def say(self, text: str, fold: int = 0) -> None:
        """What a process sees that starts now."""
        self._ahead_s = moment(text, fold) - time.time()
        self._file.write_text(f"{self._ahead_s:+.6f}")

    def set(self, running: Supervisor, text: str, fold: int = 0) -> None:
        """Under a supervisor that runs."""
        self.say(text, fold)
        try:
            time.clock_settime(time.CLOCK_REALTIME, time.time())
        except PermissionError:  # not root, or in a container: a reload looks at the clock, too
            assert running.run("reload").returncode == 0


def moment(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE), fold=fold).timestamp()


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def running(
    postgres: ThrowawayPostgres, odoo: StandIn, one: Database, clock: Clock, tmp_path: Path
) -> Iterator[Supervisor]:
    options = {"schedule": SCHEDULE, "timezone": ZONE}
    conf = odoo_conf(
        postgres, odoo.port, db_name=one.name, channels="root:4,root.night:2,root.early:2",
        sections={"qjsupervisor": options},
    )  # fmt: skip
    made = Supervisor(conf, tmp_path, clock.env)
    yield made
    made.close()


@pytest.fixture
def one(database: DatabaseFactory) -> Database:
    return database()


def test_both_changes_of_the_clock_and_one_that_is_set(running: Supervisor, one: Database, clock: Clock) -> None:
    # A time that is skipped is the next valid one: 02:30 is 03:00.
    clock.say(SPRING + "01:59:56")
    running.start().wait_ready(one.name)
    (early,) = one.insert_jobs(1, channel="root.night")
    wait_until(lambda: one.state(early) == "done", "it is open yet")
    assert clock.now_s() < moment(SPRING + "03:00:00")
    changes_at(running, clock, SPRING + "03:00:00", night=0, early=None)
    (waits,) = one.insert_jobs(1, channel="root.night")

    # Set forward to just before its end: it opens at its end, not an hour of ours later.
    clock.set(running, SPRING + "03:59:58")
    changes_at(running, clock, SPRING + "04:00:00", night=None)
    wait_until(lambda: one.state(waits) == "done", "it is open again", 5)

    # Of a time that comes twice the first one counts, also where the clock is set right into it.
    clock.set(running, AUTUMN + "02:29:58", fold=0)
    wait_until(lambda: limit(running, "early") == 0, "early is closed since 01:00", 5)
    changes_at(running, clock, AUTUMN + "02:30:00", night=0, early=None)
    mark = running.mark()
    (waits,) = one.insert_jobs(1, channel="root.night")
    clock.set(running, AUTUMN + "02:10:00", fold=1)
    (open_,) = one.insert_jobs(1, channel="root.early")
    wait_until(lambda: one.state(open_) == "done", "early does not close a second time", 5)

    # A start in the middle of the doubled hour, by the same rule.
    running.kill()
    running.start().wait_ready(one.name)
    limits = running.status()["schedule"]["limits"]
    found = [(each["channel"], each["limit"], each["until"]) for each in limits]
    assert found == [("root.night", 0, AUTUMN + "04:00:00+01:00")]
    assert one.state(waits) == "pending"
    assert not [each for each in running.log_events("schedule_changed")[mark:] if each["channel"] == "root.early"]

    # Set back to before it closes.
    clock.set(running, AUTUMN + "00:30:00")
    wait_until(lambda: one.state(waits) == "done", "it is open", 5)


def limit(running: Supervisor, channel: str) -> int | None:
    """What the log says of it last; None: no limit."""
    changes = running.log_events("schedule_changed", channel=f"root.{channel}")
    return changes[-1]["limit"] if changes else None


def changes_at(running: Supervisor, clock: Clock, text: str, **limits: int | None) -> None:
    """These limits come at that time of the wall clock, not before, and within a second or so."""
    at_s = moment(text)
    wait_until(
        lambda: {name: limit(running, name) for name in limits} == limits,
        lambda: f"{limits} since {text}; it is {clock.now_s() - at_s:+.1f} s; {running.tail()}",
        10,
    )
    assert at_s <= clock.now_s() < at_s + LATE_S
