"""Counters of a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest

from qjsupervisor.errors import DatabaseError
from qjsupervisor.loop import Loop
from qjsupervisor.porter import counters
from qjsupervisor.porter.counters import Count, Counters
from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory
from ..helpers import Database, wait_until


class Stand:
    def __init__(self, postgres: ThrowawayPostgres) -> None:
        self.loop = Loop()
        self.taken: list[Mapping[int, Count]] = []
        self.asked: list[Mapping[int, Count]] = []
        self.failed: list[DatabaseError] = []
        self.restarts = 0
        self.counters = Counters(
            "here", postgres.dsn("postgres"), 5.0, self.loop, take=self.taken.append, restarted=self._restarted,
            failed=self.failed.append,
        )  # fmt: skip

    def _restarted(self) -> None:
        self.restarts += 1

    def until(self, done: Any, what: str, timeout_s: float = 30.0) -> None:
        def turned() -> bool:
            self.loop.turn(0.01)
            return bool(done())

        wait_until(turned, what, timeout_s)


@pytest.fixture
def stand(postgres: ThrowawayPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """Reads counters of older servers, too: a session that ends reports there as well."""
    monkeypatch.setattr(counters, "POSTGRESQL_15", 0)
    made = Stand(postgres)
    yield made
    made.counters.close()
    made.loop.close()


def oid_of(one: Database) -> int:
    return int(one.execute("SELECT oid::bigint FROM pg_database WHERE datname = current_database()")[0][0])


def test_what_is_written_moves_its_database_alone(
    stand: Stand, postgres: ThrowawayPostgres, database: DatabaseFactory
) -> None:
    one, other = database(), database()
    oid, other_oid = oid_of(one), oid_of(other)
    for each in (one, other):
        each.connection.close()
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname IN (%s, %s)"
    with closing(postgres.connect("postgres")) as looks, looks.cursor() as cursor:

        def ended() -> bool:
            cursor.execute(sessions, (one.name, other.name))
            return cursor.fetchall() == [(0,)]

        wait_until(ended, "a session that has ended has reported all that it wrote")
    stand.counters.is_needed = True
    stand.counters.ask(stand.asked.append)
    stand.until(lambda: stand.asked, "asked")
    before = stand.asked[-1]
    with closing(postgres.connect(one.name)) as writes, writes.cursor() as cursor:
        cursor.execute("INSERT INTO queue_job (uuid, state) VALUES ('u', 'done')")
    stand.until(lambda: stand.taken and stand.taken[-1][oid] != before[oid], "it moves")
    assert stand.taken[-1][other_oid] == before[other_oid]


def test_without_sleepers_it_closes(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "KEPT_S", 0.5)
    stand.counters.ask(stand.asked.append)
    stand.until(lambda: stand.asked and stand.loop.watched == 0, "closed again")


def test_a_lost_connection_is_told_and_comes_back(
    stand: Stand, postgres: ThrowawayPostgres, database: DatabaseFactory
) -> None:
    stand.counters.is_needed = True
    stand.counters.ask(stand.asked.append)
    stand.until(lambda: stand.asked, "asked")
    database().execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres' AND query LIKE %s",
        ("%tup_inserted%",),
    )
    stand.until(lambda: stand.restarts == 1, "it is back")
    assert len(stand.failed) == 1


def test_who_asked_is_told_though_the_connection_is_lost_meanwhile(
    stand: Stand, database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that waits for this reading to fall asleep would doze until it is looked at, an hour later."""
    one = database()
    stand.counters.is_needed = True
    with monkeypatch.context() as slow:
        slow.setattr(counters, "READ", "SELECT 1::bigint, 1::bigint, 1::float8 FROM pg_sleep(60) AS slow_reading")
        stand.counters.ask(stand.asked.append)
        reads = "FROM pg_stat_activity WHERE query LIKE '%%slow_reading%%' AND pid <> pg_backend_pid()"
        stand.until(lambda: one.execute(f"SELECT 1 {reads} AND wait_event = 'PgSleep'", ()), "the reading goes on")
        one.execute(f"SELECT pg_terminate_backend(pid) {reads}", ())
        stand.until(lambda: stand.failed, "it is lost")
    assert stand.asked == []
    stand.until(lambda: stand.asked, "told by the next one")


def test_an_old_server_has_none(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "POSTGRESQL_15", 10**6)
    stand.counters.ask(stand.asked.append)
    stand.until(lambda: stand.counters.is_unfit, "found out")
    assert stand.loop.watched == 0
    stand.counters.ask(stand.asked.append)
    assert stand.asked == []
