"""Databases that doze: idle ones have no worker, and one porter waits for the next job of all of them."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import psutil
import pytest

from qjsupervisor.porter.counters import POSTGRESQL_15
from qjsupervisor.postgres.lead_queries import LEADER_LOCK
from qjsupervisor.testing import schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, StandInFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until

DATABASES = 8
TRY_LOCK = "SELECT pg_try_advisory_lock(%s)"


def conf(postgres: ThrowawayPostgres, odoo: StandIn, databases: Sequence[Database], **options: object) -> str:
    names = ",".join(one.name for one in databases)
    channels = options.pop("channels", "root:8,root.s:1:sequential")
    sections = {"qjsupervisor": {"idle_timeout": 1, "rescan_interval": 5, **options}}
    return odoo_conf(postgres, odoo.port, db_name=names, channels=str(channels), sections=sections)


def phases(running: Supervisor) -> dict[str, str]:
    """Those of databases that somebody serves."""
    return {entry["name"]: entry["phase"] for entry in entries(running) if entry["state"] != "starting"}


def entries(running: Supervisor) -> list[dict[str, Any]]:
    return running.views()


def wait_for_phase(running: Supervisor, phase: str, databases: Sequence[Database], timeout_s: float = 30) -> None:
    names = {one.name for one in databases}
    wait_until(
        lambda: names <= {name for name, found in phases(running).items() if found == phase},
        lambda: f"{phase}: wanted {sorted(names)}, there are {phases(running)}; {running.tail()}",
        timeout_s,
    )


def deepest(postgres: ThrowawayPostgres) -> str:
    """The phase that sleep_timeout leads to: an older server does not report in time what is written."""
    ((version,),) = postgres.execute("postgres", "SELECT current_setting('server_version_num')::int")
    return "asleep" if version >= POSTGRESQL_15 else "dozing"


def porter(running: Supervisor) -> psutil.Process:
    return running.titled("qjsupervisor: porter")


def executed(odoo: StandIn) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = odoo.stats()["executions"]
    return found


def test_dozes_and_runs_the_next_job(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    databases = [database() for _ in range(DATABASES)]
    uuids = {one.name: one.insert_jobs(2) for one in databases}
    running = supervisor(conf(postgres, odoo, databases))
    wait_for_phase(running, "dozing", databases)
    assert executed(odoo) == {name: dict.fromkeys(own, 1) for name, own in uuids.items()}
    wait_until(lambda: running.pids() == {}, "none has a worker")
    status = running.status()
    assert {entry["state"] for entry in status["databases"]} == {"ready"}
    for one in databases:
        ((got,),) = one.execute(TRY_LOCK, (LEADER_LOCK,))
        assert not got, "the porter has the lock"
    for one in databases:
        uuids[one.name] += one.insert_jobs(2)
    for one in databases:
        one.wait_for_states(done=4)
    assert executed(odoo) == {name: dict.fromkeys(own, 1) for name, own in uuids.items()}
    wait_for_phase(running, "dozing", databases)
    assert running.stop() == 0
    for one in databases:
        wait_until(lambda one=one: one.execute(TRY_LOCK, (LEADER_LOCK,)) == [(True,)], "nobody has the lock any more")


@pytest.mark.parametrize("sleep_timeout", [None, 600])
def test_at_start_only_what_has_jobs_has_a_worker(
    sleep_timeout: int | None,
    postgres: ThrowawayPostgres,
    database: DatabaseFactory,
    odoo: StandIn,
    supervisor: SupervisorFactory,
) -> None:
    """Of very many databases, too: places for them take descriptors, more than select() knows."""
    idle, failed, busy = database(), database(), database()
    (old,) = failed.insert_jobs(1)
    failed.execute("UPDATE queue_job SET state = 'failed' WHERE uuid = %s", (old,))
    ran = {busy.name: busy.insert_jobs(1)}
    phase = "dozing" if sleep_timeout is None else deepest(postgres)
    options = {"idle_timeout": 600, "sleep_timeout": sleep_timeout, "max_databases": 1100}
    running = supervisor(conf(postgres, odoo, [idle, failed, busy], **options))
    wait_for_phase(running, phase, [idle])
    busy.wait_for_states(done=1)
    wait_for_phase(running, "awake", [failed, busy])
    assert set(running.pids()) == {failed.name, busy.name}
    ran[idle.name] = idle.insert_jobs(1)
    idle.wait_for_states(done=1)
    wait_for_phase(running, "awake", [idle])
    assert executed(odoo) == {name: dict.fromkeys(uuids, 1) for name, uuids in ran.items()}

    def spawned() -> list[str]:
        return sorted(each["database"] for each in running.log_events("worker_spawned"))

    wait_until(lambda: len(spawned()) >= 3, lambda: f"the log has them: {spawned()}")
    assert spawned() == sorted([idle.name, failed.name, busy.name]), "each once"


def test_nobody_else_gets_the_lock_in_between(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """Another runner tries it all the time, while a database goes to its porter and back."""
    one = database()
    running = supervisor(conf(postgres, odoo, [one]))
    running.wait_ready(one.name)
    tries = Counter[bool]()
    with closing(postgres.connect(one.name)) as other, other.cursor() as cursor:

        def after_tries(found: bool) -> bool:
            for _ in range(50):
                cursor.execute(TRY_LOCK, (LEADER_LOCK,))
                tries[bool((cursor.fetchone() or (None,))[0])] += 1
            return found

        for wanted in ({"done": 1}, {"done": 2}):
            wait_until(lambda: after_tries(phases(running) == {one.name: "dozing"}), "it dozes", 15)
            one.insert_jobs(1)
            wait_until(lambda wanted=wanted: after_tries(one.states() == wanted), "its job ran", 15)
    assert tries[True] == 0
    assert tries[False] > 500


def test_eta(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """One within the hour keeps the worker; a later one does not, and is run in time nevertheless."""
    soon, late = database(), database()
    soon.insert_jobs(1, eta_s=1800)
    (uuid,) = late.insert_jobs(1, eta_s=7200)
    running = supervisor(conf(postgres, odoo, [soon, late]))
    wait_for_phase(running, "dozing", [late])
    assert phases(running)[soon.name] == "awake"
    late.execute("ALTER TABLE queue_job DISABLE TRIGGER queue_job_notify")
    late.execute("UPDATE queue_job SET eta = now() AT TIME ZONE 'UTC' + interval '4 s' WHERE uuid = %s", (uuid,))
    late.execute("ALTER TABLE queue_job ENABLE TRIGGER queue_job_notify")
    os.kill(porter(running).pid, signal.SIGKILL)  # so that the next one reads the eta
    late.wait_for_states(done=1)
    assert phases(running)[soon.name] == "awake"


def test_a_failed_job_of_a_dozing_database_stops_a_sequential_channel(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    left, right = database(), database()
    (failed,) = left.insert_jobs(1, channel="root.s", kwargs={"fail": True})
    running = supervisor(conf(postgres, odoo, [left, right]))
    left.wait_for_states(failed=1)
    wait_for_phase(running, "dozing", [left, right])
    right.insert_jobs(1, channel="root.s")
    right.insert_jobs(1)
    right.wait_for_states(pending=1, done=1)
    wait_for_phase(running, "dozing", [left])
    (channel,) = [each for each in running.status()["channels"] if each["name"] == "root.s"]
    assert channel["stopped_by"] == [left.name]
    left.execute("UPDATE queue_job SET state = 'cancelled' WHERE uuid = %s", (failed,))
    right.wait_for_states(done=2)


def test_the_porter_is_killed_while_jobs_come(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    databases = [database() for _ in range(DATABASES)]
    running = supervisor(conf(postgres, odoo, databases))
    wait_for_phase(running, "dozing", databases)
    uuids: dict[str, list[str]] = {one.name: [] for one in databases}
    for number in range(2):
        for place, one in enumerate(databases):
            if place == 3 * number:
                os.kill(porter(running).pid, signal.SIGKILL)
            uuids[one.name] += one.insert_jobs(1)
        for one in databases:
            one.wait_for_states(done=number + 1)
        wait_for_phase(running, "dozing", databases)
    assert executed(odoo) == {name: dict.fromkeys(own, 1) for name, own in uuids.items()}


def test_postgresql_restarts(stand_in: StandInFactory, supervisor: SupervisorFactory) -> None:
    with ThrowawayPostgres() as own:
        names = [f"one{number}" for number in range(4)]
        for name in names:
            own.create_database(name)
            with closing(own.connect(name)) as connection:
                schema.install(connection)
        odoo = stand_in(own)
        databases = [Database(own, name) for name in names]
        running = supervisor(conf(own, odoo, databases))
        wait_for_phase(running, "dozing", databases)
        own.restart()
        for one in databases:
            one.reconnect()
        uuids = {one.name: one.insert_jobs(1) for one in databases}
        for one in databases:
            one.wait_for_states(done=1)
        wait_for_phase(running, "dozing", databases)
        assert executed(odoo) == {name: dict.fromkeys(each, 1) for name, each in uuids.items()}
        for one in databases:
            one.connection.close()


def test_two_supervisors(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """A dozing database has a leader like any other; when its supervisor goes, the other one has it at once."""
    one = database()
    first = supervisor(conf(postgres, odoo, [one]))
    wait_for_phase(first, "dozing", [one])
    second = supervisor(conf(postgres, odoo, [one]))
    wait_until(lambda: [each["state"] for each in entries(second)] == ["standby"], "it stands by")
    uuids = one.insert_jobs(1)
    one.wait_for_states(done=1)
    first.wait_for("job_finished")
    wait_for_phase(first, "dozing", [one])
    first.stop()
    wait_for_phase(second, "dozing", [one])
    uuids += one.insert_jobs(1)
    one.wait_for_states(done=2)
    assert executed(odoo) == {one.name: dict.fromkeys(uuids, 1)}


@pytest.mark.parametrize("order", ["release", "drop"])
def test_an_administrator_wants_a_dozing_database(
    order: str, postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    one, other = database(), database()
    running = supervisor(conf(postgres, odoo, [one, other]))
    wait_for_phase(running, "dozing", [one, other])
    ours = f"SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'qjsupervisor%' AND datname = '{one.name}'"
    if order == "release":
        assert running.run("release", one.name).returncode == 0
        wait_until(lambda: not other.execute(ours), "no connection of ours")
        one.insert_jobs(1)
        assert running.run("resume", one.name).returncode == 0
        one.wait_for_states(done=1)
        wait_for_phase(running, "dozing", [one, other])
        return
    # A session that is ended under a statement may lose what the server says as it ends it.
    quiet = f"{ours} AND state = 'idle' AND state_change < now() - interval '0.3 s'"
    wait_until(lambda: other.execute(quiet), "the porter only listens")
    other.execute(ours.replace("SELECT pid", "SELECT pg_terminate_backend(pid)"))
    wait_until(lambda: not other.execute(ours), "our session is ended")
    one.connection.close()
    with closing(postgres.connect(other.name)) as admin:
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{one.name}" RENAME TO "{one.name}_old"')
    running.wait_for("database_dropped", database=one.name, timeout_s=20)
    one.name = f"{one.name}_old"
    one.connection = postgres.connect(one.name)


def server_sessions(one: Database, databases: Sequence[Database]) -> int:
    """Sessions of a supervisor in these databases."""
    names = [each.name for each in databases]
    statement = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'qjsupervisor%%' AND datname = ANY(%s)"
    )
    return int(one.execute(statement, (names,))[0][0])


def test_asleep_and_awake_again(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """No connection; what is written, a reset of the counters and a dead porter lose nothing."""
    databases = [database() for _ in range(5)]
    witness = database()
    running = supervisor(conf(postgres, odoo, databases, sleep_timeout=1))
    phase = deepest(postgres)
    wait_for_phase(running, phase, databases)
    sessions = 0 if phase == "asleep" else len(databases)
    wait_until(lambda: server_sessions(witness, databases) == sessions, "none has a connection that sleeps")
    uuids = {one.name: one.insert_jobs(1) for one in databases}
    for one in databases:
        one.wait_for_states(done=1)
    wait_for_phase(running, phase, databases)
    for number, one in enumerate(databases):
        if number == 2:
            os.kill(porter(running).pid, signal.SIGKILL)
        uuids[one.name] += one.insert_jobs(1)
        with closing(postgres.connect(one.name, superuser=True)) as admin, admin.cursor() as cursor:
            cursor.execute("SELECT pg_stat_reset()")
    for one in databases:
        one.wait_for_states(done=2)
    assert executed(odoo) == {name: dict.fromkeys(own, 1) for name, own in uuids.items()}


def test_a_session_that_stays_open(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """It reports what it wrote late, because it has reported in the same second and does nothing more."""
    one = database()
    running = supervisor(conf(postgres, odoo, [one], sleep_timeout=1))
    wait_for_phase(running, deepest(postgres), [one])
    one.execute("SELECT count(*) FROM queue_job")
    one.insert_jobs(1)
    began_s = time.monotonic()
    one.wait_for_states(done=1, timeout_s=20)
    assert time.monotonic() - began_s < 11.5


def test_two_supervisors_sleep(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """Who has the lock first serves it; the other one stands by until that one sleeps again."""
    one = database()
    first = supervisor(conf(postgres, odoo, [one], sleep_timeout=1))
    second = supervisor(conf(postgres, odoo, [one], sleep_timeout=1))
    if deepest(postgres) == "asleep":
        wait_for_phase(first, "asleep", [one])
        wait_for_phase(second, "asleep", [one])
    else:
        wait_until(
            lambda: sorted(each["state"] for at in (first, second) for each in entries(at)) == ["ready", "standby"],
            "one leads it, the other stands by",
        )
    uuids = []
    for number in (1, 2):
        uuids += one.insert_jobs(1)
        one.wait_for_states(done=number)
    assert executed(odoo) == {one.name: dict.fromkeys(uuids, 1)}
