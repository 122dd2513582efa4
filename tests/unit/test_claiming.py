"""Statements that the server refuses for one of their rows: each row is tried alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pytest

from qjsupervisor import logs
from qjsupervisor.errors import DatabaseError, DatabaseUnavailable
from qjsupervisor.job import Job
from qjsupervisor.loop import Deadline, Timers
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.waiter import Waiter
from qjsupervisor.worker import claiming
from qjsupervisor.worker.claiming import Claims


def job(job_id: int, state: str = "enqueued") -> Job:
    return Job(job_id, str(job_id), "root", state, (10, 1, job_id), None)


class Refusing(Database):
    """It refuses every statement that writes job 2, as a trigger of somebody's does."""

    def __init__(self) -> None:
        super().__init__("db", {}, Waiter(lambda: None))
        self.statements: list[list[int]] = []
        self.of_row = True

    def _write(self, ids: Iterable[int]) -> list[int]:
        self.statements.append(list(ids))
        if 2 in self.statements[-1]:
            error = DatabaseUnavailable("db", "a trigger says no")
            error.of_row = self.of_row
            raise error
        return self.statements[-1]

    def turn(
        self, claim: Mapping[int, int], uuids: Sequence[str], unseen_in: str | None = None
    ) -> tuple[list[Job], list[Job]]:
        return [job(job_id) for job_id in self._write(claim)], []

    def read_ids(self, ids: Iterable[int]) -> list[Job]:
        return [job(job_id, "pending") for job_id in ids]

    def give_back(self, ids: Iterable[int]) -> list[int]:
        return self._write(ids)

    def revive(self, dead: Mapping[int, str], grace_s: float) -> list[Job]:
        return [job(job_id, "pending") for job_id in self._write(dead)]


@pytest.fixture
def database() -> Refusing:
    return Refusing()


@pytest.fixture
def claims(database: Refusing) -> Claims:
    return Claims(database, logs.silent_logger(), Deadline(Timers(), lambda _now_s: None))


def test_one_row_that_is_refused_holds_up_no_other(claims: Claims) -> None:
    claimed, read, refused = claims.turn({1: 0, 2: 0, 3: 0}, [])
    assert [job.id for job in claimed] == [1, 3]
    assert [(job.id, job.state) for job in read] == [(2, "pending")]
    assert list(refused) == [2]


def test_what_was_refused_concerns_one_statement(claims: Claims) -> None:
    assert list(claims.turn({2: 0}, [])[2]) == [2]
    assert not claims.turn({1: 0}, [])[2]


def test_what_is_not_the_fault_of_a_row_is_not_tried_row_by_row(database: Refusing, claims: Claims) -> None:
    database.of_row = False
    with pytest.raises(DatabaseError):
        claims.turn({1: 0, 2: 0}, [])
    assert database.statements == [[1, 2]]


@pytest.mark.parametrize("back", [True, False])
def test_so_are_rows_that_are_put_back(claims: Claims, back: bool) -> None:
    if back:
        given, refused = claims.give_back([1, 2, 3])
        assert given == [1, 3]
    else:
        revived, refused = claims.revive(dict.fromkeys((1, 2, 3), "started"), 10.0)
        assert [job.id for job in revived] == [1, 3]
    assert list(refused) == [2]


def test_refusals_that_take_long_do_not_hold_up_the_worker(
    database: Refusing, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "ONE_BY_ONE_S", 0.0)
    claimed, read, _refused = claims.turn({1: 0, 2: 0, 3: 0}, [])
    assert [job.id for job in claimed] == [1], "the others have their turn later"
    assert {job.id for job in read} == {2, 3}
    assert len(database.statements) == 3


def test_a_database_that_refuses_many_is_left_alone_for_longer_each_time(claims: Claims) -> None:
    """A full disk's, for one: each try costs a statement for each row."""
    claims.note_refusals(claiming.MANY_DEFERRED - 1, 1000.0)
    assert claims.pause.at_s == math.inf
    pauses = []
    for _ in range(5):
        claims.note_refusals(claiming.MANY_DEFERRED, 1000.0)
        pauses.append(claims.pause.at_s - 1000.0)
    assert pauses[-1] > 4 * pauses[0]
    claims.turn({1: 0}, [])
    claims.note_refusals(claiming.MANY_DEFERRED, 1000.0)
    assert claims.pause.at_s - 1000.0 < 2, "one was claimed meanwhile"
