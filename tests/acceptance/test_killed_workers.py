"""Workers that are killed again and again: each job once, never over, nothing left behind."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import closing, suppress

from qjsupervisor.postgres.lead_queries import LEADER_LOCK
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import odoo_conf, wait_until

SECONDS = 10.0


def test_random_workers_are_killed_for_ten_seconds(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Five databases, 610 jobs, a kill -9 every 0.2 to 0.6 s."""
    chance = random.Random(610)
    databases = [database() for _ in range(5)]
    names = [each.name for each in databases]
    conf = odoo_conf(postgres, odoo.port, db_name=",".join(names), channels="root:6,root.slow:2")
    running = supervisor(conf)
    running.wait_ready(*names)
    for each in databases:
        each.insert_jobs(102, kwargs={"sleep": 0.05})
        each.insert_jobs(20, kwargs={"sleep": 0.1}, channel="root.slow")
    pause = threading.Event()
    deadline = time.monotonic() + SECONDS
    kills = 0
    while time.monotonic() < deadline:
        workers = [child.pid for child in running.children() if child.ppid() == running.pid]
        with suppress(ProcessLookupError, IndexError):
            os.kill(chance.choice(workers), signal.SIGKILL)
            kills += 1
        pause.wait(chance.uniform(0.2, 0.6))
    assert kills > 10
    for each in databases:
        each.wait_for_states(done=122, timeout_s=90)
    stats = odoo.stats()
    assert {count for runs in stats["executions"].values() for count in runs.values()} == {1}
    assert stats["peak"]["root"] <= 6
    assert stats["peak"]["root.slow"] <= 2
    wait_until(lambda: {c["running"] for c in running.status()["channels"]} == {0}, "no permit is held")
    running.wait_ready(*names, timeout_s=70)
    odoo.reset()
    for each in databases:
        each.insert_jobs(6, kwargs={"sleep": 0.3})
    wait_until(lambda: odoo.stats()["running"].get("root") == 6, "all six are usable")
    for each in databases:
        each.wait_for_states(done=128, timeout_s=30)


def test_an_idle_worker_that_is_told_to_end(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """By an operator, without the master: it sleeps, and has to notice."""
    one = database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name))
    running.wait_ready(one.name)
    wait_until(lambda: (running.database_status(one.name) or {})["heartbeat_age_s"] > 2, "it sleeps")
    os.kill(running.pids()[one.name], signal.SIGTERM)
    assert running.wait_for("worker_reaped", timeout_s=2)["exit_code"] == 0


def test_permits_of_a_worker_whose_database_somebody_else_leads_now(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one, other = database(), database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}", channels="root:1"))
    running.wait_ready(one.name, other.name)
    one.insert_jobs(1, kwargs={"sleep": 2})
    one.wait_for_states(started=1)
    with closing(postgres.connect(one.name)) as leader, leader.cursor() as cursor:
        os.kill(running.pids()[one.name], signal.SIGKILL)

        def leads() -> bool:
            cursor.execute(f"SELECT pg_try_advisory_lock({LEADER_LOCK})")
            return bool(cursor.fetchone() == (True,))

        wait_until(leads, "the lock is free")
        other.insert_jobs(1)
        other.wait_for_states(done=1)
        shown = running.database_status(one.name)
        assert shown is not None
        assert shown["state"] == "standby"
