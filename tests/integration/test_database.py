"""A worker's connection against a real PostgreSQL: what its statements touch, and what is known after an error."""

from __future__ import annotations

import os
import select
import selectors
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg2
import pytest

from qjsupervisor.commands import job_rows
from qjsupervisor.errors import DatabaseError
from qjsupervisor.loop import Deadline, Loop
from qjsupervisor.postgres import claim_queries, queries
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.session import Session
from qjsupervisor.postgres.waiter import Waiter
from qjsupervisor.testing import jobs, schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.worker.listening import Listening

from ..acceptance.link import Link
from ..conftest import DatabaseFactory
from ..helpers import Database as Jobs
from ..helpers import wait_until
from ..replica import Replica


@pytest.fixture
def connected(database: DatabaseFactory) -> Database:
    one = database()
    made = Database(one.name, one.dsn(), Waiter(lambda: None))
    made.connect()
    return made


def listening_to(one: Jobs) -> Database:
    made = Database(one.name, one.dsn(), Waiter(lambda: None))
    made.connect()
    made.listen()
    return made


def blocks_touched(connected: Database, statement: str, params: dict[str, object]) -> int:
    """Pages that the server had to look at for a prepared statement."""
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
    ((plans,),) = connected.rows(explain, params)
    return int(plans[0]["Plan"]["Shared Hit Blocks"]) + int(plans[0]["Plan"]["Shared Read Blocks"])


@pytest.mark.parametrize("state", ["pending", "enqueued", "done"])
def test_a_claim_looks_at_its_own_rows_only(database: DatabaseFactory, state: str) -> None:
    """However many others there are, and though the plan was made while the table was all but empty."""
    one = database()
    made = listening_to(one)
    (first,) = one.insert_jobs(1)
    assert len(made.turn({one.job(first)["id"]: 0}, [])[0]) == 1
    one.execute(
        """INSERT INTO queue_job (uuid, channel, state, priority, date_created, date_done, retry, max_retries)
           SELECT 'other-' || n, 'root', %(state)s, 10, now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC', 0, 5
             FROM generate_series(1, 20000) n""",
        {"state": state},
    )
    jobs = [one.job(uuid) for uuid in one.insert_jobs(4)]
    former, ended = jobs.pop(), jobs.pop()
    touched = [
        blocks_touched(
            made,
            claim_queries.TURN,
            {"claim": [job["id"]], "former": [former["id"]], "uuids": [ended["uuid"]], "anyway": False},
        )
        for job in jobs
    ]
    assert [one.job(job["uuid"])["state"] for job in jobs] == ["enqueued"] * 2
    assert max(touched) <= 120, "each page of an index that is new is looked at once more"
    assert touched[1] <= 60
    assert blocks_touched(made, claim_queries.READ, {"uuids": [ended["uuid"]]}) <= 20
    unseen = one.insert_jobs(2)
    touched = [
        blocks_touched(made, claim_queries.UNSEEN, {"uuid": uuid, "channel": "root", "anyway": False})
        for uuid in unseen
    ]
    assert [one.state(uuid) for uuid in unseen] == ["enqueued"] * 2
    assert max(touched) <= 100
    assert touched[1] <= 40


@pytest.mark.parametrize(
    ("change", "claimed"),
    [
        ("priority = 3", True),
        ("eta = now() AT TIME ZONE 'UTC' - interval '1 s'", True),
        ("eta = now() AT TIME ZONE 'UTC' + interval '1 minute'", False),
        ("eta = 'infinity'", False),
        ("channel = 'root.sub'", False),
        ("channel = 'ROOT'", False),
        ("channel = NULL", False),
        ("state = 'wait_dependencies'", False),
        ("state = 'cancelled'", False),
    ],
)
def test_an_unseen_job_is_claimed_only_if_it_is_what_was_expected(
    database: DatabaseFactory, change: str, claimed: bool
) -> None:
    one = database()
    made = listening_to(one)
    (uuid,) = one.insert_jobs(1)
    one.execute(f"UPDATE queue_job SET {change} WHERE uuid = %(uuid)s", {"uuid": uuid})
    before = one.state(uuid)
    found = made.turn({}, [uuid], "root")
    assert [len(jobs) for jobs in found] == ([1, 0] if claimed else [0, 1])
    assert one.state(uuid) == ("enqueued" if claimed else before)


@pytest.mark.parametrize("anyway", [False, True])
def test_an_unseen_job_waits_for_a_module_in_transition(database: DatabaseFactory, anyway: bool) -> None:
    one = database()
    made = listening_to(one)
    made.ignores_modules = anyway
    one.execute("UPDATE ir_module_module SET state = 'to upgrade' WHERE name = 'queue_job'")
    (uuid,) = one.insert_jobs(1)
    assert [len(jobs) for jobs in made.turn({}, [uuid], "root")] == ([1, 0] if anyway else [0, 1])


def test_of_doubles_one_is_claimed_unseen_and_a_locked_row_is_left_alone(database: DatabaseFactory) -> None:
    one = database()
    made = listening_to(one)
    one.insert_jobs(3)
    one.execute("UPDATE queue_job SET uuid = 'double'")
    with closing(psycopg2.connect(**one.dsn())) as holder:
        holder.cursor().execute("SELECT FROM queue_job FOR UPDATE")
        assert [len(jobs) for jobs in made.turn({}, ["double"], "root")] == [0, 3]
        holder.rollback()
    assert [len(jobs) for jobs in made.turn({}, ["double"], "root")] == [1, 2]
    assert one.states() == {"enqueued": 1, "pending": 2}


def error_of(connected: Database, statement: str) -> DatabaseError:
    """What the worker gets; its connection is closed by that."""
    with pytest.raises(DatabaseError) as caught:
        connected.rows(statement)
    assert not connected.connected
    return caught.value


def raises(sqlstate: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$"


@pytest.mark.parametrize("sqlstate", ["23514", "40001", "40P01", "42501", "53100", "P0001", "57014"])
def test_what_the_server_refused_had_no_effect(connected: Database, sqlstate: str) -> None:
    assert error_of(connected, raises(sqlstate)).refused


def test_a_snapshot_has_limits_of_its_own_which_cost_no_round_trip(
    connected: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    rows = connected.session.rows

    def counted(statement: str, *given: Any, **more: Any) -> list[tuple[Any, ...]]:
        asked.append(statement)
        return rows(statement, *given, **more)

    shown = ("statement_timeout", "lock_timeout", "transaction_isolation")
    monkeypatch.setattr(connected.session, "rows", counted)
    found = connected.snapshot([(f"SHOW {name}", None) for name in shown], 300)
    assert found == [[("5min",)], [("1s",)], [("repeatable read",)]]
    assert len(asked) == len(shown) + 1
    usual = [connected.rows(f"SHOW {name}") for name in shown]
    assert usual == [[("15s",)], [("1s",)], [("read committed",)]]


def test_a_lock_that_was_waited_for_does_not_cost_the_connection(connected: Database) -> None:
    with pytest.raises(DatabaseError) as caught:
        connected.rows(raises("55P03"))
    assert caught.value.refused
    assert connected.connected
    assert connected.lock_holders() == []


def test_what_took_too_long_had_no_effect(connected: Database) -> None:
    connected.rows("SET statement_timeout = '1ms'")
    assert error_of(connected, "SELECT pg_sleep(10)").refused


@pytest.mark.parametrize("sqlstate", ["08006", "08P01", "40003", "57P01", "57P02", "57P03", "57P05"])
def test_what_may_have_come_after_the_commit_is_not_known(connected: Database, sqlstate: str) -> None:
    """With synchronous replication a session can be ended while it waits for the standby: it has committed."""
    assert not error_of(connected, raises(sqlstate)).refused


def test_what_ended_the_session_is_not_known(connected: Database) -> None:
    assert not error_of(connected, "SELECT pg_terminate_backend(pg_backend_pid())").refused


def test_a_job_that_ran_when_the_server_was_restarted_may_go_on() -> None:
    """Its Python has not noticed: the lock row is free, and it commits, or fails, when it comes to its end."""
    with ThrowawayPostgres() as cluster:
        cluster.create_database("db")
        with closing(cluster.connect("db")) as connection:
            schema.install(connection)
            started, enqueued = jobs.insert_jobs(connection, 2)
            with connection.cursor() as cursor:
                ago = "date_enqueued = (now() AT TIME ZONE 'UTC') - interval '30 s'"
                cursor.execute(f"UPDATE queue_job SET state = 'started', {ago} WHERE uuid = %s", (started,))
                cursor.execute(f"UPDATE queue_job SET state = 'enqueued', {ago} WHERE uuid = %s", (enqueued,))
        cluster.restart()
        made = Database("db", cluster.dsn("db"), Waiter())
        made.connect()
        with closing(made):
            ids = {uuid: job_id for job_id, uuid in made.rows("SELECT id, uuid FROM queue_job")}
            assert made.look_dead(ids.values(), 10).keys() == {ids[enqueued]}
            made.dead_after_restart_s = 0.0
            assert made.look_dead(ids.values(), 10).keys() == set(ids.values())
            made.dead_after_restart_s = 60.0
            made.rows("UPDATE queue_job SET date_enqueued = pg_postmaster_start_time() AT TIME ZONE 'UTC'")
            assert made.look_dead(ids.values(), 0).keys() == set(ids.values()), "it ran on this very server"


@contextmanager
def running_since_now(cluster: ThrowawayPostgres) -> Iterator[int]:
    """The id of a job in database db, whose lock row nobody holds."""
    cluster.create_database("db")
    with closing(cluster.connect("db")) as connection:
        schema.install(connection)
        jobs.insert_jobs(connection, 1)
        with connection.cursor() as cursor:
            now = "date_enqueued = now() AT TIME ZONE 'UTC'"  # after the server's start
            cursor.execute(f"UPDATE queue_job SET state = 'started', {now} RETURNING id")
            ((job_id,),) = cursor.fetchall()
        yield job_id


@contextmanager
def database_of(cluster: ThrowawayPostgres, **where: object) -> Iterator[Database]:
    made = Database("db", {**cluster.dsn("db"), **where}, Waiter())
    made.connect()
    with closing(made):
        yield made


def test_a_crash_of_one_server_process_ends_all_sessions() -> None:
    """The server begins again by itself: its start is what it was."""
    with ThrowawayPostgres() as cluster, running_since_now(cluster) as job_id:
        with closing(cluster.connect("postgres")) as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
        wait_until(lambda: reachable(cluster), "it has recovered")
        with database_of(cluster) as made:
            assert made.look_dead([job_id], 0) == {}
            made.dead_after_restart_s = 0.0
            assert made.look_dead([job_id], 0).keys() == {job_id}


def reachable(cluster: ThrowawayPostgres) -> bool:
    with suppress(psycopg2.Error):
        return bool(cluster.execute("db", "SELECT 1 FROM queue_job WHERE state = 'started'"))
    return False


def test_a_promoted_standby_ended_the_sessions_of_its_primary() -> None:
    with ThrowawayPostgres() as old, Replica(old) as new, running_since_now(old) as job_id:
        wait_until(lambda: reachable(new), "the standby has the job")
        with Link((old.host, old.port)) as link, database_of(old, port=link.port) as made:
            threading.Event().wait(1.5)  # nothing is replayed later
            new.promote()
            made.close()
            link.lead_to((new.host, new.port))
            made.connect()
            made.dead_after_restart_s = 1.0
            assert made.look_dead([job_id], 0) == {}, "the server changed a moment ago"
        with database_of(new) as fresh:
            assert fresh.look_dead([job_id], 0) == {}, "what it replayed last was a moment ago"
            fresh.dead_after_restart_s = 1.0
            assert fresh.look_dead([job_id], 0).keys() == {job_id}


class LateWaiter(Waiter):
    """Looks at an answer only when the server has ended the session after it."""

    def __init__(self, cluster: ThrowawayPostgres) -> None:
        super().__init__()
        self.cluster = cluster
        self.is_late = False

    def wait(self, connection: Any, deadline_s: float) -> None:
        if self.is_late:
            self.is_late = False
            select.select([connection.fileno()], [], [], 5)
            pid = connection.info.backend_pid
            self.cluster.execute("postgres", "SELECT pg_terminate_backend(%s, 5000)", (pid,), superuser=True)
        super().wait(connection, deadline_s)


def test_a_session_that_is_ended_just_after_its_answer(postgres: ThrowawayPostgres, database: DatabaseFactory) -> None:
    """The rows count. Its socket's number is free at once, and that it ended is found out in the next turn."""
    one = database()
    waiter = LateWaiter(postgres)
    made = Database(one.name, one.dsn(), waiter)
    made.connect()
    heard: list[DatabaseError] = []

    def hear(_now_s: float) -> None:
        with pytest.raises(DatabaseError) as caught:
            made.receive()
        heard.append(caught.value)

    with closing(made), Loop() as loop:
        listening = Listening(made, loop, hear, Deadline(loop, lambda _now_s: None))
        listening.watch(0.0, busy=False)
        fd = made.fileno()
        waiter.is_late = True
        assert made.rows("SELECT 1") == [(1,)]
        others = [socket.socket() for _ in range(20)]
        assert fd in [other.fileno() for other in others]
        for other in others:
            loop.register(other, selectors.EVENT_READ, lambda _now_s: None)
        listening.watch(0.0, busy=False)
        loop.turn(0.0)
        assert heard
        assert not made.connected
        for other in others:
            loop.unregister(other)
            other.close()


MANY = """
INSERT INTO queue_job (uuid, channel, state, priority, date_created, date_enqueued, date_done, retry, max_retries)
SELECT 'old-' || n, CASE n %% 4 WHEN 0 THEN NULL ELSE 'root.c' || n %% 4 END, 'done', 10, d, d, d, 0, 5
  FROM generate_series(1, 20000) n, LATERAL (SELECT now() AT TIME ZONE 'UTC' - n * interval '1 minute' AS d) AS dates
"""


def test_the_last_starts_do_not_take_longer_with_each_job_that_is_done(database: DatabaseFactory) -> None:
    one = database()
    one.execute(MANY.replace("%%", "%"))
    one.insert_jobs(1, channel="root.now")
    started = "state = 'started', date_enqueued = now() AT TIME ZONE 'UTC'"
    one.execute(f"UPDATE queue_job SET {started} WHERE state = 'pending'")
    one.execute("VACUUM ANALYZE queue_job")
    made = Database(one.name, one.dsn(), Waiter())
    made.connect()
    with closing(made):
        found = dict(made.rows(queries.LAST_STARTS, {"within_s": 330}))
        assert found.keys() == {"root.now", "root.c1", "root.c2", "root.c3", None}
        assert [round(found[f"root.c{n}"] / 60) for n in (1, 2, 3)] == [1, 2, 3]
        assert round(found[None] / 60) == 4
        assert found["root.now"] < 60
        assert blocks_touched(made, queries.LAST_STARTS, {"within_s": 330}) < 100, "the table has hundreds"
        past = {"within_s": 330, "like": ["root.c1"], "limit": 10}
        assert len(made.rows(queries.PAST_STARTS, past)) == 2
        assert blocks_touched(made, queries.PAST_STARTS, past) < 100


def test_a_few_of_many_jobs_that_are_done_are_listed_without_keeping_the_others(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`jobs --state done --limit 5` wrote all of them aside: 0.9 s for 400,000, where one pass takes 0.2 s."""
    one = database()
    one.execute(MANY.replace("%%", "%"))
    one.execute("ANALYZE queue_job")
    with closing(Session(one.name, one.dsn())) as session:
        session.connect()
        statement, params = "", None

        def explained(_session: Session, asked: str, given: dict[str, object] | None = None) -> list[object]:
            nonlocal statement, params
            statement, params = asked, given
            return []

        monkeypatch.setattr(job_rows, "fetch", explained)
        job_rows.read_rows(session, job_rows.Wanted(state="done", limit=5))
        session.rows("SET work_mem = '64kB'")
        ((plans,),) = session.rows(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", params)
        assert plans[0]["Plan"]["Actual Rows"] == 5
        assert plans[0]["Plan"]["Temp Written Blocks"] == 0
