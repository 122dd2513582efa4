"""The schema of the demo's databases is what docs/contract.md describes."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from qjsupervisor.testing import jobs, schema
from qjsupervisor.testing.schema import Schema
from tests.conftest import DatabaseFactory
from tests.helpers import Database

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
