"""PostgreSQL in trouble: stopped, killed, restarted, full, read-only, silent, behind a pooler.

Each time the jobs run when it is back, once each, and `status` and the log say what was wrong.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import psycopg2
import pytest

from qjsupervisor.states import EX_OK
from qjsupervisor.testing import schema
from qjsupervisor.testing.odoo_http import OdooMode
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn, Stats

from ..conftest import DatabaseFactory, StandInFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until
from ..replica import Replica
from .link import Link
from .pooler import pooler

Install = Callable[[str], Database]


@pytest.fixture(scope="module")
def unsteady() -> Iterator[ThrowawayPostgres]:
    """A cluster for the tests that stop it; each leaves it running."""
    with ThrowawayPostgres(settings={"max_connections": 40}) as cluster:
        yield cluster


@pytest.fixture
def install(unsteady: ThrowawayPostgres) -> Iterator[Install]:
    """Makes databases in it."""
    made: list[str] = []

    def make(name: str) -> Database:
        return make_database(unsteady, name, made)

    yield make
    for name in made:
        unsteady.drop_database(name)


def make_database(cluster: ThrowawayPostgres, name: str, made: list[str]) -> Database:
    cluster.create_database(name)
    made.append(name)
    with closing(cluster.connect(name)) as connection:
        schema.install(connection)
    return Database(cluster, name)


def reason(supervisor: Supervisor, name: str) -> str:
    """Why a database is not served; '' if it is, or nobody can say."""
    for view in supervisor.views():
        if view["name"] == name and view["state"] != "ready":
            return str(view["last_error"])
    return ""


def completed(stats: Stats, database: str) -> Counter[str]:
    """How often each job came to its end; runs that PostgreSQL broke off did not."""
    return Counter(
        run["uuid"] for run in stats["runs"] if run["database"] == database and run["outcome"] in ("done", "failed")
    )


@pytest.mark.timeout(120)
def test_kill_under_180_running_jobs(stand_in: StandInFactory, supervisor: SupervisorFactory) -> None:
    with ThrowawayPostgres(settings={"max_connections": 400}) as cluster, ExitStack() as stack:
        databases = [make_database(cluster, f"db{number}", []) for number in range(3)]
        odoo = stand_in(cluster, workers=200)
        running = supervisor(odoo_conf(cluster, odoo.port, channels="root:180"))
        running.wait_ready("db0", "db1", "db2")
        pids = running.pids()
        uuids = {one.name: one.insert_jobs(70, kwargs={"sleep": 6}) for one in databases}
        wait_until(lambda: odoo.stats()["running"].get("root") == 180, "180 jobs run", 60)
        cluster.kill()
        wait_until(lambda: "db0" in running.pids() and reason(running, "db0"), "status says why")
        running.wait_for("postgresql_down")
        cluster.start()
        for one in databases:
            one.reconnect()
            stack.callback(one.connection.close)
        for one in databases:
            one.wait_for_states(done=70, timeout_s=60)
        stats = odoo.stats()
        for name, own in uuids.items():
            assert completed(stats, name) == dict.fromkeys(own, 1)
        assert stats["peak"]["root"] <= 180
        assert running.pids() == pids, "no worker had to be replaced"
        running.wait_for("postgresql_recovered")
        assert len(running.log_events("postgresql_down")) == len(running.log_events("postgresql_recovered")) == 1
        assert running.log_events("database_lost") == []


def test_a_claim_that_a_crash_undid(stand_in: StandInFactory, supervisor: SupervisorFactory) -> None:
    """Claims do not wait for the disk: what Odoo had not begun is pending again, and is run once."""
    with ThrowawayPostgres(settings={"autovacuum": "off"}) as cluster:
        one = make_database(cluster, "undone", [])
        odoo = stand_in(cluster)
        own = {"qjsupervisor": {"read_timeout": 5}}
        running = supervisor(odoo_conf(cluster, odoo.port, db_name="undone", sections=own))
        running.wait_ready("undone")
        odoo.set_mode("undone", OdooMode.HANG)
        writer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
        ((writer_pid,),) = cluster.execute("postgres", writer, superuser=True)
        os.kill(writer_pid, signal.SIGSTOP)  # or what was not waited for might be on the disk nevertheless
        (uuid,) = one.insert_jobs(1)
        running.wait_for("job_dispatched", job_uuid=uuid)
        ours = (running.pid, running.pids()["undone"])
        for pid in ours:
            os.kill(pid, signal.SIGSTOP)  # or the row might be claimed again before it is looked at
        os.kill(cluster.pid, signal.SIGKILL)
        os.kill(writer_pid, signal.SIGKILL)  # before cluster.kill() lets everything go on
        cluster.kill()
        cluster.start()
        one.reconnect()
        assert one.state(uuid) == "pending", "nothing was undone: the claim waited for the disk"
        for pid in ours:
            os.kill(pid, signal.SIGCONT)
        odoo.set_mode("undone", OdooMode.OK)
        one.wait_for_states(done=1, timeout_s=30)
        assert odoo.stats()["executions"]["undone"] == {uuid: 1}
        one.connection.close()


@pytest.mark.timeout(120)
def test_outages(
    unsteady: ThrowawayPostgres, install: Install, stand_in: StandInFactory, supervisor: SupervisorFactory
) -> None:
    """Down at the start, restarted in every way, then a standby that is promoted."""
    one = install("outage")
    odoo = stand_in(unsteady)
    unsteady.stop()
    running = supervisor(odoo_conf(unsteady, odoo.port))
    line = running.wait_for("postgresql_down")
    assert "refused" in line["reason"]
    assert wait_until(lambda: running.status()["problems"], "status says that nothing can be listed")
    unsteady.start()
    running.wait_ready(one.name)
    running.wait_for("postgresql_recovered")
    assert len(running.log_events("postgresql_down")) == len(running.log_events("postgresql_recovered")) == 1
    assert running.log_events("scan_failed") == []
    uuids: list[str] = []
    for mode in ("fast", "immediate"):
        one.reconnect()
        uuids += one.insert_jobs(20, kwargs={"sleep": 0.2})
        wait_until(lambda: one.states().get("started", 0) == 4, "jobs run")
        unsteady.restart(mode)
    (unsteady.data / "standby.signal").touch()
    unsteady.restart()
    wait_until(lambda: "recovery" in reason(running, one.name), lambda: f"read-only: {running.status()}", 20)
    with closing(unsteady.connect(one.name, superuser=True)) as session, session.cursor() as cursor:
        cursor.execute("SELECT pg_promote()")
    one.reconnect()
    one.wait_for_states(done=40, timeout_s=45)
    assert completed(odoo.stats(), one.name) == dict.fromkeys(uuids, 1)
    assert running.process.poll() is None
    assert running.stop() == EX_OK


def test_no_connection_left(
    unsteady: ThrowawayPostgres, install: Install, stand_in: StandInFactory, supervisor: SupervisorFactory
) -> None:
    one = install("crowded")
    odoo = stand_in(unsteady)
    running = supervisor(odoo_conf(unsteady, odoo.port, db_name=one.name))
    running.wait_ready(one.name)
    one.insert_jobs(1)
    one.wait_for_states(done=1)
    with ExitStack() as stack:

        def fill() -> None:
            with suppress(psycopg2.OperationalError):
                while True:
                    stack.enter_context(closing(unsteady.connect("postgres")))

        fill()
        assert end_sessions(one) == 1
        # Its place is taken before it comes back.
        wait_until(lambda: fill() or "connection" in reason(running, one.name), "status says why", 20)
        one.insert_jobs(3)
        wait_until(lambda: running.log_events("database_lost", database=one.name), "the log says so", 20)
    one.wait_for_states(done=4, timeout_s=20)
    assert completed(odoo.stats(), one.name).total() == 4


def end_sessions(one: Database) -> int:
    """Terminate the supervisor's sessions in a database; how many there were."""
    found = one.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'qjsupervisor'"
    )
    return len(found)


def backend(one: Database) -> int:
    """The server's process that the worker talks to."""
    ((pid,),) = one.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'qjsupervisor'"
    )
    return int(pid)


def test_one_session_is_ended(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """Again and again, while jobs run."""
    one, other = database(), database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}"))
    running.wait_ready(one.name, other.name)
    pids = running.pids()
    uuids = one.insert_jobs(60, kwargs={"sleep": 0.1})
    for done in (5, 15, 25):
        wait_until(lambda done=done: one.states().get("done", 0) >= done, f"{done} jobs are done", 20)
        end_sessions(one)
    one.wait_for_states(done=60, timeout_s=40)
    assert odoo.stats()["executions"][one.name] == dict.fromkeys(uuids, 1)
    assert running.pids() == pids
    assert not running.log_events("database_lost", database=other.name)


# -- silence -----------------------------------------------------------------------------------------------------


def uri(cluster: ThrowawayPostgres, port: int, name: str) -> str:
    return f"postgresql://{cluster.user}:{cluster.password}@{cluster.host}:{port}/{name}"


@pytest.mark.timeout(120)
def test_silent_connections(
    postgres: ThrowawayPostgres,
    unsteady: ThrowawayPostgres,
    database: DatabaseFactory,
    install: Install,
    odoo: StandIn,
    supervisor: SupervisorFactory,
) -> None:
    """Nobody says that anything is wrong: one server process stands still, a whole server does, the packets of a
    connection are dropped while the server believes that its session lives, and so holds the leader lock."""
    stopped, dropped, well = database("stopped"), database("dropped"), database("well")
    install("frozen")
    with Link((postgres.host, postgres.port)) as link:
        names = ["stopped", "well", uri(postgres, link.port, "dropped"), uri(unsteady, unsteady.port, "frozen")]
        running = supervisor(odoo_conf(postgres, odoo.port, db_name=",".join(names)))
        running.wait_ready("stopped", "dropped", "well", "frozen")
        pids = running.pids()
        ghost = backend(dropped)
        still = backend(stopped)
        os.kill(still, signal.SIGSTOP)
        link.silence(for_good=True)
        unsteady.freeze()
        began_s = time.monotonic()
        try:
            dropped.insert_jobs(3)
            noticed: dict[str, float] = {}
            waits = []
            while len(noticed) < 3 and time.monotonic() < began_s + 40:
                waits.append(time_a_job(well))
                lost = [view["name"] for view in running.status()["databases"] if view["state"] != "ready"]
                lost += [entry["database"] for entry in running.log_events("database_lost")]
                for name in lost:
                    noticed.setdefault(name, time.monotonic() - began_s)
            assert set(noticed) == {"stopped", "dropped", "frozen"}
            assert max(noticed.values()) < 31, noticed
            assert max(waits) < 2, "nobody else notices"
            dropped.wait_for_states(done=3, timeout_s=15)
            assert backend(dropped) != ghost
        finally:
            os.kill(still, signal.SIGCONT)
            unsteady.thaw()
        for one in (stopped, dropped):
            one.insert_jobs(2)
        stopped.wait_for_states(done=2, timeout_s=45)
        dropped.wait_for_states(done=5)
        running.wait_ready("stopped", "dropped", "well", "frozen", timeout_s=45)
        assert running.pids() == pids, "no worker had to be replaced"


def time_a_job(one: Database) -> float:
    """From INSERT to `done`, seconds."""
    (uuid,) = one.insert_jobs(1)
    began_s = time.monotonic()
    wait_until(lambda: one.state(uuid) == "done", "a job of the healthy database is done", 10)
    return time.monotonic() - began_s


# -- locks -------------------------------------------------------------------------------------------------------


def test_locked_row(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """A user's open transaction holds the best job's row: the others pass it by, also where there is one permit."""
    one = database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, channels="root:1"))
    running.wait_ready(one.name)
    with closing(postgres.connect(one.name)) as user, user.cursor() as cursor:
        user.autocommit = False
        (first,) = one.insert_jobs(1, priority=1, eta_s=1.5)
        cursor.execute("SELECT FROM queue_job WHERE uuid = %s FOR UPDATE", (first,))
        wait_until(lambda: one.execute("SELECT eta < now() AT TIME ZONE 'UTC' FROM queue_job") == [(True,)], "due")
        others = one.insert_jobs(20)
        one.wait_for_states(done=20, pending=1, timeout_s=5)
        assert one.state(first) == "pending"
        user.rollback()
        released_s = time.monotonic()
    one.wait_for_states(done=21)
    assert time.monotonic() - released_s < 3
    assert odoo.stats()["executions"][one.name] == dict.fromkeys([first, *others], 1)
    assert odoo.stats()["peak"] == {"root": 1}


def test_locked_table(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """An upgrade's ALTER TABLE, while jobs fall due: this database waits, without the permits that it was given."""
    one, other = database(), database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}"))
    running.wait_ready(one.name, other.name)
    pids, session = running.pids(), backend(one)
    one.insert_jobs(30, eta_s=2, kwargs={"sleep": 0.1})
    wait_until(lambda: (running.database_status(one.name) or {})["pending"] == 30, "they are known")
    with closing(postgres.connect(one.name)) as user, user.cursor() as cursor:
        user.autocommit = False
        cursor.execute("LOCK TABLE queue_job IN ACCESS EXCLUSIVE MODE")
        locked_s = time.monotonic()
        waits = []
        while time.monotonic() < locked_s + 5:
            waits.append(time_a_job(other))
        said = reason(running, one.name)
        user.rollback()
    assert max(waits) < 2
    assert "queue_job is locked (AccessExclusiveLock) by server process" in said
    assert "LOCK TABLE queue_job" in said, "by whom, and with what"
    one.wait_for_states(done=30, timeout_s=30)
    assert backend(one) == session, "nobody connected anew"
    assert set(odoo.stats()["executions"][one.name].values()) == {1}
    assert running.pids() == pids


def test_whoever_ends_our_session_has_the_database_for_himself(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """To duplicate it, say: some seconds later still."""
    one = database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name))
    running.wait_ready(one.name)
    pids = running.pids()
    one.connection.close()
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{one.name}'"
    postgres.execute("postgres", end, superuser=True)
    ended_s = time.monotonic()
    line = running.wait_for("database_lost", database=one.name, timeout_s=4)
    assert "administrator" in line["reason"]
    wait_until(lambda: len(running.log_events("database_lost", database=one.name)) == 2, "it looked, and left again")
    wait_until(lambda: time.monotonic() > ended_s + 3.5, "some seconds later")
    copy = f"{one.name}_copy"
    postgres.execute("postgres", f'CREATE DATABASE "{copy}" TEMPLATE "{one.name}"', superuser=True)
    try:
        one.reconnect()
        one.insert_jobs(1)
        one.wait_for_states(done=1, timeout_s=6)
        assert running.pids() == pids
    finally:
        postgres.drop_database(copy)


@pytest.mark.timeout(90)
def test_an_old_primary_that_lives_on(stand_in: StandInFactory, supervisor: SupervisorFactory) -> None:
    """The address moved, for new connections only: a proxy does not cut the sessions that there are."""
    with ThrowawayPostgres() as old:
        one = make_database(old, "moved", [])
        with Replica(old) as new, Link((old.host, old.port)) as link:
            odoo = stand_in(new)
            own = {"options": {"db_port": link.port}, "qjsupervisor": {"rescan_interval": 1}}
            running = supervisor(odoo_conf(old, odoo.port, db_name="moved", sections=own))
            running.wait_ready("moved")
            pids = running.pids()
            new.promote()
            link.lead_to((new.host, new.port))
            there = Database(new, "moved")
            there.insert_jobs(3)
            line = running.wait_for("database_lost", database="moved", timeout_s=15)
            assert "another server" in line["reason"]
            there.wait_for_states(done=3)
            assert running.pids() == pids
            assert len(running.log_events("database_lost")) == 1
            there.connection.close()
        one.connection.close()


def test_a_read_that_takes_longer_than_the_hang_timeout(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Over a long and narrow way: its rows come without a pause, and it was killed for it, again and again."""
    one = database()
    one.insert_jobs(700, channel="root." + "n" * 240)
    one.execute("UPDATE queue_job SET state = 'started', date_enqueued = now(), date_started = now()")
    with Link((postgres.host, postgres.port)) as link:
        own = {"options": {"db_port": link.port}, "qjsupervisor": {"hang_timeout": 2}}
        running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections=own))
        running.wait_ready(one.name)
        pids = running.pids()
        running.wait_for("database_ready")  # of the start; it is written a moment later
        link.pause_s = 0.06
        begun_s, mark = time.monotonic(), running.mark()
        link.cut()
        running.wait_for("database_ready", after=mark, timeout_s=40)
        assert time.monotonic() - begun_s > 5, "too quick to tell"
        link.pause_s = 0
        assert not running.log_events("worker_aborted")
        assert running.pids() == pids


def test_a_worker_waits_for_a_connection_as_long_as_it_is_told(
    postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    with Link((postgres.host, postgres.port)) as link:
        own: dict[str, dict[str, object]] = {
            "options": {"db_port": link.port},
            "qjsupervisor": {"connect_timeout": "0.7", "rescan_interval": 3600},
        }
        running = supervisor(odoo_conf(postgres, 1, db_name=one.name, sections=own))
        running.wait_ready(one.name)
        link.silence()
        link.cut()

        def message() -> str:
            return str((running.database_status(one.name) or {}).get("message"))

        wait_until(lambda: "no connection within 0.7 s" in message(), message, 8)


# -- poolers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trusting() -> Iterator[ThrowawayPostgres]:
    """A cluster that believes whoever is on this machine, as poolers and their relay need."""
    cluster = ThrowawayPostgres(settings={"max_connections": 60})
    try:
        cluster.create()
        rules = cluster.data / "pg_hba.conf"
        rules.write_text("host all all 127.0.0.1/32 trust\n" + rules.read_text())
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def pooled(trusting: ThrowawayPostgres) -> Iterator[Database]:
    one = make_database(trusting, "pooled", [])
    yield one
    one.connection.close()
    trusting.drop_database(one.name)


def test_pooler_in_session_mode(
    trusting: ThrowawayPostgres,
    pooled: Database,
    stand_in: StandInFactory,
    supervisor: SupervisorFactory,
    tmp_path: Path,
) -> None:
    odoo = stand_in(trusting)
    with pooler(trusting, "session", tmp_path) as port:
        sections = {"options": {"db_port": port}}
        running = supervisor(odoo_conf(trusting, odoo.port, sections=sections))
        running.wait_ready("pooled")
        pooled.insert_jobs(20)
        pooled.wait_for_states(done=20)
        done = running.run("check")
        assert "transaction" not in done.stdout
        end_sessions(pooled)
        pooled.insert_jobs(20)
        pooled.wait_for_states(done=40)
        assert set(odoo.stats()["executions"]["pooled"].values()) == {1}
        assert running.stop() == EX_OK


def test_pooler_in_transaction_mode(
    trusting: ThrowawayPostgres,
    pooled: Database,
    stand_in: StandInFactory,
    supervisor: SupervisorFactory,
    tmp_path: Path,
) -> None:
    odoo = stand_in(trusting)
    with pooler(trusting, "transaction", tmp_path) as port:
        text = odoo_conf(trusting, odoo.port, db_name=pooled.name, sections={"options": {"db_port": port}})
        done = Supervisor(text, tmp_path).run("check", "--json")
        assert done.returncode == 1
        assert "pooler in transaction mode" in done.stdout
        assert "LISTEN" in done.stdout
