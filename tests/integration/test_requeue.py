"""`requeue` against a real PostgreSQL."""

from __future__ import annotations

import sys
from contextlib import closing

import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.schema import Schema

from ..conftest import DatabaseFactory
from ..helpers import Database
from .commands import OLD, Run


def test_requeue_needs_a_choice(run: Run, database: DatabaseFactory) -> None:
    status, _, err = run("requeue", database().name)
    assert status == 64
    assert "--state" in err


@pytest.mark.parametrize("schema", [Schema(), OLD])
def test_requeue_states(run: Run, database: DatabaseFactory, schema: Schema) -> None:
    one = database(schema=schema)
    for state in ("enqueued", "started", "failed", "done", "cancelled", "pending"):
        one.insert_jobs(2, state=state, retry=3)
    status, out, _ = run("requeue", one.name, "--state", "failed")
    assert status == 0
    assert "2 jobs put back to pending" in out
    assert one.states() == {"enqueued": 2, "started": 2, "done": 2, "cancelled": 2, "pending": 4}
    assert one.execute("SELECT retry FROM queue_job WHERE state = 'pending' ORDER BY id") == [
        (0,),
        (0,),
        (3,),
        (3,),
    ]
    assert run("requeue", one.name, "--state", "enqueued")[0] == 0
    status, out, _ = run("requeue", one.name, "--state", "started")
    assert status == 0
    assert ("nobody can tell" in out) is (not schema.lock_table)
    assert one.states() == {"done": 2, "cancelled": 2, "pending": 8}
    assert one.execute("SELECT count(*) FROM queue_job WHERE retry = 0") == [(2,)]


def test_requeue_leaves_running_jobs_alone(run: Run, database: DatabaseFactory, postgres: ThrowawayPostgres) -> None:
    one = database()
    running, dead, without_row, young = one.insert_jobs(4, state="started")
    one.execute("UPDATE queue_job SET date_enqueued = now() AT TIME ZONE 'UTC' - interval '11 s'")
    one.execute("UPDATE queue_job SET date_enqueued = now() AT TIME ZONE 'UTC' WHERE uuid = %s", (young,))
    one.execute("INSERT INTO queue_job_lock (queue_job_id) SELECT id FROM queue_job WHERE uuid <> %s", (without_row,))
    with closing(postgres.connect(one.name)) as odoo:
        with odoo.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(
                "SELECT FROM queue_job_lock JOIN queue_job AS job ON job.id = queue_job_id"
                " WHERE uuid = %s FOR NO KEY UPDATE OF queue_job_lock",
                (running,),
            )
        status, out, _ = run("requeue", one.name, "--state", "started")
    assert status == 1
    assert {one.state(uuid) for uuid in (dead, without_row)} == {"pending"}
    assert {one.state(uuid) for uuid in (running, young)} == {"started"}
    put_back, left = out.split("left alone")
    assert dead in put_back
    assert running in left
    assert young in left


def test_requeue_by_uuid(run: Run, database: DatabaseFactory) -> None:
    one = database()
    (failed, other) = one.insert_jobs(2, state="failed")
    (done,) = one.insert_jobs(1, state="done")
    status, out, _ = run("requeue", one.name, failed, done, "no-such")
    assert status == 1
    assert one.state(failed) == "pending"
    assert (one.state(other), one.state(done)) == ("failed", "done")
    assert f"{done}: is done" in out
    assert "no-such: there is no such job" in out


def test_requeue_older_than(run: Run, database: DatabaseFactory) -> None:
    one = database()
    (old, new) = one.insert_jobs(2, state="enqueued")
    one.execute(
        "UPDATE queue_job SET date_enqueued = now() AT TIME ZONE 'UTC'"
        " - CASE uuid WHEN %s THEN interval '2 h' ELSE interval '1 min' END",
        (old,),
    )
    status, out, _ = run("requeue", one.name, "--state", "enqueued", "--older-than", "1h")
    assert status == 0
    assert new not in out
    assert (one.state(old), one.state(new)) == ("pending", "enqueued")


def test_requeue_does_not_wait_for_a_row_that_is_being_changed(
    run: Run, database: DatabaseFactory, postgres: ThrowawayPostgres
) -> None:
    one = database()
    (uuid,) = one.insert_jobs(1, state="enqueued")
    with closing(postgres.connect(one.name)) as odoo:
        with odoo.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("UPDATE queue_job SET state = 'started' WHERE uuid = %s", (uuid,))
        status, out, _ = run("requeue", one.name, "--state", "enqueued")
    assert status == 1
    assert "left alone" in out
    assert one.state(uuid) == "enqueued"


def test_requeue_by_channel_and_over_all_databases(run: Run, two: tuple[Database, Database, dict[str, str]]) -> None:
    one, other, own = two
    (kept,) = one.insert_jobs(1, state="failed", channel="root.slower")
    one.insert_jobs(2, state="failed", channel="root.slow.sub")
    other.insert_jobs(3, state="failed", channel="slow")
    arguments = ("--state", "failed", "--channel", "slow")
    for where in ("--all", one.name):
        status, out, err = run("requeue", where, *arguments, own=own)
        assert (status, out) == (64, "")
        assert "say --yes" in err
    status, out, _ = run("requeue", "--all", "--yes", *arguments, own=own)
    assert status == 0
    assert out.splitlines()[-1] == "5 jobs of 2 databases put back to pending"
    assert (one.states(), other.states()) == ({"failed": 1, "pending": 2}, {"pending": 3})
    assert one.state(kept) == "failed"


@pytest.mark.parametrize(("answer", "status", "moved"), [("y", 0, 4), ("no", 1, 0), ("", 1, 0)])
def test_requeue_asks_on_a_terminal(
    run: Run,
    two: tuple[Database, Database, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    status: int,
    moved: int,
) -> None:
    one, other, own = two
    one.insert_jobs(3, state="failed")
    other.insert_jobs(1, state="failed")
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _prompt: answer)
    found, out, _ = run("requeue", "--all", "--state", "failed", own=own)
    question = f"Put 4 failed jobs of 2 databases ({one.name} 3, {other.name} 1) back to pending?"
    assert question in " ".join(out.split())
    assert found == status
    assert ("nothing was changed" in out) is (moved == 0)
    assert one.states().get("pending", 0) + other.states().get("pending", 0) == moved
