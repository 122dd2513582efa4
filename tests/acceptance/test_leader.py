"""The leader lock: who runs a database's jobs, and who takes over when that one is gone."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psutil
import pytest

from qjsupervisor.postgres.lead_queries import LEADER_LOCK
from qjsupervisor.testing import schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, StandInFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until
from .link import Link

TRY_LOCK = "SELECT pg_try_advisory_lock(%s)"
UNLOCK = "SELECT pg_advisory_unlock(%s)"


def conf(postgres: ThrowawayPostgres, odoo: StandIn, *names: str, **options: object) -> str:
    return odoo_conf(
        postgres, odoo.port, db_name=",".join(names), channels="root:8", sections={"qjsupervisor": options}
    )


def is_in_state(supervisor: Supervisor, name: str, state: str) -> bool:
    return any(view["name"] == name and view["state"] == state for view in supervisor.views())


def wait_for_state(supervisor: Supervisor, name: str, state: str, timeout_s: float = 30) -> None:
    wait_until(
        lambda: is_in_state(supervisor, name, state),
        lambda: f"{name} {state}: {supervisor.database_status(name)}",
        timeout_s,
    )


def test_stands_by_while_another_runner_leads(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    led, other = database(), database()
    with closing(postgres.connect(led.name)) as oca, oca.cursor() as cursor:
        cursor.execute(TRY_LOCK, (LEADER_LOCK,))
        led.insert_jobs(5)
        running = supervisor(conf(postgres, odoo, led.name, other.name))
        running.wait_ready(other.name)
        wait_for_state(running, led.name, "standby")
        entry = running.database_status(led.name)
        assert entry is not None
        assert "leader lock" in entry["last_error"]
        other.insert_jobs(20)
        other.wait_for_states(done=20)
        assert led.states() == {"pending": 5}
        assert led.name not in odoo.stats()["requests"]
        cursor.execute(UNLOCK, (LEADER_LOCK,))
        released_s = time.monotonic()
        led.wait_for_states(done=5)
        assert time.monotonic() - released_s < 6, "nobody said so: it looks every five seconds"
    line = running.wait_for("database_ready", database=led.name)
    assert len(running.log_events("database_standby", database=led.name)) == 1
    assert line["level"] == "info"


def test_leads_on_the_listening_session(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """OCA's runner must not get the lock while jobs run, and whoever ends the session ends both."""
    one = database()
    running = supervisor(conf(postgres, odoo, one.name))
    running.wait_ready(one.name)
    ((got,),) = one.execute(TRY_LOCK, (LEADER_LOCK,))
    assert not got
    pids = one.execute(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND (classid::bigint << 32) + objid::bigint = %s "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (LEADER_LOCK,),
    )
    ((pid,),) = pids
    ((application,),) = one.execute("SELECT application_name FROM pg_stat_activity WHERE pid = %s", (pid,))
    assert application == "qjsupervisor"
    one.execute("SELECT pg_terminate_backend(%s)", (pid,))
    one.insert_jobs(3)
    one.wait_for_states(done=3)


def test_two_supervisors_share_and_take_over(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """Each leads one database; then one is killed, with all its processes."""
    left, right = database(), database()
    first = supervisor(conf(postgres, odoo, left.name))
    second = supervisor(conf(postgres, odoo, right.name))
    first.wait_ready(left.name)
    second.wait_ready(right.name)
    for each in (first, second):
        each.write_conf(conf(postgres, odoo, left.name, right.name))
        each.send_signal(signal.SIGHUP)
    wait_for_state(first, right.name, "standby")
    wait_for_state(second, left.name, "standby")
    uuids = {each.name: each.insert_jobs(43, kwargs={"sleep": 0.2}) for each in (left, right)}
    wait_until(lambda: left.states().get("done", 0) >= 5, "the first one runs jobs")
    first.children()
    first.kill()
    killed_s = time.monotonic()
    for one in (left, right):
        one.wait_for_states(done=43, timeout_s=30)
    assert time.monotonic() - killed_s < 25
    wait_for_state(second, left.name, "ready")
    executions = odoo.stats()["executions"]
    assert executions == {name: dict.fromkeys(own, 1) for name, own in uuids.items()}
    first.start()
    wait_for_state(first, left.name, "standby")
    wait_for_state(first, right.name, "standby")


def test_permits_follow_the_leader(
    postgres: ThrowawayPostgres, database: DatabaseFactory, stand_in: StandInFactory, supervisor: SupervisorFactory
) -> None:
    """What ran when another runner took over is that one's to count; it takes no place from our other databases."""
    lost, kept, odoo = database(), database(), stand_in(workers=20)
    running = supervisor(conf(postgres, odoo, lost.name, kept.name))
    running.wait_ready(lost.name, kept.name)
    lost.insert_jobs(8, kwargs={"sleep": 25})
    wait_until(lambda: lost.states().get("started") == 8, "all permits are taken")
    with take_over(postgres, lost):
        wait_for_state(running, lost.name, "standby")
        kept.insert_jobs(16)
        kept.wait_for_states(done=16, timeout_s=10)
        assert lost.states() == {"started": 8}, "they still run"


@contextmanager
def take_over(postgres: ThrowawayPostgres, one: Database) -> Iterator[None]:
    """Become the leader of a database that somebody else leads: end his session, and be quicker."""
    holder = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{one.name}' \
        AND application_name = 'qjsupervisor'"
    with closing(postgres.connect(one.name)) as session, session.cursor() as cursor:

        def led() -> bool:
            cursor.execute(TRY_LOCK, (LEADER_LOCK,))
            row = cursor.fetchone()
            if row is not None and row[0]:
                return True
            cursor.execute(holder)
            return False

        wait_until(led, "the lock is ours")
        yield


def test_the_former_leader_goes_first_after_a_restart(stand_in: StandInFactory, supervisor: SupervisorFactory) -> None:
    """Its Odoo may not have noticed that the server was away: whoever holds the requests counts the jobs."""
    with ThrowawayPostgres() as cluster:
        names = ["one", "two"]
        for name in names:
            cluster.create_database(name)
            with closing(cluster.connect(name)) as connection:
                schema.install(connection)
        odoo = stand_in(cluster)
        leader = supervisor(conf(cluster, odoo, *names))
        leader.wait_ready(*names)
        standby = supervisor(conf(cluster, odoo, *names))
        for name in names:
            wait_for_state(standby, name, "standby")
        mark = standby.mark()
        cluster.restart()
        for name in names:
            standby.wait_for("database_lost", database=name, after=mark)
        leader.wait_ready(*names)
        for name in names:
            wait_for_state(standby, name, "standby")
        wait_until(lambda: len(standby.log_events("database_standby")) == 6, "it tried the lock, after its pause")
        assert standby.log_events("database_ready") == []
        leader.stop()
        standby.wait_ready(*names)


def test_a_planned_hand_over_leaves_no_gap(
    postgres: ThrowawayPostgres, database: DatabaseFactory, stand_in: StandInFactory, supervisor: SupervisorFactory
) -> None:
    """Whoever lets a database go says so, and who stands by is there at once."""
    many, odoo = [database() for _ in range(4)], stand_in(workers=20)
    names = [one.name for one in many]
    first = supervisor(conf(postgres, odoo, *names))
    first.wait_ready(*names)
    second = supervisor(conf(postgres, odoo, *names))
    for name in names:
        wait_for_state(second, name, "standby")
    for one in many:
        one.insert_jobs(150, kwargs={"sleep": 0.05})
    wait_until(lambda: all(one.states().get("done", 0) >= 10 for one in many), "all of them run")
    assert first.stop() == 0
    for one in many:
        one.wait_for_states(done=150, timeout_s=40)
    stats = odoo.stats()
    for one in many:
        assert set(stats["executions"][one.name].values()) == {1}
        starts = sorted(run["started_s"] for run in stats["runs"] if run["database"] == one.name)
        gap_s = max(after - before for before, after in itertools.pairwise(starts))
        assert gap_s < 1.5, "a look every five seconds would leave a longer one; on an idle machine it is 0.1 s"
    assert {len(second.log_events("database_ready", database=name)) for name in names} == {1}


def test_a_worker_that_returns_keeps_its_databases(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """A reload that restarts workers is no hand-over."""
    one = database()
    first = supervisor(conf(postgres, odoo, one.name))
    first.wait_ready(one.name)
    pid = first.pids()[one.name]
    second = supervisor(conf(postgres, odoo, one.name))
    wait_for_state(second, one.name, "standby")
    first.write_conf(conf(postgres, odoo, one.name, window=1000))
    assert first.run("reload").returncode == 0
    wait_until(lambda: first.pids().get(one.name) not in (None, pid), "its worker is another one")
    first.wait_ready(one.name)
    assert is_in_state(second, one.name, "standby")


def test_a_standby_asks_for_the_lock_and_nothing_else(stand_in: StandInFactory, supervisor: SupervisorFactory) -> None:
    """One short statement every five seconds: of many databases on several machines that adds up."""
    with ThrowawayPostgres(settings={"log_statement": "all", "log_line_prefix": "%a "}) as cluster:
        cluster.create_database("db")
        with closing(cluster.connect("db")) as oca, oca.cursor() as cursor:
            schema.install(oca)
            cursor.execute(TRY_LOCK, (LEADER_LOCK,))
            running = supervisor(conf(cluster, stand_in(cluster), "db", rescan_interval=3600))
            wait_for_state(running, "db", "standby")

            def said() -> list[str]:
                lines = cluster.log.read_text(errors="replace").splitlines()
                return [line for line in lines if line.startswith("qjsupervisor ") and "statement:" in line]

            before, began_s = len(said()), time.monotonic()
            wait_until(lambda: len(said()) >= before + 3, "it looks again", 20)
            assert time.monotonic() - began_s > 9.9
            assert all("pg_try_advisory_lock(" in line for line in said()[before:])


def test_a_leader_that_is_frozen_loses_its_databases(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """All its processes stand still, so nobody replaces a worker; its connection lives. With leader_timeout only."""
    ((version,),) = postgres.execute("postgres", "SHOW server_version_num")
    one = database()
    first = supervisor(conf(postgres, odoo, one.name, leader_timeout=3))
    first.wait_ready(one.name)
    second = supervisor(conf(postgres, odoo, one.name, leader_timeout=3))
    wait_for_state(second, one.name, "standby")
    one.insert_jobs(1)
    one.wait_for_states(done=1)
    wait_until(lambda: (first.database_status(one.name) or {})["heartbeat_age_s"] > 0.5, "it is idle")
    if int(version) < 140000:
        return
    processes = [psutil.Process(first.pid), *first.children()]
    for process in processes:
        process.suspend()
    try:
        one.insert_jobs(1)
        one.wait_for_states(done=2, timeout_s=12)
    finally:
        for process in processes:
            process.resume()
    wait_for_state(first, one.name, "standby")


# -- two machines ----------------------------------------------------------------------------------------------


class Machine:
    """Where a supervisor runs: its way to PostgreSQL and Odoo, and how to pull the plug."""

    def __init__(self, host: str, odoo_port: int, prefix: list[str], unplug: Callable[[], None]) -> None:
        self.host = host
        self.odoo_port = odoo_port
        self.prefix = prefix
        self.unplug = unplug


class RemoteSupervisor(Supervisor):
    """A supervisor on a machine of its own."""

    prefix: tuple[str, ...] = ()

    def command(self, *arguments: str) -> list[str]:
        return [*self.prefix, *super().command(*arguments)]


@contextmanager
def network_namespaces(server: ThrowawayPostgres, odoo: StandIn) -> Iterator[list[Machine]]:
    """Two machines, as far as the kernel is concerned, each with a cable to this one."""
    with ExitStack() as stack:
        machines = []
        for number in (1, 2):
            name, device = f"qjs-{os.getpid()}-{number}", f"qv{os.getpid() % 100000}-{number}"
            # Addresses of our own: several runs may share a machine.
            net = f"10.{128 + os.getpid() % 120}.{os.getpid() // 120 % 120 * 2 + number}"
            ours, theirs = f"{net}.1", f"{net}.2"
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("addr", "add", f"{ours}/24", "dev", device)
            ip("link", "set", device, "up")
            for words in (["addr", "add", f"{theirs}/24", "dev", "eth0"], ["link", "set", "eth0", "up"]):
                ip("-n", name, *words)
            relay = stack.enter_context(Link((odoo.host, odoo.port), host=ours))

            def unplug(device: str = device) -> None:
                ip("link", "set", device, "down")

            machines.append(Machine(ours, relay.port, ["ip", "netns", "exec", name], unplug))
        yield machines


@contextmanager
def two_places(server: ThrowawayPostgres, odoo: StandIn) -> Iterator[list[Machine]]:
    """The same for whoever is not root: the plug is pulled by stopping all processes of one place."""
    yield [Machine(server.host, odoo.port, [], lambda: None) for _ in range(2)]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def networked() -> Iterator[ThrowawayPostgres]:
    """A cluster that listens on all addresses."""
    cluster = ThrowawayPostgres(settings={"listen_addresses": "0.0.0.0"})
    try:
        cluster.create()
        with (cluster.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.128.0.0/9 scram-sha-256\n")
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.mark.timeout(120)
def test_two_machines_and_a_pulled_plug(networked: ThrowawayPostgres, stand_in: StandInFactory, tmp_path: Path) -> None:
    """The machine that leads vanishes without a word: the server itself has to notice, then the other one leads."""
    networked.create_database("db1")
    with closing(networked.connect("db1")) as connection:
        schema.install(connection)
    one = Database(networked, "db1")
    odoo = stand_in(networked)
    world = network_namespaces if os.geteuid() == 0 else two_places
    with world(networked, odoo) as machines, ExitStack() as stack:
        supervisors = []
        for machine in machines:
            sections = {"options": {"db_host": machine.host}, "queue_job": {"host": machine.host}}
            text = odoo_conf(networked, machine.odoo_port, db_name="db1", sections=sections)
            new = RemoteSupervisor(text, tmp_path)
            new.prefix = tuple(machine.prefix)
            stack.callback(new.close)
            supervisors.append(new.start())
            wait_for_state(new, "db1", "standby" if len(supervisors) > 1 else "ready")
        one.insert_jobs(10)
        one.wait_for_states(done=10)
        unplug(machines[0], supervisors[0])
        pulled_s = time.monotonic()
        one.insert_jobs(10)
        one.wait_for_states(done=20, timeout_s=45)
        assert time.monotonic() - pulled_s < 35
        wait_for_state(supervisors[1], "db1", "ready")
        assert Counter(odoo.stats()["executions"]["db1"].values()) == {1: 20}
    one.connection.close()


def unplug(machine: Machine, supervisor: Supervisor) -> None:
    machine.unplug()
    if not machine.prefix:
        for process in supervisor.children():
            process.kill()
        supervisor.kill()
    else:
        assert psutil.pid_exists(supervisor.pid)


def test_the_start_waits_for_a_database_that_cannot_be_reached_for_a_moment(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """What runs there holds its permits before anybody else gets one."""
    held, other = database(), database()
    held.insert_jobs(1, state="enqueued")
    held.execute("UPDATE queue_job SET date_enqueued = now() AT TIME ZONE 'UTC'")
    postgres.execute("postgres", f'ALTER DATABASE "{held.name}" CONNECTION LIMIT 0', superuser=True)
    other.insert_jobs(1)
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{held.name},{other.name}", channels="root:1"))
    running.wait_ready(other.name)
    postgres.execute("postgres", f'ALTER DATABASE "{held.name}" CONNECTION LIMIT -1', superuser=True)
    running.wait_for("master_ready", databases=2)
    assert other.states() == {"pending": 1}
    other.wait_for_states(done=1, timeout_s=30)
