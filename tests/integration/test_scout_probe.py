"""One database, as a probe finds it in a real PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from qjsupervisor.postgres.eligibility import Verdict
from qjsupervisor.postgres.lead_queries import LEADER_LOCK
from qjsupervisor.scout.probe import Probe, changes_backend, probe
from qjsupervisor.states import Mode
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.schema import Schema
from tests.conftest import DatabaseFactory


def look(postgres: ThrowawayPostgres, name: str, mode: Mode = Mode.SERVER_WIDE, **dsn: Any) -> Probe:
    return probe(name, {**postgres.dsn(name), **dsn}, mode, ask_leader=True)


def test_a_good_database(postgres: ThrowawayPostgres, database: DatabaseFactory) -> None:
    found = look(postgres, database().name)
    assert (found.verdict, found.reason, found.warnings) == (Verdict.READY, None, ())
    assert found.facts is not None
    assert found.facts.has_lock_table
    assert found.facts.has_channel_settings
    assert found.facts.leader is None
    assert look(postgres, found.database, Mode.PER_DATABASE).verdict is Verdict.READY


@pytest.mark.parametrize(
    ("state", "rests"),
    [(None, True), ("done", True), ("cancelled", True), ("wait_dependencies", False), ("pending", False),
     ("enqueued", False), ("started", False), ("failed", False)],
)  # fmt: skip
def test_whether_it_needs_a_worker(
    postgres: ThrowawayPostgres, database: DatabaseFactory, state: str | None, rests: bool
) -> None:
    one = database()
    if state is not None:
        one.insert_jobs(1)
        one.execute("UPDATE queue_job SET state = %s", (state,))
    dsn = postgres.dsn(one.name)
    assert probe(one.name, dsn, Mode.SERVER_WIDE, ask_rest=True).rests is rests
    assert probe(one.name, dsn, Mode.SERVER_WIDE).rests is False, "not asked"


def test_a_locked_table_needs_a_worker(postgres: ThrowawayPostgres, database: DatabaseFactory) -> None:
    one = database()
    with closing(postgres.connect(one.name)) as upgrade, upgrade.cursor() as cursor:
        cursor.execute("BEGIN; LOCK queue_job")
        found = probe(one.name, postgres.dsn(one.name), Mode.SERVER_WIDE, ask_rest=True)
    assert (found.verdict, found.rests) == (Verdict.READY, False)


@pytest.mark.parametrize(
    ("schema", "verdict", "reason"),
    [
        (None, Verdict.ABSENT, "queue_job is not installed"),
        (Schema(module_state="to upgrade"), Verdict.BLOCKED, "module queue_job is 'to upgrade'"),
        (Schema(trigger=False), Verdict.BLOCKED, "trigger queue_job_notify is missing"),
        (Schema(lock_table=False, channel_table=False, jsonb=False, dependencies=False), Verdict.READY, None),
    ],
)
def test_other_databases(
    postgres: ThrowawayPostgres, database: DatabaseFactory, schema: Schema | None, verdict: Verdict, reason: str | None
) -> None:
    found = look(postgres, database(schema=schema).name)
    assert found.verdict is verdict
    assert (found.reason or "").startswith(reason or "")


def test_an_older_queue_job_in_per_database_mode(postgres: ThrowawayPostgres, database: DatabaseFactory) -> None:
    name = database(schema=Schema(channel_settings=False)).name
    assert look(postgres, name).verdict is Verdict.READY
    assert "before 18.0.4" in (look(postgres, name, Mode.PER_DATABASE).reason or "")


def test_no_odoo_database_and_none_at_all(postgres: ThrowawayPostgres) -> None:
    postgres.create_database("bare")
    try:
        assert look(postgres, "bare").verdict is Verdict.ABSENT
    finally:
        postgres.drop_database("bare")
    found = look(postgres, "bare")
    assert found.verdict is Verdict.ABSENT
    assert found.reason == 'database "bare" does not exist'


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("ALTER TABLE queue_job DISABLE TRIGGER queue_job_notify", "trigger queue_job_notify is disabled"),
        ("ALTER TABLE queue_job ENABLE REPLICA TRIGGER queue_job_notify", "replica sessions only"),
        ("ALTER TABLE queue_job ENABLE ALWAYS TRIGGER queue_job_notify", None),
        ("ALTER TABLE queue_job DROP COLUMN max_retries", "no column max_retries"),
        ("ALTER TABLE queue_job RENAME TO queue_job_old", "no table queue_job"),
    ],
)
def test_tables_and_trigger(
    postgres: ThrowawayPostgres, database: DatabaseFactory, statement: str, reason: str | None
) -> None:
    one = database()
    one.execute(statement)
    found = look(postgres, one.name)
    assert found.verdict is (Verdict.BLOCKED if reason else Verdict.READY)
    assert (reason or "") in (found.reason or "")


@pytest.fixture
def clerk(postgres: ThrowawayPostgres) -> Iterator[str]:
    """A role that owns nothing."""
    superuser = postgres.connect("postgres", superuser=True)
    with closing(superuser), superuser.cursor() as cursor:
        cursor.execute("CREATE ROLE clerk LOGIN PASSWORD 'clerk'")
        yield "clerk"
        cursor.execute("DROP ROLE clerk")


GRANTS = (
    "GRANT SELECT ON ir_module_module, queue_job TO clerk",
    "GRANT UPDATE (state, date_enqueued, date_started, retry, exc_name, exc_message, exc_info) ON queue_job TO clerk",
    "GRANT SELECT, UPDATE ON queue_job_lock TO clerk",
)


def test_least_privilege(postgres: ThrowawayPostgres, database: DatabaseFactory, clerk: str) -> None:
    one = database()

    def found() -> tuple[Verdict, str]:
        result = look(postgres, one.name, user=clerk, password="clerk")
        return result.verdict, (result.reason or " ".join(result.warnings)).partition(":")[0]

    try:
        assert found() == (Verdict.BLOCKED, "no SELECT privilege on ir_module_module for role clerk")
        one.execute("GRANT SELECT (name, state) ON ir_module_module TO clerk")
        assert found() == (Verdict.BLOCKED, "no SELECT privilege on queue_job for role clerk")
        one.execute(GRANTS[0])
        assert found() == (Verdict.BLOCKED, "no UPDATE privilege on queue_job for role clerk")
        one.execute(GRANTS[1])
        assert found() == (Verdict.READY, "role clerk needs SELECT and UPDATE on queue_job_lock to find dead jobs")
        one.execute(GRANTS[2])
        said = "role clerk may not read ir_config_parameter, so a neutralised copy of a database would be served"
        assert found() == (Verdict.READY, said)
        one.execute("GRANT SELECT (key, value) ON ir_config_parameter TO clerk")
        assert found() == (Verdict.READY, "")
        one.execute("REVOKE UPDATE (retry) ON queue_job FROM clerk")
        assert found() == (Verdict.BLOCKED, "no UPDATE privilege on queue_job (retry) for role clerk")
        superuser = postgres.connect(one.name, superuser=True)
        with closing(superuser), superuser.cursor() as cursor:
            cursor.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        assert "schema public, which role clerk may not use" in found()[1]
    finally:
        superuser = postgres.connect(one.name, superuser=True)
        with closing(superuser), superuser.cursor() as cursor:
            cursor.execute("DROP OWNED BY clerk")


def test_who_leads(postgres: ThrowawayPostgres, database: DatabaseFactory) -> None:
    one = database()
    one.execute("SET application_name = 'somebody'")
    one.execute("SELECT pg_advisory_lock(%s)", (LEADER_LOCK,))
    facts = look(postgres, one.name).facts
    assert facts is not None
    pid = one.execute("SELECT pg_backend_pid()")[0][0]
    assert facts.leader is not None
    assert facts.leader.startswith(f"server process {pid} (application somebody, role ")
    other = database()
    facts = look(postgres, other.name).facts
    assert facts is not None
    assert facts.leader is None, "the lock is each database's own"


def test_wrong_password_is_unreachable_and_not_shown(postgres: ThrowawayPostgres, database: DatabaseFactory) -> None:
    found = look(postgres, database().name, user="nobody_such", password="s3cret")
    assert found.verdict is Verdict.UNREACHABLE
    assert "nobody_such" in (found.reason or "")
    assert "s3cret" not in repr(found)


def test_no_pooler_no_complaint(postgres: ThrowawayPostgres, database: DatabaseFactory) -> None:
    name = database().name
    assert not changes_backend(name, postgres.dsn(name))


def test_a_statement_that_waits_is_given_up(postgres: ThrowawayPostgres, database: DatabaseFactory) -> None:
    one = database()
    with closing(postgres.connect(one.name)) as upgrade, upgrade.cursor() as cursor:
        upgrade.autocommit = False
        cursor.execute("LOCK TABLE ir_module_module IN ACCESS EXCLUSIVE MODE")
        begun = time.monotonic()
        found = probe(one.name, postgres.dsn(one.name), Mode.SERVER_WIDE, statements_s=0.5)
        assert found.verdict is Verdict.UNREACHABLE
        assert "0.5 s" in (found.reason or "") or "statement timeout" in (found.reason or "")
        assert time.monotonic() - begun < 1.5


def test_the_probe_leaves_nothing_behind(postgres: ThrowawayPostgres, database: DatabaseFactory) -> None:
    one = database()
    look(postgres, one.name)
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    with psycopg2.connect(**postgres.dsn(one.name)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert cursor.fetchall() == [(0,)]
    connection.close()
    deadline = time.monotonic() + 5
    while one.execute(count, (one.name,)) != [(0,)]:
        assert time.monotonic() < deadline


def test_row_level_security_is_said(postgres: ThrowawayPostgres, database: DatabaseFactory) -> None:
    """Rows that a policy hides from us would wait for ever, and nobody would know."""
    one = database()
    assert look(postgres, one.name).warnings == ()
    one.execute("ALTER TABLE queue_job ENABLE ROW LEVEL SECURITY")
    assert look(postgres, one.name).warnings == (), "the owner sees all rows"
    one.execute("ALTER TABLE queue_job FORCE ROW LEVEL SECURITY")
    found = look(postgres, one.name)
    assert found.verdict is Verdict.READY
    (warning,) = found.warnings
    assert "row-level security is on for queue_job" in warning
