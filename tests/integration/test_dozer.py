"""A database that dozes, against a real PostgreSQL."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import pytest

from qjsupervisor.errors import DatabaseError
from qjsupervisor.loop import Loop
from qjsupervisor.porter.dozer import LEAD_S, Dozer
from qjsupervisor.porter.settings import PorterSettings
from qjsupervisor.porter.sleepers import Sleepers
from qjsupervisor.postgres.lead_queries import LEADER_LOCK
from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory
from ..helpers import Database, wait_until


def pump(loop: Loop) -> None:
    """One turn."""
    loop.turn(0.01)


class Stand:
    """One dozer, and what it told."""

    def __init__(self, one: Database, failed: str = "0/0", leader_timeout_s: float | None = None) -> None:
        self.loop, self.told, self.lost = Loop(), list[Any](), list[DatabaseError]()
        settings = PorterSettings(session_mark=4711, connect_timeout_s=5, leader_timeout_s=leader_timeout_s)
        self.dozer = Dozer(
            one.name,
            "here",
            one.dsn(),
            failed,
            settings,
            self.loop,
            self.told.append,
            lambda _dozer: None,
            lambda _dozer, error, _now_s: self.lost.append(error),
            Sleepers("here", one.dsn(), settings, self.loop, lambda _dozer, _now_s: None),
        )
        self.dozer.connect(time.monotonic(), waits=False)

    def until(self, said: str) -> None:
        wait_until(lambda: pump(self.loop) or self.says(said), lambda: f"{said}: {self.told}")

    def says(self, said: str) -> bool:
        return any(each["is"] == said for each in self.told)

    def turns(self, for_s: float) -> None:
        end_s = time.monotonic() + for_s
        wait_until(lambda: pump(self.loop) or time.monotonic() > end_s, "a while")


@pytest.fixture
def one(database: DatabaseFactory) -> Database:
    return database()


def test_a_notification_wakes(one: Database) -> None:
    stand = Stand(one)
    stand.until("holds")
    stand.turns(0.2)
    assert not stand.says("wake")
    one.insert_jobs(1, state="done")
    stand.until("wake")
    stand.dozer.end()
    assert stand.told[-1] == {"is": "left", "database": one.name}


@pytest.mark.parametrize(
    ("state", "eta_s", "failed"),
    [("pending", None, "0/0"), ("started", None, "0/0"), ("pending", 1.5, "0/0"), ("failed", None, "0/0"),
     ("done", None, "1/2")],
)  # fmt: skip
def test_what_its_rows_say_wakes(state: str, eta_s: float | None, failed: str, one: Database) -> None:
    one.insert_jobs(1, state=state, eta_s=eta_s)
    stand = Stand(one, failed)
    stand.until("wake")
    stand.dozer.end()


def test_an_eta_that_comes_due_wakes(one: Database) -> None:
    began_s = time.monotonic()
    one.insert_jobs(1, eta_s=3.0)
    stand = Stand(one)
    stand.until("wake")
    assert time.monotonic() - began_s > 3.0 - LEAD_S
    assert stand.says("holds")
    stand.dozer.end()


def test_another_runner_has_the_lock(one: Database, postgres: ThrowawayPostgres) -> None:
    with closing(postgres.connect(one.name)) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK,))
        stand = Stand(one)
        stand.until("left")
        assert stand.told[-2]["is"] == "wake"


def test_a_locked_table_is_a_workers_business(one: Database, postgres: ThrowawayPostgres) -> None:
    with closing(postgres.connect(one.name)) as other, other.cursor() as cursor:
        other.autocommit = False
        cursor.execute("LOCK TABLE queue_job")
        stand = Stand(one)
        stand.until("left")
        assert "lock timeout" in stand.told[-2]["reason"]


def test_a_session_that_is_ended_is_told_and_not_called(one: Database) -> None:
    stand = Stand(one)
    stand.until("holds")
    # A session that is ended under a statement may lose what the server says as it ends it.
    quiet = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND query <> '' AND state = 'idle' AND state_change < now() - interval '0.3 s'"
    )
    wait_until(lambda: pump(stand.loop) or one.execute(quiet), "it only listens")
    one.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )
    stand.until("lost")
    assert [error.sqlstate for error in stand.lost] == ["57P01"]
    assert not stand.says("wake")


def test_a_database_that_is_not_there_wakes(one: Database) -> None:
    stand = Stand(one)
    stand.dozer.end()
    one.execute("SELECT 1")
    missing = Database.__new__(Database)
    missing.postgres, missing.name = one.postgres, f"{one.name}_gone"
    gone = Stand(missing)
    gone.until("left")
    assert "does not exist" in gone.told[-2]["reason"]


def test_it_speaks_where_the_server_ends_silent_sessions(one: Database) -> None:
    stand = Stand(one, leader_timeout_s=2.0)
    stand.until("holds")
    stand.turns(4.5)
    assert stand.lost == []
    stand.dozer.end()


def test_lets_go_for_others(one: Database) -> None:
    stand = Stand(one)
    stand.until("holds")
    one.execute("LISTEN qjsupervisor")
    stand.dozer.leave()
    stand.until("left")
    one.execute("SELECT 1")
    one.connection.poll()
    assert [each.channel for each in one.connection.notifies] == ["qjsupervisor"]
    assert one.execute("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK,)) == [(True,)]
