"""The second connection, step by step: one snapshot, in order, and every error is one of the database."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator

import pytest

from qjsupervisor.errors import DatabaseError
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.reader import FIRST_ANSWER_S, READ_TIMEOUT_S, Reader
from qjsupervisor.postgres.waiter import Waiter

from ..conftest import DatabaseFactory
from ..helpers import Database as One


@pytest.fixture
def one(database: DatabaseFactory) -> One:
    return database()


@pytest.fixture
def reader(one: One) -> Iterator[Reader]:
    connected = Database(one.name, one.dsn(), Waiter())
    connected.connect()
    made = Reader(connected)
    yield made
    made.close()
    connected.close()


def go_on(reader: Reader, is_there: Callable[[], bool]) -> None:
    """Whenever it is ready, until something is true."""
    deadline_s = time.monotonic() + 10
    while not is_there():
        assert time.monotonic() < deadline_s
        events = reader.on_ready()
        if events:
            poller = select.poll()
            poller.register(reader.fileno(), events)
            poller.poll(50)


def finish(reader: Reader) -> None:
    go_on(reader, lambda: reader.results is not None)


def test_statements_in_order_of_one_snapshot(reader: Reader, one: One) -> None:
    one.insert_jobs(2)
    one.execute("SELECT pg_advisory_lock(77)")
    count = "SELECT count(*) FROM queue_job"
    reader.start([(count, None), ("SELECT pg_advisory_lock(%(n)s)::text, 'ä'", {"n": 77}), (count, None)])
    assert reader.connecting
    assert reader.deadline_s - reader.began_s == FIRST_ANSWER_S
    go_on(reader, lambda: one.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") != [])
    assert not reader.connecting
    assert reader.deadline_s - time.monotonic() > READ_TIMEOUT_S - 10
    assert reader.results is None
    one.insert_jobs(1)
    one.execute("SELECT pg_advisory_unlock(77)")
    finish(reader)
    assert reader.results == [[(2,)], [("", "ä")], [(2,)]]
    assert one.execute("SELECT count(*) FROM queue_job") == [(3,)]


def test_it_writes_nothing(reader: Reader) -> None:
    reader.start([("DELETE FROM queue_job", None)])
    with pytest.raises(DatabaseError, match="read-only"):
        finish(reader)
    assert reader.results is None


def test_it_can_begin_again_after_an_error(reader: Reader) -> None:
    reader.start([("SELECT 1/0", None)])
    with pytest.raises(DatabaseError, match="division"):
        finish(reader)
    reader.start([("SELECT 7", None)])
    finish(reader)
    assert reader.results == [[(7,)]]


def test_a_session_that_is_ended_is_an_error_of_the_database(reader: Reader, one: One) -> None:
    reader.start([("SELECT pg_sleep(60)", None)])
    go_on(reader, lambda: not reader.connecting)
    one.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%'")
    with pytest.raises(DatabaseError):
        finish(reader)


def test_it_leaves_no_session(reader: Reader, one: One) -> None:
    reader.start([("SELECT 7", None)])
    finish(reader)
    reader.close()
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    deadline_s = time.monotonic() + 10
    while one.execute(sessions) != [(1,)]:
        assert time.monotonic() < deadline_s
