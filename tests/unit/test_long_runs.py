"""Jobs that run for longer than their max_runtime: told once, and ended where that is wanted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from qjsupervisor.config.settings import ServingRules, TargetSettings
from qjsupervisor.loop import Deadline, Loop
from qjsupervisor.odoo.dispatcher import Dispatcher
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.waiter import Waiter
from qjsupervisor.table.servers import private_servers
from qjsupervisor.worker.jobs import Jobs, State
from qjsupervisor.worker.long_runs import LongRuns


class Running(Database):
    """A database in which job 1 runs for `age_s`."""

    def __init__(self) -> None:
        super().__init__("db", {}, Waiter(lambda: None))
        self.age_s = 20.0
        self.job_id = 1
        self.asked = 0
        self.ended: list[int] = []

    def running_for(self, ids: Iterable[int], shortest_s: float) -> list[tuple[int, str, str | None, float]]:
        self.asked += 1
        return [(self.job_id, "u", "root", self.age_s)] if self.age_s > shortest_s else []

    def end_session_of(self, job_id: int) -> bool | None:
        self.ended.append(job_id)
        return True


class Rig:
    """The look at the jobs of one database, and what was told of it."""

    def __init__(self, loop: Loop) -> None:
        self.database = Running()
        target = [TargetSettings(url="http://127.0.0.1:1")]
        self.servers = private_servers([target[0].url])
        self.dispatcher = Dispatcher(loop, target, "db", self.servers, connect_timeout_s=1, read_timeout_s=None)
        self.told: list[Mapping[str, Any]] = []
        self.jobs = Jobs(Deadline(loop, lambda _now_s: None))
        self.jobs.enter(self.jobs.of(1), State.UNATTENDED)
        log = structlog.get_logger()
        due = Deadline(loop, lambda _now_s: None)
        self.long_runs = LongRuns(self.database, self.dispatcher, log, self.told.append, due)

    def apply(self, limit_s: float | None, action: str = "warn") -> None:
        limits = {} if limit_s is None else {"root": limit_s}
        self.long_runs.apply(ServingRules(max_runtimes=limits, max_runtime_action=action))

    def looks(self, now_s: float) -> list[str]:
        """One look; the events that it logged."""
        with capture_logs() as lines:
            self.long_runs.look({1}, self.jobs, now_s)
        return [line["event"] for line in lines]


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Loop() as loop:
        made = Rig(loop)
        yield made
        made.dispatcher.close()


def test_nothing_is_to_come_without_a_limit(rig: Rig) -> None:
    rig.apply(None)
    assert not rig.long_runs.is_idle
    rig.apply(10.0)
    assert rig.long_runs.is_idle
    rig.long_runs.expect()
    assert not rig.long_runs.is_idle
    assert rig.long_runs.due.at_s == 0.5, "at once: nobody has looked yet"
    rig.apply(None)
    assert rig.long_runs.due.at_s == math.inf


def test_a_job_is_told_of_once_for_each_run(rig: Rig) -> None:
    rig.apply(10.0)
    assert [rig.looks(1000.0), rig.looks(1001.0)] == [["job_overdue"], []]
    assert rig.told == [{"is": "overdue", "jobs": 1}]
    rig.database.age_s = 1.0
    assert rig.looks(1002.0) == []
    rig.database.age_s = 20.0
    assert rig.looks(1003.0) == ["job_overdue"], "it is another run"
    assert [message["jobs"] for message in rig.told] == [1, 0, 1]


def test_its_session_is_ended_once(rig: Rig) -> None:
    rig.apply(10.0, "terminate")
    assert rig.looks(1000.0) == ["job_overdue", "job_ended"]
    assert rig.looks(1001.0) == []
    assert rig.database.ended == [1]


def test_without_limits_nothing_is_overdue_any_more(rig: Rig) -> None:
    rig.apply(10.0)
    rig.looks(1000.0)
    rig.apply(None)
    assert rig.told[-1] == {"is": "overdue", "jobs": 0}
    assert not rig.long_runs.any_overdue


def test_a_request_let_go_since_its_job_was_ended_is_no_sign_of_an_odoo_that_hangs(rig: Rig) -> None:
    record = rig.jobs.of(2)
    rig.jobs.enter(record, State.CLAIMING)
    rig.jobs.request(record, "u", "root")
    rig.dispatcher.send("u")
    rig.database.job_id = 2
    rig.apply(10.0, "terminate")
    assert [rig.looks(1000.0), rig.looks(1001.0)] == [["job_overdue", "job_ended"], []]
    assert not rig.dispatcher.is_open("u")
    assert rig.servers[0].unanswered == 0
