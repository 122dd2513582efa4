"""The throw-away PostgreSQL and its databases are what docs/contract.md describes, and leave nothing behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.processes import DemoError
from qjsupervisor.testing.stand_in import module_environment
from tests.conftest import DatabaseFactory
from tests.helpers import is_alive, wait_until

_OWNER = """
import sys
from pathlib import Path
from qjsupervisor.testing.postgres import ThrowawayPostgres
with ThrowawayPostgres(Path(sys.argv[1])) as postgres:
    print(postgres.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def own_postgres() -> Iterator[ThrowawayPostgres]:
    """A cluster that a test may stop and kill."""
    with ThrowawayPostgres() as cluster:
        yield cluster


class TestCluster:
    def test_role_is_like_odoos(self, postgres: ThrowawayPostgres) -> None:
        rows = postgres.execute(
            "postgres", "SELECT current_user, rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        )
        assert rows == [("odoo", False, True)]

    def test_password_is_asked_for(self, postgres: ThrowawayPostgres) -> None:
        for host in (postgres.host, str(postgres.root)):
            wrong = {**postgres.dsn("postgres"), "host": host, "password": "wrong"}
            with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
                psycopg2.connect(**wrong)

    def test_session_time_zone_is_not_utc(self, postgres: ThrowawayPostgres) -> None:
        ((offset_s,),) = postgres.execute("postgres", "SELECT extract(timezone FROM now())::integer")
        assert offset_s == (5 * 60 + 45) * 60

    def test_server_does_not_run_as_root(self, postgres: ThrowawayPostgres) -> None:
        assert psutil.Process(postgres.pid).uids().real != 0

    def test_databases_belong_to_odoo(self, database: DatabaseFactory) -> None:
        one = database()
        owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
        assert one.execute(owner) == [("odoo",)]

    def test_template_is_not_discovered(self, postgres: ThrowawayPostgres, template: str) -> None:
        discovered = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"
        assert (template,) not in postgres.execute("postgres", discovered)

    def test_restart_keeps_data_and_port(self, own_postgres: ThrowawayPostgres) -> None:
        own_postgres.create_database("kept")
        own_postgres.execute("kept", "CREATE TABLE mark (id integer)")
        before, port = own_postgres.pid, own_postgres.port
        own_postgres.restart()
        assert own_postgres.execute("kept", "SELECT * FROM mark") == []
        assert own_postgres.pid != before
        assert own_postgres.port == port

    def test_start_after_kill_recovers(self, own_postgres: ThrowawayPostgres) -> None:
        with closing(own_postgres.connect("postgres")) as session:
            own_postgres.kill()
            with pytest.raises(DemoError, match="does not run"):
                _ = own_postgres.pid
            own_postgres.start()
            with pytest.raises(psycopg2.OperationalError), session.cursor() as cursor:
                cursor.execute("SELECT 1")
        assert own_postgres.execute("postgres", "SELECT 1") == [(1,)]

    def test_frozen_server_is_silent_until_thawed(self, own_postgres: ThrowawayPostgres) -> None:
        with closing(own_postgres.connect("postgres")) as session:
            own_postgres.freeze()
            impatient = {**own_postgres.dsn("postgres"), "connect_timeout": 2}
            with pytest.raises(psycopg2.OperationalError, match="timeout expired"):
                psycopg2.connect(**impatient)
            own_postgres.thaw()
            with session.cursor() as cursor:
                cursor.execute("SELECT 1")

    @pytest.mark.parametrize("trouble", ["", "freeze", "kill", "stop"])
    def test_close_leaves_nothing(self, trouble: str) -> None:
        with ThrowawayPostgres() as cluster:
            members = _processes(cluster.pid)
            if trouble:
                getattr(cluster, trouble)()
        assert not cluster.root.exists()
        wait_until(lambda: not _alive(members), lambda: f"still running: {_alive(members)}")

    @pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_death_of_the_owner_leaves_nothing(self, signum: int) -> None:
        root = Path("/tmp") / f"qjs-test-{os.getpid()}-{signum}"
        owner = subprocess.Popen(
            [sys.executable, "-c", _OWNER, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=module_environment(os.environ),
        )
        with owner:
            assert owner.stdout is not None
            assert select.select([owner.stdout], [], [], 60)[0], "the owner's cluster does not start"
            members = _processes(int(owner.stdout.readline()))
            owner.send_signal(signum)
            owner.wait(60)
        wait_until(lambda: not root.exists(), f"{root} is gone")
        wait_until(lambda: not _alive(members), lambda: f"still running: {_alive(members)}")


def _processes(postmaster: int) -> list[psutil.Process]:
    process = psutil.Process(postmaster)
    return [process, *process.children(recursive=True)]


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if is_alive(one)]
