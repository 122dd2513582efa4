"""Jobs whose Odoo worker was killed run again; jobs that only wait are left alone."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from qjsupervisor.testing.jobs import insert_row
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.schema import Schema
from qjsupervisor.testing.stand_in import StandIn
from qjsupervisor.worker.unattended import DEAD_AGAIN_S, DEAD_CHECK_S

from ..conftest import DatabaseFactory, StandInFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until

#: Contract: a job is not dead before that. Issue 4: it runs again within 15 s of its worker's death, on an idle system.
GRACE_S = 10.0
RUNS_AGAIN_S = 15.0
#: For what a busy machine needs on top.
SLACK_S = 10.0


def start(
    postgres: ThrowawayPostgres, odoo: StandIn, supervisor: SupervisorFactory, *names: str, channels: str = "root:4"
) -> Supervisor:
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=",".join(names), channels=channels))
    running.wait_ready(*names)
    return running


def looked_twice() -> None:
    """Long enough for a dead job to be found: it is looked at when the database is read, and once more after that."""
    threading.Event().wait(DEAD_CHECK_S + DEAD_AGAIN_S)


def run_times(odoo: StandIn, database: Database, uuid: str) -> list[float]:
    """When the runs of a job were begun (monotonic)."""
    runs = odoo.stats()["runs"]
    return [run["started_s"] for run in runs if (run["database"], run["uuid"]) == (database.name, uuid)]


def test_a_killed_worker(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Its job runs again; the one next to it, which is alive, is not touched, and nor are others' databases."""
    one, other = database(), database()
    running = start(postgres, odoo, supervisor, one.name, other.name)
    (victim,) = one.insert_jobs(1, kwargs={"sleep": 0.3, "die": 1})
    (alive,) = one.insert_jobs(1, kwargs={"sleep": 16})
    one.wait_for_states(started=2)
    began_s = time.monotonic()
    wait_until(lambda: len(run_times(odoo, one, victim)) == 2, "a second run", RUNS_AGAIN_S + SLACK_S)
    first_s, second_s = run_times(odoo, one, victim)
    assert second_s - first_s > GRACE_S, "it was called dead too early"
    other.insert_jobs(5)
    other.wait_for_states(done=5)
    one.wait_for_states(done=2, timeout_s=30)
    # The stand-in counts the run itself as one, the supervisor the one that was found dead.
    assert one.job(victim)["retry"] == 2
    assert len(run_times(odoo, one, alive)) == 1
    found = running.wait_for("job_found_dead", database=one.name)
    assert (found["job_uuid"], found["state"]) == (victim, "pending")
    assert len(running.log_events("job_found_dead")) == 1
    assert time.monotonic() - began_s < 60


def test_a_busy_odoo(
    postgres: ThrowawayPostgres, stand_in: StandInFactory, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Jobs wait in its backlog for longer than the grace time; OCA's runner asks again and again."""
    odoo = stand_in(workers=2)
    one = database()
    # The table is read again and again meanwhile, and shows rows that are old enough to be dead.
    own = {"qjsupervisor": {"reconcile_interval": 2}}
    supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, channels="root:20", sections=own)).wait_ready(one.name)
    uuids = one.insert_jobs(12, kwargs={"sleep": 3})
    wait_until(lambda: odoo.stats()["peak_waiting"] == 10, "requests that wait for a worker of Odoo's")
    one.wait_for_states(done=12, timeout_s=60)
    stats = odoo.stats()
    assert stats["requests"][one.name] == dict.fromkeys(uuids, 1)
    assert stats["executions"][one.name] == dict.fromkeys(uuids, 1)
    waited_s = max(run["started_s"] - run["received_s"] for run in stats["runs"])
    assert waited_s > GRACE_S + DEAD_AGAIN_S, "it was not busy enough to show anything"


def test_left_behind_by_a_former_supervisor(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Where it died between claiming and asking; with the rule about tries, and rows at the limits of their types.

    A job that somebody else's worker holds is alive, however old it is.
    """
    one, held = database(), database()
    for state in ("enqueued", "started"):
        insert_row(held.connection, state=state)
    held.execute("INSERT INTO queue_job_lock (queue_job_id) SELECT id FROM queue_job")
    enqueued = insert_row(one.connection, state="enqueued", retry=0, max_retries=5)
    # queue_job compares before it counts: of three tries the third one may die.
    last = insert_row(one.connection, state="started", retry=3, max_retries=3)
    used_up = insert_row(one.connection, state="started", retry=4, max_retries=3)
    unlimited = insert_row(one.connection, state="started", retry=50, max_retries=0)
    endless = insert_row(one.connection, state="started", retry=None, max_retries=None)
    biggest = insert_row(one.connection, state="started", retry=2**31 - 1, max_retries=1)
    waiting = insert_row(one.connection, state="enqueued", retry=9, max_retries=3)
    one.execute("UPDATE queue_job SET date_enqueued = now() AT TIME ZONE 'UTC' - interval '1 hour'")
    # Nothing sane writes these, and nothing else would ever give their permits back.
    odd = [insert_row(one.connection, state="enqueued") for _ in range(3)]
    for uuid, when in zip(odd, (None, "infinity", "9999-12-31"), strict=True):
        one.execute("UPDATE queue_job SET date_enqueued = %s WHERE uuid = %s", (when, uuid))
    # Somebody's request for this one may still be in Odoo's backlog.
    recent = insert_row(one.connection, state="enqueued")
    later = "now() AT TIME ZONE 'UTC' + interval '5 s'"  # than the odd ones are found dead, on a slow machine too
    one.execute(f"UPDATE queue_job SET date_enqueued = {later} WHERE uuid = %s", (recent,))
    with closing(postgres.connect(held.name)) as session, session.cursor() as cursor:
        cursor.execute("BEGIN; SELECT FROM queue_job_lock FOR NO KEY UPDATE")
        running = start(postgres, odoo, supervisor, one.name, held.name)
        held.insert_jobs(3)
        one.wait_for_states(enqueued=1, failed=3, done=7)
        assert one.state(recent) == "enqueued"
        held.wait_for_states(enqueued=1, started=1, done=3)
        looked_twice()
        assert held.states() == {"enqueued": 1, "started": 1, "done": 3}
        assert running.log_events("job_found_dead", database=held.name) == []
        cursor.execute("COMMIT")
    for uuid in (used_up, biggest, waiting):
        job = one.job(uuid)
        assert (job["state"], job["exc_name"]) == ("failed", "JobFoundDead"), job
        assert "retries are used up" in job["exc_message"]
        assert job["exc_info"].startswith("JobFoundDead"), "that is what Odoo's form shows"
    assert one.job(used_up)["retry"] == 5
    assert one.job(waiting)["retry"] == 9, "it never ran: that was no try"
    retries = {uuid: one.job(uuid)["retry"] for uuid in (enqueued, last, unlimited, endless)}
    # The stand-in's own run adds one.
    assert retries == {enqueued: 1, last: 5, unlimited: 52, endless: 2}
    one.wait_for_states(failed=3, done=8, timeout_s=RUNS_AGAIN_S + SLACK_S)
    held.wait_for_states(done=5)


def test_no_lock_table(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Nobody can tell whether a started job is alive, but an operator may say so."""
    one = database(schema=Schema(lock_table=False, channel_table=False))
    started, enqueued = (insert_row(one.connection, state=state) for state in ("started", "enqueued"))
    one.execute("UPDATE queue_job SET date_enqueued = now() AT TIME ZONE 'UTC' - interval '1 hour'")
    running = start(postgres, odoo, supervisor, one.name)
    (victim,) = one.insert_jobs(1, kwargs={"sleep": 2})
    wait_until(lambda: odoo.kill_worker(victim), "a worker to kill")
    one.wait_for_states(done=1, started=2)
    assert one.state(enqueued) == "done"
    told = running.wait_for("job_unanswered", job_uuid=victim)
    assert (told["level"], "qjsupervisor requeue" in told["reason"]) == ("warning", True)
    assert running.log_events("job_finished", job_uuid=victim) == []
    wait_until(lambda: (running.database_status(one.name) or {})["running"] == 2, "two permits held")
    looked_twice()
    assert one.states() == {"done": 1, "started": 2}
    done = running.run("requeue", one.name, "--state", "started", started, victim)
    assert done.returncode == 0, done.stderr
    one.wait_for_states(done=3)


@pytest.mark.parametrize("granted", ["SELECT", "UPDATE"])
def test_lock_table_that_may_not_be_locked(
    granted: str, postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A role with only one of both on queue_job_lock cannot ask: as if there were no such table."""
    one = database()
    started, enqueued = (insert_row(one.connection, state=state) for state in ("started", "enqueued"))
    for statement in (
        "CREATE ROLE no_lock LOGIN PASSWORD 'x'",
        "GRANT SELECT ON ir_module_module, queue_job, queue_job_channel TO no_lock",
        "GRANT UPDATE ON queue_job TO no_lock",
        f"GRANT {granted} ON queue_job_lock TO no_lock",
    ):
        postgres.execute(one.name, statement, superuser=True)
    try:
        role = {"options": {"db_user": "no_lock", "db_password": "x"}}
        running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections=role))
        running.wait_ready(one.name)
        one.wait_for_states(started=1, done=1)
        assert one.state(enqueued) == "done"
        assert "queue_job_lock" in running.run("check").stdout
        looked_twice()
        assert one.state(started) == "started"
        assert running.log_events("database_blocked") == []
    finally:
        postgres.execute(one.name, "DROP OWNED BY no_lock", superuser=True)
        postgres.execute(one.name, "DROP ROLE no_lock", superuser=True)


def test_a_job_that_never_ends(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """It is reported once it runs for longer than max_runtime; told so, its session is ended and its permit freed."""
    one = database()
    running = start(postgres, odoo, supervisor, one.name, channels="root:4,slow:1:max_runtime=1")
    (hung,) = one.insert_jobs(1, channel="root.slow", kwargs={"sleep": 90}, retry=2, max_retries=1)
    (unlimited,) = one.insert_jobs(1, kwargs={"sleep": 90})
    one.wait_for_states(started=2)
    (behind,) = one.insert_jobs(1, channel="root.slow")
    running.wait_for("job_overdue", job_uuid=hung)
    wait_until(lambda: (running.database_status(one.name) or {})["overdue"] == 1, "status counts it")
    assert "longer than max_runtime of root.slow, which is 1.0 s" in running.run("jobs", one.name, hung).stdout
    pids = running.pids()
    running.write_conf(running.conf.read_text() + "\nmax_runtime_action = terminate\n")
    assert running.run("reload").returncode == 0
    running.wait_for("job_ended", job_uuid=hung)
    wait_until(lambda: one.state(hung) == "failed", "its retries are used up", GRACE_S + RUNS_AGAIN_S)
    assert one.job(hung)["exc_name"] == "JobFoundDead"
    wait_until(lambda: one.state(behind) == "done", "its permit is free")
    wait_until(lambda: (running.database_status(one.name) or {})["overdue"] == 0, "nothing is overdue")
    assert one.state(unlimited) == "started"
    assert running.pids() == pids
    assert len(running.log_events("job_overdue")) == 1
    running.kill()
