"""A worker's connection against a real PostgreSQL: what is known after an error."""

from __future__ import annotations

import pytest

from qjsupervisor.database import Database
from qjsupervisor.errors import DatabaseError
from qjsupervisor.waiter import Waiter

from ..conftest import DatabaseFactory


@pytest.fixture
def connected(database: DatabaseFactory) -> Database:
    one = database()
    made = Database(one.name, one.dsn(), Waiter(lambda: None))
    made.connect()
    return made


def error_of(connected: Database, statement: str) -> DatabaseError:
    """What the worker gets; its connection is closed by that."""
    with pytest.raises(DatabaseError) as caught:
        connected.rows(statement)
    assert not connected.connected
    return caught.value


def raises(sqlstate: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$"


@pytest.mark.parametrize("sqlstate", ["23514", "40001", "40P01", "42501", "53100", "55P03", "P0001", "57014"])
def test_what_the_server_refused_had_no_effect(connected: Database, sqlstate: str) -> None:
    assert error_of(connected, raises(sqlstate)).refused


def test_what_took_too_long_had_no_effect(connected: Database) -> None:
    connected.rows("SET statement_timeout = '1ms'")
    assert error_of(connected, "SELECT pg_sleep(10)").refused


@pytest.mark.parametrize("sqlstate", ["08006", "08P01", "40003", "57P01", "57P02", "57P03", "57P05"])
def test_what_may_have_come_after_the_commit_is_not_known(connected: Database, sqlstate: str) -> None:
    """With synchronous replication a session can be ended while it waits for the standby: it has committed."""
    assert not error_of(connected, raises(sqlstate)).refused


def test_what_ended_the_session_is_not_known(connected: Database) -> None:
    assert not error_of(connected, "SELECT pg_terminate_backend(pg_backend_pid())").refused
