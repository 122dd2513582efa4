"""Databases that come, go, change their names and are worked on, under a supervisor that is never restarted.

Each time: noticed, in `status` with the reason, one line in the log, and served again when it is well.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing

import psycopg2
import pytest
from psycopg2 import errors

from qjsupervisor.testing import schema
from qjsupervisor.testing.jobs import insert_jobs
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until

Start = Callable[..., Supervisor]
#: Often, so that tests need not wait a minute.
OFTEN = {"rescan_interval": 0.5, "reconcile_interval": 1}


@pytest.fixture
def start(postgres: ThrowawayPostgres, odoo: StandIn, supervisor: SupervisorFactory) -> Start:
    """A supervisor that discovers the databases that fit a pattern."""

    def new(include: str, **options: object) -> Supervisor:
        own = {"databases_include": include, **OFTEN, **options}
        return supervisor(odoo_conf(postgres, odoo.port, sections={"qjsupervisor": own}))

    return new


def state(supervisor: Supervisor, name: str) -> str | None:
    entry = supervisor.database_status(name)
    return None if entry is None else str(entry["state"])


def wait_for_reason(supervisor: Supervisor, name: str, *words: str) -> str:
    """Until status says why a database is not served; the reason, which has all these words in it."""

    def found() -> str | None:
        entry = supervisor.database_status(name)
        if entry is None or entry["state"] == "ready":
            return None
        text = str(entry["last_error"])
        return text if all(word in text for word in words) else None

    reason = wait_until(found, lambda: f"{words} in {supervisor.database_status(name)}")
    assert reason is not None
    return reason


def run_jobs(one: Database, count: int = 5) -> None:
    """Some more jobs, to their end."""
    done = one.states().get("done", 0)
    one.insert_jobs(count)
    one.wait_for_states(done=done + count)


# -- whole databases ---------------------------------------------------------------------------------------------


def test_created_dropped_and_created_again(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, start: Start
) -> None:
    stays = database("life_stays")
    running = start("life_*")
    running.wait_ready("life_stays")
    pid = running.pids()["life_stays"]
    for round_ in range(2):
        comes = database("life_comes")
        run_jobs(comes)
        odoo.forget("life_comes")
        comes.insert_jobs(20, kwargs={"sleep": 0.3})
        wait_until(lambda comes=comes: comes.states().get("started", 0) == 4, "its jobs have all permits")
        mark = running.mark()
        comes.drop()
        running.wait_for("database_dropped", after=mark, database="life_comes")
        wait_until(lambda: state(running, "life_comes") is None, "status does not have it any more")
        run_jobs(stays, 8)
        assert len([e for e in running.log_events("database_gone") if e["database"] == "life_comes"]) <= round_ + 1
    assert running.pids() == {"life_stays": pid}
    wait_until(lambda: {channel["running"] for channel in running.status()["channels"]} == {0}, "all permits are back")


def test_dropped_under_jobs_that_go_on(database: DatabaseFactory, odoo: StandIn, start: Start) -> None:
    """A scan finds that it is gone: its open requests count nevertheless, until they end."""
    stays, comes = database("drop_stays"), database("drop_comes")
    running = start("drop_*")
    running.wait_ready("drop_stays", "drop_comes")
    comes.insert_jobs(4, kwargs={"sleep": 4})
    comes.wait_for_states(started=4)
    stays.insert_jobs(8, kwargs={"sleep": 1})
    comes.drop()
    running.wait_for("database_dropped", database="drop_comes")
    stays.wait_for_states(done=8)
    assert odoo.stats()["peak"]["root"] == 4
    wait_until(lambda: state(running, "drop_comes") is None, "status does not have it any more")


def test_renamed(postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, start: Start) -> None:
    one = database("name_old")
    running = start("name_*")
    running.wait_ready("name_old")
    waiting = one.insert_jobs(3, eta_s=4)
    odoo.forget("name_old")
    one.connection.close()
    wait_until(lambda: _renamed(postgres), "nobody is in the way of the new name", 20)
    try:
        running.wait_ready("name_new")
        wait_until(lambda: state(running, "name_old") is None, "the old name is forgotten")
        with closing(postgres.connect("name_new")) as connection:
            one.connection = connection
            one.wait_for_states(done=3)
        assert odoo.stats()["executions"]["name_new"] == dict.fromkeys(waiting, 1)
    finally:
        postgres.drop_database("name_new")


def _renamed(postgres: ThrowawayPostgres) -> bool:
    """As an administrator does it: end the sessions and be quicker than who comes back."""
    with closing(postgres.connect("postgres", superuser=True)) as admin, admin.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'name_old'")
        try:
            cursor.execute("ALTER DATABASE name_old RENAME TO name_new")
        except errors.ObjectInUse:
            return False
    return True


def test_restored_from_a_dump(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, start: Start
) -> None:
    """First an empty database, then its tables, then rows that say `started` of jobs that nobody runs."""
    running = start("dump_*")
    one = database("dump_1", schema=None)
    wait_until(lambda: running.log_events("database_ignored", database="dump_1"), "not yet installed")
    with closing(postgres.connect("dump_1")) as restore:
        restore.autocommit = False
        schema.install(restore)
        restore.commit()
    uuids = one.insert_jobs(2, state="started") + one.insert_jobs(2, state="enqueued") + one.insert_jobs(3)
    one.execute(
        "UPDATE queue_job SET date_enqueued = now() AT TIME ZONE 'UTC' - interval '1 day', date_started = now()"
    )
    one.wait_for_states(done=7, timeout_s=20)
    assert odoo.stats()["executions"]["dump_1"] == dict.fromkeys(uuids, 1)
    assert len(running.log_events("database_ignored", database="dump_1")) == 1


def test_cloned_with_the_same_uuids(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, start: Start
) -> None:
    original = database("clone_1")
    uuids = original.insert_jobs(30, kwargs={"sleep": 0.05})
    original.connection.close()
    postgres.create_database("clone_2", "clone_1")
    original.connection = postgres.connect("clone_1")
    clone = Database(postgres, "clone_2")
    try:
        running = start("clone_*")
        for one in (original, clone):
            one.wait_for_states(done=30)
        once = dict.fromkeys(uuids, 1)
        assert odoo.stats()["executions"] == {"clone_1": once, "clone_2": once}
        assert set(running.pids()) == {"clone_1", "clone_2"}
    finally:
        clone.drop()


# -- queue_job in a database -------------------------------------------------------------------------------------


def test_a_module_is_upgraded(database: DatabaseFactory, odoo: StandIn, start: Start) -> None:
    """Any module's: jobs wait, those that come too, with that reason, and what runs is counted. Nobody reads it for
    each job: it is the claim that gets nothing.
    """
    one, other = database("upgrade_1"), database("upgrade_2")
    running = start("upgrade_*", reconcile_interval=600, rescan_interval=600)
    running.wait_ready("upgrade_1", "upgrade_2")
    pids = running.pids()
    run_jobs(one)
    one.insert_jobs(1, kwargs={"sleep": 2})
    one.wait_for_states(done=5, started=1)
    schema.set_module_state(one.connection, "to upgrade", "sale")
    one.insert_jobs(5)
    wait_for_reason(running, "upgrade_1", "module sale is 'to upgrade'")
    entry = running.database_status("upgrade_1") or {}
    assert (entry["state"], entry["modules"]["states"]) == ("blocked", {"sale": "to upgrade"})
    shown = running.run("jobs", "upgrade_1", "--state", "pending").stdout
    assert shown.count("module sale is 'to upgrade'") == 5
    run_jobs(other, 20)
    one.wait_for_states(done=6, pending=5)
    running.wait_for("database_blocked", database="upgrade_1")
    mark = running.mark()
    # Another module follows: it is one upgrade.
    schema.set_module_state(one.connection, "to install", "web")
    schema.set_module_state(one.connection, "installed", "sale")
    wait_for_reason(running, "upgrade_1", "module web is 'to install'")
    assert one.states() == {"done": 6, "pending": 5}
    schema.set_module_state(one.connection, "installed", "web")
    wait_until(lambda: one.states() == {"done": 11}, lambda: f"it goes on: {one.states()}", 5)
    running.wait_for("database_blocked", database="upgrade_1", after=mark)
    assert len(running.log_events("database_blocked", database="upgrade_1")) == 2
    assert running.pids() == pids
    assert set(odoo.stats()["executions"]["upgrade_1"].values()) == {1}


def test_an_upgrade_that_hangs(database: DatabaseFactory, start: Start) -> None:
    """One error line and a mark in status; an operator's word lets jobs run until it is over, and no longer."""
    one = database("hangs_1")
    running = start("hangs_*", upgrade_timeout=1)
    running.wait_ready("hangs_1")
    assert running.run("resume", "hangs_1", "--anyway").returncode != 0
    schema.set_module_state(one.connection, "to upgrade", "sale")
    one.insert_jobs(2)
    wait_for_reason(running, "hangs_1", "module sale is 'to upgrade'")
    running.wait_for("modules_hang", database="hangs_1")
    assert (running.database_status("hangs_1") or {})["modules"]["overdue"] is True
    assert one.states() == {"pending": 2}
    said = running.run("resume", "hangs_1", "--anyway")
    assert (said.returncode, "module sale is 'to upgrade'" in said.stdout) == (0, True), said
    one.wait_for_states(done=2)
    os.kill(running.pids()["hangs_1"], signal.SIGKILL)  # its next life was not told by the operator
    one.insert_jobs(2)
    one.wait_for_states(done=4)
    assert len(running.log_events("modules_hang")) == 1
    schema.set_module_state(one.connection, "installed", "sale")
    wait_until(lambda: (running.database_status("hangs_1") or {})["modules"] is None, "the upgrade is over")
    schema.set_module_state(one.connection, "to remove", "web")
    one.insert_jobs(1)
    wait_for_reason(running, "hangs_1", "module web is 'to remove'")
    assert one.states() == {"done": 4, "pending": 1}


def test_upgrade_gives_permits_back(database: DatabaseFactory, odoo: StandIn, start: Start) -> None:
    """All permits are used by a database whose upgrade begins: what ends there is not kept from the others."""
    one, other = database("begun_1"), database("begun_2")
    running = start("begun_*")
    running.wait_ready("begun_1", "begun_2")
    one.insert_jobs(4, kwargs={"sleep": 3})
    wait_until(lambda: one.states() == {"started": 4}, "all permits are taken")
    schema.set_module_state(one.connection, "to upgrade")
    wait_for_reason(running, "begun_1", "'to upgrade'")
    run_jobs(other)
    assert state(running, "begun_1") == "blocked"


def test_to_upgrade_from_the_start(database: DatabaseFactory, start: Start) -> None:
    """It has a worker all the same, which sees when that is over; no scan is waited for."""
    one, other = database("late_1"), database("late_2")
    schema.set_module_state(one.connection, "to upgrade")
    running = start("late_*", rescan_interval=600)
    running.wait_ready("late_2")
    wait_for_reason(running, "late_1", "module queue_job is 'to upgrade'")
    one.insert_jobs(3)
    run_jobs(other, 5)
    assert one.states() == {"pending": 3}
    schema.set_module_state(one.connection, "installed")
    wait_until(lambda: one.states() == {"done": 3}, lambda: f"it goes on: {one.states()}", 5)


def test_a_neutralised_copy(database: DatabaseFactory, start: Start) -> None:
    """Last night's copy does not send last night's invoices, found so or made so, unless that is wanted."""
    one, copy = database("copy_1"), database("copy_2")
    schema.neutralize(copy.connection, True)
    running = start("copy_*")
    running.wait_ready("copy_1")
    wait_for_reason(running, "copy_2", "neutralised copy")
    copy.insert_jobs(2)
    run_jobs(one)
    schema.neutralize(one.connection, True)
    wait_for_reason(running, "copy_1", "neutralised copy")
    one.insert_jobs(1)
    assert copy.states() == {"pending": 2}
    pid = running.pids()["copy_1"]
    text = running.conf.read_text()
    running.conf.write_text(text.replace("[qjsupervisor]", "[qjsupervisor]\nserve_neutralized = yes"))
    assert running.run("reload").returncode == 0
    copy.wait_for_states(done=2)
    one.wait_for_states(done=6, timeout_s=15)
    assert running.pids()["copy_1"] == pid


def test_removed_and_installed_again(database: DatabaseFactory, start: Start) -> None:
    one, other = database("removed_1"), database("removed_2")
    running = start("removed_*")
    running.wait_ready("removed_1", "removed_2")
    pid = running.pids()["removed_2"]
    one.insert_jobs(3, eta_s=600)
    schema.uninstall(one.connection)
    running.wait_for("database_dropped", database="removed_1")
    wait_until(lambda: state(running, "removed_1") is None, "not served any more")
    wait_until(
        lambda: [entry["reason"] for entry in running.status()["ignored"]] == ["queue_job is not installed"],
        lambda: f"a scan says why: {running.status()['ignored']}",
    )
    run_jobs(other)
    schema.install(one.connection)
    running.wait_ready("removed_1")
    run_jobs(one)
    assert running.pids()["removed_2"] == pid


# -- what a worker cannot do without -----------------------------------------------------------------------------

DISABLE = "ALTER TABLE queue_job DISABLE TRIGGER queue_job_notify"
ENABLE = "ALTER TABLE queue_job ENABLE TRIGGER queue_job_notify"
RENAME = "ALTER TRIGGER queue_job_notify ON queue_job RENAME TO other_name"
RENAME_BACK = "ALTER TRIGGER other_name ON queue_job RENAME TO queue_job_notify"
ROLE = ThrowawayPostgres.user


DAMAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "damaged_off": (DISABLE, ENABLE, ("trigger queue_job_notify is disabled", "ENABLE TRIGGER")),
    "damaged_gone": (RENAME, RENAME_BACK, ("trigger queue_job_notify is missing", "upgrade")),
    "damaged_update": (
        f"REVOKE UPDATE ON queue_job FROM {ROLE}",
        f"GRANT UPDATE ON queue_job TO {ROLE}",
        ("no UPDATE privilege on queue_job", f"GRANT UPDATE ON queue_job TO {ROLE}"),
    ),
    "damaged_select": (
        f"REVOKE SELECT ON queue_job FROM {ROLE}",
        f"GRANT SELECT ON queue_job TO {ROLE}",
        ("no SELECT privilege on queue_job", f"GRANT SELECT ON queue_job TO {ROLE}"),
    ),
}


def test_damaged_and_repaired(postgres: ThrowawayPostgres, database: DatabaseFactory, start: Start) -> None:
    """Noticed without a job that would fail on it; jobs that come meanwhile are run afterwards."""
    databases = {name: database(name) for name in DAMAGES}
    running = start("damaged_*")
    running.wait_ready(*DAMAGES)
    pids = running.pids()
    for name, (damage, _, _) in DAMAGES.items():
        run_jobs(databases[name])
        postgres.execute(name, damage, superuser=True)
    for name, (_, _, words) in DAMAGES.items():
        wait_for_reason(running, name, *words)
    for name in DAMAGES:
        with closing(postgres.connect(name, superuser=True)) as session:
            insert_jobs(session, 3)
    blocked_s = time.monotonic()
    wait_until(lambda: time.monotonic() > blocked_s + 1, "time passes")
    for name, (_, repair, _) in DAMAGES.items():
        postgres.execute(name, repair, superuser=True)
    for one in databases.values():
        one.wait_for_states(done=8)
    wait_until(lambda: len(running.log_events("database_ready")) == 2 * len(DAMAGES), "the log says so")
    for name in DAMAGES:
        assert len(running.log_events("database_blocked", database=name)) == 1
        assert len(running.log_events("database_ready", database=name)) == 2
    assert running.pids() == pids


def test_what_runs_in_a_deaf_database_is_counted(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """After a restart that found its trigger disabled: its jobs that still run hold their permits."""
    deaf, other = database("deaf_1"), database("deaf_2")
    conf = odoo_conf(postgres, odoo.port, db_name="deaf_1,deaf_2", channels="root:2")
    former = supervisor(conf)
    former.wait_ready("deaf_1", "deaf_2")
    deaf.insert_jobs(2, kwargs={"sleep": 6})
    deaf.wait_for_states(started=2)
    former.kill()
    postgres.execute("deaf_1", DISABLE, superuser=True)
    running = supervisor(conf)
    running.wait_ready("deaf_2")
    wait_for_reason(running, "deaf_1", "trigger queue_job_notify is disabled")
    other.insert_jobs(3)
    other.wait_for_states(done=3, timeout_s=30)
    assert odoo.stats()["peak"]["root"] == 2
    deaf.wait_for_states(done=2)
    assert len(running.log_events("database_blocked", database="deaf_1")) == 1
    postgres.execute("deaf_1", ENABLE, superuser=True)
    running.wait_ready("deaf_1")
    run_jobs(deaf)


def test_read_only(postgres: ThrowawayPostgres, database: DatabaseFactory, start: Start) -> None:
    """No claim can be made there; that is said, and not tried again and again."""
    one = database("read_only_db")
    running = start("read_only_*")
    running.wait_ready(one.name)
    setting = f"ALTER DATABASE {one.name} SET default_transaction_read_only"
    postgres.execute("postgres", f"{setting} = on", superuser=True)
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{one.name}'"
    postgres.execute("postgres", end, superuser=True)
    wait_for_reason(running, one.name, "default_transaction_read_only")
    check = running.run("check")
    assert check.returncode == 1
    assert "default_transaction_read_only" in check.stdout
    postgres.execute("postgres", f"ALTER DATABASE {one.name} RESET default_transaction_read_only", superuser=True)
    one.reconnect()
    run_jobs(one)
    assert len(running.log_events("database_blocked", database=one.name)) == 1


def test_connections_forbidden(postgres: ThrowawayPostgres, database: DatabaseFactory, start: Start) -> None:
    """As before maintenance: no new sessions, and the old ones are ended."""
    one, other = database("closed_1"), database("closed_2")
    running = start("closed_*")
    running.wait_ready("closed_1", "closed_2")
    one.insert_jobs(3, eta_s=3)
    postgres.execute("postgres", "ALTER DATABASE closed_1 CONNECTION LIMIT 0", superuser=True)
    sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'closed_1'"
    with closing(postgres.connect("postgres", superuser=True)) as admin, admin.cursor() as cursor:
        cursor.execute(sessions)
    wait_for_reason(running, "closed_1", "too many connections")
    run_jobs(other)
    closed_s = time.monotonic()
    wait_until(lambda: time.monotonic() > closed_s + 2.5, "it is tried again, and fails for the same reason")
    postgres.execute("postgres", "ALTER DATABASE closed_1 CONNECTION LIMIT -1", superuser=True)
    with pytest.raises(psycopg2.OperationalError):
        one.execute("SELECT 1")
    one.reconnect()
    one.wait_for_states(done=3, timeout_s=20)
    assert len(running.log_events("database_lost", database="closed_1")) <= 2
