"""The second connection: one snapshot, in order, and every error is one of the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from qjsupervisor.errors import DatabaseError
from qjsupervisor.loop import Loop
from qjsupervisor.postgres import reader as reader_module
from qjsupervisor.postgres.async_session import Rows, Statement
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.reader import FIRST_ANSWER_S, READ_TIMEOUT_S, Reader
from qjsupervisor.postgres.waiter import Waiter

from ..conftest import DatabaseFactory
from ..helpers import Database as One
from ..helpers import wait_until


class Stand:
    """A loop, and what a reader said."""

    def __init__(self, database: Database) -> None:
        self.database, self.loop = database, Loop()
        self.results: list[Rows] | None = None
        self.error: DatabaseError | None = None
        self.reader: Reader | None = None

    def start(self, *statements: Statement) -> Reader:
        self.results = self.error = None
        self.reader = Reader(self.database, self.loop, self._done, self._lost)
        self.reader.start(statements)
        return self.reader

    def _done(self, results: list[Rows]) -> None:
        self.results = results

    def _lost(self, error: DatabaseError, _now_s: float) -> None:
        self.error = error

    def until(self, is_there: Callable[[], bool]) -> None:
        wait_until(lambda: (self.loop.turn(0.05), is_there())[1], lambda: f"{self.results} {self.error}")

    def finish(self) -> None:
        self.until(lambda: self.results is not None or self.error is not None)
        assert self.loop.watched == 0


@pytest.fixture
def one(database: DatabaseFactory) -> One:
    return database()


@pytest.fixture
def stand(one: One) -> Iterator[Stand]:
    connected = Database(one.name, one.dsn(), Waiter())
    connected.connect()
    made = Stand(connected)
    yield made
    if made.reader is not None:
        made.reader.close()
    connected.close()
    made.loop.close()


def test_statements_in_order_of_one_snapshot(stand: Stand, one: One) -> None:
    one.insert_jobs(2)
    one.execute("SELECT pg_advisory_lock(77)")
    count = "SELECT count(*) FROM queue_job"
    reader = stand.start((count, None), ("SELECT pg_advisory_lock(%(n)s)::text, 'ä'", {"n": 77}), (count, None))
    assert reader.connecting
    assert stand.loop.next_s() == pytest.approx(reader.began_s + FIRST_ANSWER_S, abs=0.1)
    waits = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    stand.until(lambda: one.execute(waits) != [])
    assert not reader.connecting
    assert stand.loop.next_s() - time.monotonic() > READ_TIMEOUT_S - 10
    assert stand.results is None
    one.insert_jobs(1)
    one.execute("SELECT pg_advisory_unlock(77)")
    stand.finish()
    assert stand.results == [[(2,)], [("", "ä")], [(2,)]]
    assert one.execute("SELECT count(*) FROM queue_job") == [(3,)]


def test_it_writes_nothing(stand: Stand) -> None:
    stand.start(("DELETE FROM queue_job", None))
    stand.finish()
    assert stand.results is None
    assert "read-only" in str(stand.error)


def test_another_can_begin_after_an_error(stand: Stand) -> None:
    stand.start(("SELECT 1/0", None))
    stand.finish()
    assert "division" in str(stand.error)
    stand.start(("SELECT 7", None))
    stand.finish()
    assert stand.results == [[(7,)]]


def test_a_session_that_is_ended_is_an_error_of_the_database(stand: Stand, one: One) -> None:
    reader = stand.start(("SELECT pg_sleep(60)", None))
    stand.until(lambda: not reader.connecting)
    one.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%'")
    stand.finish()
    assert stand.error is not None
    assert not reader.is_silent


@pytest.mark.parametrize("connecting", [True, False])
def test_a_server_that_does_not_answer_in_time(stand: Stand, monkeypatch: pytest.MonkeyPatch, connecting: bool) -> None:
    """A first answer that takes too long says that there is no second connection."""
    monkeypatch.setattr(reader_module, "FIRST_ANSWER_S" if connecting else "READ_TIMEOUT_S", 0.0)
    reader = stand.start(("SELECT pg_sleep(60)", None))
    stand.finish()
    assert (reader.is_silent, reader.connecting) == (True, connecting)
    assert ("a second connection gets no answer" in str(stand.error)) is connecting


def test_it_leaves_no_session(stand: Stand, one: One) -> None:
    stand.start(("SELECT 7", None))
    stand.finish()
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    wait_until(lambda: one.execute(sessions) == [(1,)], "a session is left")
