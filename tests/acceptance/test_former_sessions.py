"""Sessions that outlive the process that made them: the server was busy, or nobody told it.

Whoever comes next ends them and waits. Until then the jobs that run there count, and nobody calls it another runner.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until
from .link import Link


@contextmanager
def stopped_sessions(one: Database) -> Iterator[None]:
    """Every session of the supervisor in this database stands still, as those of a server that is busy."""
    sessions = one.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'qjsupervisor'"
    )
    assert sessions
    with ExitStack() as stack:
        for (pid,) in sessions:
            os.kill(pid, signal.SIGSTOP)
            stack.callback(resume, pid)
        yield


def resume(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def fill(one: Database, other: Database, odoo: StandIn) -> None:
    """Jobs of one database take every permit; those of the other one wait."""
    one.insert_jobs(4, kwargs={"sleep": 12})
    wait_until(lambda: one.states().get("started") == 4, "all permits are taken")
    other.insert_jobs(4)


def assert_never_over(running: Supervisor, one: Database, other: Database, odoo: StandIn) -> None:
    running.wait_ready(one.name)
    assert running.log_events("database_standby") == []
    one.wait_for_states(done=4, timeout_s=20)
    other.wait_for_states(done=4)
    assert odoo.stats()["peak"]["root"] == 4


def test_a_worker_dies_before_its_session(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one, other = database(), database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}"))
    running.wait_ready(one.name, other.name)
    fill(one, other, odoo)
    with stopped_sessions(one):
        os.kill(running.pids()[one.name], signal.SIGKILL)
        running.wait_for("database_lost", database=one.name)
    (line,) = running.log_events("database_lost", database=one.name)
    assert "former session of ours" in line["reason"]
    assert_never_over(running, one, other, odoo)


def test_a_supervisor_dies_before_its_sessions(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """The next one knows the mark, and lets nobody start before it has counted."""
    one, other = database(), database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}"))
    running.wait_ready(one.name, other.name)
    fill(one, other, odoo)
    with stopped_sessions(one):
        workers = running.children()
        running.kill()
        for process in workers:
            process.kill()
        running.start()
        running.wait_for("database_lost", database=one.name)
        assert len(running.log_events("master_ready")) == 1, "the new one lets nobody start yet"
    assert_never_over(running, one, other, odoo)


def test_a_proxy_that_keeps_the_servers_side_open(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """The server will never notice that the client is gone; new connections work."""
    one, other = database(), database()
    with Link((postgres.host, postgres.port)) as link:
        sections = {"options": {"db_port": link.port}}
        running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}", sections=sections))
        running.wait_ready(one.name, other.name)
        fill(one, other, odoo)
        link.silence(for_good=True)
        for pid in running.pids().values():
            os.kill(pid, signal.SIGKILL)
        assert_never_over(running, one, other, odoo)


def test_a_mark_of_another_host_is_not_ours(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A copy of the run-time directory must not make two supervisors end each other's sessions."""
    one = database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name))
    running.wait_ready(one.name)
    (file,) = running.runtime.rglob("*.mark")
    mark, _, host = file.read_text().rstrip("\n").partition(" ")
    assert host == os.uname().nodename
    assert file.stat().st_mode & 0o777 == 0o600
    assert running.stop() == 0
    file.write_text(f"{mark} elsewhere\n")
    running.start()
    running.wait_ready(one.name)
    assert file.read_text().split()[0] != mark
