"""A whole porter over its pipe, in a thread, against a real PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from qjsupervisor.control import Pipe
from qjsupervisor.porter.porter import run_porter
from qjsupervisor.porter.settings import PorterSettings
from qjsupervisor.postgres.lead_queries import LEADER_LOCK

from ..conftest import DatabaseFactory
from ..helpers import Database, wait_until

TRY_LOCK = "SELECT pg_try_advisory_lock(%s)"


class Stand:
    """A porter, and what it said."""

    def __init__(self) -> None:
        self.master, self._pipe = Pipe.pair()
        self.heard: list[Any] = []
        settings = PorterSettings(session_mark=4711, connect_timeout_s=5)
        self.thread = threading.Thread(target=run_porter, args=(settings, self._pipe))
        self.thread.start()

    def take(self, *databases: Database) -> None:
        for one in databases:
            order = {"do": "take", "database": one.name, "dsn": one.dsn(), "server": "here", "failed": "0/0"}
            assert self.master.send({**order, "waits": False, "asleep": False})

    def until(self, said: str, *databases: Database) -> None:
        wanted = {(said, one.name) for one in databases}

        def found() -> bool:
            self.heard += self.master.receive_all()
            return wanted <= {(each["is"], each.get("database")) for each in self.heard}

        wait_until(found, lambda: f"{wanted}: {self.heard}")

    def close(self) -> None:
        self.master.close()
        self.thread.join(30)
        assert not self.thread.is_alive()
        self._pipe.close()


@pytest.fixture
def porter() -> Iterator[Stand]:
    made = Stand()
    yield made
    made.close()


#: Sessions of these databases' porter that only listen. One that is ended under a statement may lose what the server
#: says as it ends it.
_LISTENING = """
    FROM pg_stat_activity WHERE datname = ANY(%s) AND pid <> pg_backend_pid() AND query <> '' AND state = 'idle'
        AND state_change < now() - interval '0.3 s'
"""


def end_sessions(*databases: Database) -> None:
    """End the porter's sessions of these databases, all at once, as a server does that stops."""
    names = [one.name for one in databases]
    wait_until(
        lambda: len(databases[0].execute(f"SELECT pid {_LISTENING}", (names,))) == len(names), "the porter only listens"
    )
    databases[0].execute(f"SELECT pg_terminate_backend(pid) {_LISTENING}", (names,))


def test_takes_and_calls_and_drops(porter: Stand, database: DatabaseFactory) -> None:
    left, right = database(), database()
    porter.take(left, right)
    porter.until("holds", left, right)
    left.insert_jobs(1)
    porter.until("wake", left)
    porter.master.send({"do": "drop", "database": right.name})
    porter.until("left", right)
    wait_until(lambda: right.execute(TRY_LOCK, (LEADER_LOCK,)) == [(True,)], "it is free")
    assert left.execute(TRY_LOCK, (LEADER_LOCK,)) == [(False,)]


def test_what_it_does_not_know_it_has_left(porter: Stand, database: DatabaseFactory) -> None:
    one = database()
    porter.master.send({"do": "hand_over", "database": one.name})
    porter.until("left", one)


def test_stops_and_lets_go(porter: Stand, database: DatabaseFactory) -> None:
    one = database()
    porter.take(one)
    porter.until("holds", one)
    porter.master.send({"do": "stop"})
    porter.thread.join(30)
    wait_until(lambda: one.execute(TRY_LOCK, (LEADER_LOCK,)) == [(True,)], "it is free")


def test_one_session_is_ended_by_an_administrator_two_by_the_server(porter: Stand, database: DatabaseFactory) -> None:
    one, two = database(), database()
    porter.take(one, two)
    porter.until("holds", one, two)
    end_sessions(one)
    porter.until("away", one)
    porter.heard.clear()
    porter.until("holds", one)
    porter.heard.clear()
    end_sessions(one, two)
    porter.until("holds", one, two)
    assert not any(each["is"] == "away" for each in porter.heard)
