"""What the reconcile sets right beyond the queue itself: permits, blocked channels, states; and the rows it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from psycopg2 import extensions

from qjsupervisor.testing.jobs import insert_jobs
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until

Start = Callable[..., Supervisor]
CHANNELS = "root:4,root.one:1:sequential"
DONE = 50_000


@pytest.fixture
def start(postgres: ThrowawayPostgres, odoo: StandIn, supervisor: SupervisorFactory) -> Start:
    """With a reconcile every second."""

    def new(*databases: Database) -> Supervisor:
        names = [each.name for each in databases]
        own = {"qjsupervisor": {"reconcile_interval": 1}}
        running = supervisor(odoo_conf(postgres, odoo.port, db_name=",".join(names), channels=CHANNELS, sections=own))
        running.wait_ready(*names, timeout_s=30)
        return running

    return new


@contextmanager
def replica(one: Database) -> Iterator[extensions.connection]:
    """A session whose changes fire no trigger, as those of a logical subscription."""
    with closing(one.postgres.connect(one.name, superuser=True)) as session:
        execute(session, "SET session_replication_role = replica")
        yield session


def execute(session: extensions.connection, statement: str, *params: object) -> None:
    with session.cursor() as cursor:
        cursor.execute(statement, params)


def test_permits_of_a_truncated_table(database: DatabaseFactory, start: Start) -> None:
    """They go to another database, which waits for them."""
    one, other = database(), database()
    one.insert_jobs(4, state="enqueued")
    # Not to be found dead: what frees their permits is that they are gone.
    one.execute("UPDATE queue_job SET date_enqueued = now() AT TIME ZONE 'UTC' + interval '1 hour'")
    running = start(one, other)
    pids = running.pids()
    other.insert_jobs(5)
    wait_until(lambda: (running.database_status(other.name) or {})["pending"] == 5, "the other's jobs are known")
    assert other.states() == {"pending": 5}
    one.execute("TRUNCATE queue_job CASCADE")
    other.wait_for_states(done=5)
    assert running.pids() == pids


def test_states_changed_in_silence(database: DatabaseFactory, odoo: StandIn, start: Start) -> None:
    """Cancelled jobs are not run, jobs asked for again are; a channel blocked by a failed job that is gone goes on."""
    one = database()
    (cancelled,) = one.insert_jobs(1, eta_s=6)
    (again,) = one.insert_jobs(1, state="failed")
    (blocks,) = one.insert_jobs(1, state="failed", channel="root.one")
    (behind,) = one.insert_jobs(1, channel="root.one")
    running = start(one)
    assert one.state(behind) == "pending"
    with replica(one) as session:
        execute(session, "UPDATE queue_job SET state = 'cancelled' WHERE uuid = %s", cancelled)
        execute(session, "UPDATE queue_job SET state = 'pending' WHERE uuid = %s", again)
        execute(session, "DELETE FROM queue_job WHERE uuid = %s", blocks)
    one.wait_for_states(done=2, cancelled=1)
    wait_until(lambda: (running.database_status(one.name) or {})["pending"] == 0, "the cancelled one is forgotten")
    assert odoo.stats()["requests"] == {one.name: {again: 1, behind: 1}}


def test_jobs_run_on(database: DatabaseFactory, odoo: StandIn, start: Start) -> None:
    """A reconcile in the midst of running jobs asks for none of them again, and starts no more than it may."""
    one = database()
    start(one)
    long = one.insert_jobs(2, kwargs={"sleep": 3})
    wait_until(lambda: one.states() == {"started": 2}, "jobs run")
    with replica(one) as session:
        silent = insert_jobs(session, 20, kwargs={"sleep": 0.1})
    one.wait_for_states(done=22)
    assert odoo.stats()["requests"] == {one.name: dict.fromkeys(long + silent, 1)}
    assert odoo.stats()["peak"]["root"] == 4


SESSIONS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'qjsupervisor'
"""
READ = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'queue_job'"


def rows_read(one: Database) -> int:
    """Rows of queue_job read by sessions that have ended, as PostgreSQL counts them."""
    ((rows,),) = one.postgres.execute(one.name, READ)
    return int(rows)


def wait_until_run(one: Database, uuid: str) -> None:
    wait_until(lambda: one.state(uuid) == "done", "the silent job is found and run", 20)


def test_rows_read(database: DatabaseFactory, start: Start) -> None:
    """By a worker's first read and three reconciles, of a table full of done jobs that was never analyzed."""
    one = database()
    one.insert_jobs(30, eta_s=3600)
    one.insert_jobs(30, state="failed")
    with replica(one) as session:
        execute(session, "ALTER TABLE queue_job SET (autovacuum_enabled = off)")
        execute(
            session,
            "INSERT INTO queue_job (uuid, state, channel, priority, date_created, date_done) "
            "SELECT gen_random_uuid(), 'done', 'root', 10, now(), now() FROM generate_series(1, %s)",
            DONE,
        )
    before = rows_read(one)
    running = start(one)
    with replica(one) as session:
        for _ in range(3):
            wait_until_run(one, *insert_jobs(session, 1))
    running.stop()
    # With their end the sessions tell what they counted.
    wait_until(lambda: one.execute(SESSIONS) == [(0,)], "the worker's sessions have ended")
    assert 0 < rows_read(one) - before < DONE / 10
