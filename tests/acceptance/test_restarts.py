"""PostgreSQL ends all sessions under jobs that go on: their Python waits for something else, and does not notice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import psycopg2
import pytest

from qjsupervisor.testing import schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, StandInFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until
from .link import Link

#: By the rule alone a job would be dead 10 s after its claim, and run again within 14 s.
GOES_ON_S = 18.0
DEFAULT = {"qjsupervisor": {"dead_after_restart": None}}


def make_database(cluster: ThrowawayPostgres, name: str) -> Database:
    cluster.create_database(name)
    with closing(cluster.connect(name)) as connection:
        schema.install(connection)
    return Database(cluster, name)


def crash(cluster: ThrowawayPostgres) -> None:
    """One server process is killed: the postmaster ends the others, and begins again."""
    with closing(cluster.connect("postgres")) as victim:
        os.kill(victim.info.backend_pid, signal.SIGKILL)


def broken(odoo: StandIn, one: Database) -> int:
    return odoo.stats()["outcomes"].get(one.name, {}).get("broken", 0)


@pytest.mark.parametrize("restart", [ThrowawayPostgres.restart, crash], ids=["restart", "crash"])
def test_jobs_that_go_on_are_not_run_twice_at_once(
    restart: Callable[[ThrowawayPostgres], None], stand_in: StandInFactory, supervisor: SupervisorFactory
) -> None:
    """Two supervisors, and the requests are lost as well: the leader's workers are replaced within those seconds."""
    with ThrowawayPostgres() as cluster:
        one, other = make_database(cluster, "one"), make_database(cluster, "other")
        odoo = stand_in(cluster)
        conf = odoo_conf(cluster, odoo.port, db_name="one,other", channels="root:8", sections=DEFAULT)
        leader = supervisor(conf)
        leader.wait_ready("one", "other")
        standby = supervisor(conf)
        wait_until(lambda: len(standby.log_events("database_standby")) == 2, "the other one stands by")
        for each in (one, other):
            each.insert_jobs(4, kwargs={"sleep": GOES_ON_S})
            each.wait_for_states(started=4)
            each.connection.close()
        began_s = time.monotonic()
        restart(cluster)
        for pid in leader.pids().values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: broken(odoo, one) == 4, "they come to their end", GOES_ON_S + 10)
        assert time.monotonic() - began_s > GOES_ON_S - 3
        for each in (one, other):
            each.reconnect()
            assert each.states() == {"started": 4}
            assert set(odoo.stats()["executions"][each.name].values()) == {1}
            each.connection.close()
        assert not leader.log_events("job_found_dead") + standby.log_events("job_found_dead")


@contextmanager
def sessions_ended_each_second(cluster: ThrowawayPostgres) -> Iterator[None]:
    over = threading.Event()

    def end() -> None:
        while not over.wait(1):
            with suppress(psycopg2.Error):
                cluster.execute(
                    "postgres",
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'qjsupervisor'",
                    superuser=True,
                )

    thread = threading.Thread(target=end)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_broken_job_is_found_dead_though_sessions_are_ended_each_second(
    stand_in: StandInFactory, supervisor: SupervisorFactory
) -> None:
    """What a lost connection saw of it is not forgotten with it."""
    with ThrowawayPostgres() as cluster:
        one = make_database(cluster, "one")
        odoo = stand_in(cluster)
        running = supervisor(odoo_conf(cluster, odoo.port, db_name="one"))
        running.wait_ready("one")
        one.insert_jobs(1, kwargs={"sleep": 0.5, "die": 1})
        wait_until(lambda: odoo.stats()["outcomes"].get("one", {}).get("died"), "its worker has died")
        with sessions_ended_each_second(cluster):
            running.wait_for("job_found_dead", database="one", timeout_s=40)
        one.wait_for_states(done=1, timeout_s=30)
        one.connection.close()


#: How many connections fall silent at once.
_SILENT = int(os.environ.get("QJS_SILENT_DATABASES", "20"))


@pytest.mark.timeout(120 + 3 * _SILENT)
def test_many_connections_fall_silent_at_once(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A firewall lost its states: no database is called another runner's, and capacity holds."""
    count, capacity = _SILENT, 6
    made = [database() for _ in range(count)]
    names = [each.name for each in made]
    with Link((postgres.host, postgres.port)) as link:
        sections = {"options": {"db_port": link.port}}
        channels = f"root:{capacity}"
        conf = odoo_conf(postgres, odoo.port, db_name=",".join(names), channels=channels, sections=sections)
        running: Supervisor = supervisor(conf)
        running.wait_ready(*names, timeout_s=30 + count)
        for each in made:
            each.insert_jobs(1, kwargs={"sleep": 2})
        wait_until(lambda: odoo.stats()["running"].get("root") == capacity, "all permits are taken", 30)
        link.silence(for_good=True)
        for each in made:
            each.insert_jobs(1, kwargs={"sleep": 0.2})
        wait_until(lambda: sum(each.states().get("done", 0) for each in made) == 2 * count, "all is done", 90 + count)
        assert running.log_events("database_standby") == []
        stats = odoo.stats()
        assert stats["peak"]["root"] == capacity
        assert {n for each in made for n in stats["executions"][each.name].values()} == {1}
