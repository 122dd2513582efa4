"""Who leads a database, where sessions outlive their processes; against a real PostgreSQL."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from qjsupervisor.postgres import lead_queries
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.leadership import Lead, Leadership
from qjsupervisor.postgres.waiter import Waiter

from ..conftest import DatabaseFactory
from ..helpers import wait_until

Connect = Callable[[int], Database]


@pytest.fixture
def connect(database: DatabaseFactory) -> Iterator[Connect]:
    """Makes sessions with a mark in one and the same database."""
    one = database()
    with ExitStack() as stack:

        def make(mark: int) -> Database:
            made = Database(one.name, one.dsn(), Waiter(lambda: None), mark)
            made.connect()
            stack.callback(made.close)
            return made

        yield make


def test_a_former_session_is_ended_and_waited_for(connect: Connect) -> None:
    """Though the server cannot end it yet: its process is stopped."""
    former, ours = connect(7), connect(7)
    assert former.lead() is Lead.OURS
    assert former.about is not None
    pid = former.about.backend_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert [ours.lead() for _ in range(3)] == [Lead.FORMER] * 3
        assert ours.leadership.former == [pid]
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: ours.lead() is Lead.OURS, "the former session has ended")
    assert ours.lead() is Lead.OURS


def test_another_runner_is_left_alone(connect: Connect) -> None:
    another, ours = connect(8), connect(7)
    assert another.lead() is Lead.OURS
    assert [ours.lead() for _ in range(2)] == [Lead.ANOTHER] * 2
    assert another.lead() is Lead.OURS, "its session goes on"


def test_a_former_session_that_does_not_lead_does_not_make_its_leader_ours(connect: Connect) -> None:
    another, former = connect(8), connect(7)
    assert another.lead() is Lead.OURS
    assert former.lead() is Lead.ANOTHER
    assert connect(7).lead() is Lead.ANOTHER
    assert another.lead() is Lead.OURS


def test_a_standby_looks_for_former_sessions_once(connect: Connect) -> None:
    """A look costs the server a scan of its locks; nobody else can have got the lock for us later."""
    another, session = connect(8), connect(7)
    assert another.lead() is Lead.OURS
    seen: list[str] = []

    def run(statement: str, params: Mapping[str, Any] | None) -> list[tuple[Any, ...]]:
        seen.append(statement)
        return session.rows(statement, params)

    ours = Leadership(run, 7)
    assert ours.try_lead() is Lead.ANOTHER
    first = len(seen)
    assert ours.try_lead() is Lead.ANOTHER
    assert seen[first:] == [lead_queries.TRY_LEAD]
