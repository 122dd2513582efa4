"""Changes that no notification tells of are found by reading the table now and then, which must not cost much."""

from __future__ import annotations

import time
from contextlib import closing

from qjsupervisor.postgres import queries
from qjsupervisor.testing.jobs import insert_jobs
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until

MANY_DONE = """
INSERT INTO queue_job (uuid, state, channel, priority, date_created, date_done, name, exc_info, result, kwargs)
SELECT gen_random_uuid(), 'done', 'root', 10, now(), now(), 'Some job', repeat('x', 200), repeat('y', 100), '{}'
  FROM generate_series(1, %(count)s)
"""


def start(postgres: ThrowawayPostgres, odoo: StandIn, one: Database, supervisor: SupervisorFactory) -> Supervisor:
    """With a reconcile every second, and a database that is ready."""
    own = {"reconcile_interval": 1}
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections={"qjsupervisor": own}))
    running.wait_ready(one.name)
    return running


def counts(supervisor: Supervisor, one: Database) -> tuple[int, int, int]:
    """(pending, running, failed) as status has them."""
    entry = supervisor.database_status(one.name)
    assert entry is not None
    return entry["pending"], entry["running"], entry["failed"]


def test_trigger_disabled_for_a_moment(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """As a bulk load does it; whoever looks in between sees no difference."""
    one = database()
    running = start(postgres, odoo, one, supervisor)
    with closing(postgres.connect(one.name)) as load, load.cursor() as cursor:
        load.autocommit = False
        cursor.execute("ALTER TABLE queue_job DISABLE TRIGGER queue_job_notify")
        insert_jobs(load, 30)
        cursor.execute("ALTER TABLE queue_job ENABLE TRIGGER queue_job_notify")
        load.commit()
    one.wait_for_states(done=30, timeout_s=5)
    assert not running.log_events("database_blocked")


def test_replica_role(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """Logical replication, and pg_restore --disable-triggers: inserted, changed and deleted in silence."""
    one = database()
    running = start(postgres, odoo, one, supervisor)
    put_off, dropped = one.insert_jobs(2, eta_s=600)
    one.insert_jobs(1, state="failed")
    wait_until(lambda: counts(running, one) == (2, 0, 1), "two wait, one failed")
    with closing(postgres.connect(one.name, superuser=True)) as replica, replica.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        new = insert_jobs(replica, 5)
        cursor.execute("UPDATE queue_job SET eta = NULL WHERE uuid = %s", (put_off,))
        cursor.execute("DELETE FROM queue_job WHERE uuid = %s OR state = 'failed'", (dropped,))
    one.wait_for_states(done=6, timeout_s=5)
    assert odoo.stats()["executions"][one.name] == dict.fromkeys([*new, put_off], 1)
    wait_until(lambda: counts(running, one) == (0, 0, 0), "nothing is left")


def test_truncated(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """While jobs run and others wait: their permits come back, and what is inserted afterwards runs."""
    one = database()
    running = start(postgres, odoo, one, supervisor)
    one.insert_jobs(50, eta_s=600)
    one.insert_jobs(3, state="started")
    wait_until(lambda: counts(running, one) == (50, 3, 0), "fifty wait, three are said to run")
    one.execute("TRUNCATE queue_job CASCADE")
    wait_until(lambda: counts(running, one) == (0, 0, 0), "nothing is left", 5)
    one.insert_jobs(8, kwargs={"sleep": 0.3})
    wait_until(lambda: one.states().get("started") == 4, "all permits are usable")
    one.wait_for_states(done=8)


def test_cheap_on_a_big_table(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """200,000 jobs that are done: what a reconcile asks, and what the whole takes of the server's time."""
    one = database()
    one.execute(MANY_DONE, {"count": 200_000})
    one.execute("VACUUM ANALYZE queue_job")
    one.insert_jobs(100, eta_s=600)
    statements = [
        (queries.LOAD, {"limit": 2000, "deferred": []}),
        (queries.COUNTS, None),
        (queries.FAILED, {"limit": 2000, "first": []}),
    ]
    for statement, params in statements:
        plan = "\n".join(line for (line,) in one.execute("EXPLAIN " + statement, params))
        assert "Seq Scan on queue_job" not in plan, "what is done is not even looked at"
    took_s = []
    for _ in range(3):
        began_s = time.monotonic()
        for statement, params in statements:
            one.execute(statement, params)
        took_s.append(time.monotonic() - began_s)
    assert min(took_s) < 0.2, took_s
    running = start(postgres, odoo, one, supervisor)
    wait_until(lambda: counts(running, one) == (100, 0, 0), "a hundred wait")
    assert time_a_job(one) < 1


def time_a_job(one: Database) -> float:
    (uuid,) = one.insert_jobs(1)
    began_s = time.monotonic()
    wait_until(lambda: one.state(uuid) == "done", "a job is done")
    return time.monotonic() - began_s
