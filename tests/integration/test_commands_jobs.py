"""`jobs` against a real PostgreSQL; no supervisor runs, or a made-up one answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qjsupervisor.commands import client
from qjsupervisor.testing import jobs as demo_jobs
from qjsupervisor.testing import schema as demo_schema
from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory
from ..helpers import Database, wait_until
from .commands import OLD, Run


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[Database], None]:
    """Let a supervisor seem to run that serves the database, idle."""

    def serve(database: Database) -> None:
        status = {
            "mode": "server-wide",
            "databases": [{"name": database.name, "state": "ready", "last_error": None}],
            "channels": [
                {"name": "root", "capacity": 4, "running": 0, "pending": 0, "failed": 0, "paused": False},
            ],
            "target": {"url": "http://127.0.0.1:1", "state": "up", "failures": 0, "retry_in_s": None},
        }
        monkeypatch.setattr(client, "status_or_none", lambda _config: status)

    return serve


def reasons(out: str) -> dict[str, list[str]]:
    return {job["uuid"]: [reason["code"] for reason in job["reasons"]] for job in json.loads(out)["jobs"]}


def texts(out: str) -> dict[str, str]:
    return {job["uuid"]: job["why"] for job in json.loads(out)["jobs"]}


def test_without_a_supervisor(run: Run, database: DatabaseFactory) -> None:
    one = database()
    (uuid,) = one.insert_jobs(1)
    status, out, _ = run("jobs", one.name, "--json")
    assert status == 0
    assert texts(out) == {uuid: "no supervisor answers: nothing is dispatched"}
    assert json.loads(out)["supervisor"] is False


def test_reasons_from_rows(run: Run, database: DatabaseFactory, served: Callable[[Database], None]) -> None:
    one = database()
    served(one)
    (first,) = one.insert_jobs(1, channel="root.slow", priority=1)
    (second,) = one.insert_jobs(1, channel="slow", priority=2)
    (later,) = one.insert_jobs(1, channel="", eta_s=3600)
    (parent,) = one.insert_jobs(1, channel=None, priority=0)
    (child,) = demo_jobs.insert_dependent_jobs(one.connection, 1, [parent])
    (shut,) = one.insert_jobs(1, channel="root.shut.below")
    (running,) = one.insert_jobs(1, state="started")
    (failed,) = one.insert_jobs(1, channel="root.line", state="failed")
    (behind,) = one.insert_jobs(1, channel="root.line.sub")
    one.insert_jobs(3, state="done")
    status, out, _ = run("jobs", one.name, "--json")
    assert status == 0
    assert reasons(out) == {
        first: ["next"],
        second: ["behind"],
        later: ["eta"],
        parent: ["next"],
        child: ["dependencies"],
        shut: ["paused"],
        running: ["running"],
        failed: [],
        behind: ["sequential"],
    }
    assert failed in texts(out)[behind]
    assert texts(out)[child] == f"depends on {parent} (pending)"
    assert json.loads(out)["counts"] == {
        "done": 3,
        "failed": 1,
        "pending": 6,
        "started": 1,
        "wait_dependencies": 1,
    }


def test_sequential_waits_for_what_is_not_due(
    run: Run, database: DatabaseFactory, served: Callable[[Database], None]
) -> None:
    one = database()
    served(one)
    (better,) = one.insert_jobs(1, channel="root.line", priority=9)
    (late,) = one.insert_jobs(1, channel="root.line", eta_s=600)
    (waiting,) = one.insert_jobs(1, channel="root.line")
    _, out, _ = run("jobs", one.name, "--json")
    found = texts(out)
    assert found[better] == "next in turn"
    assert found[waiting] == f"sequential channel root.line waits for job {late}, which is not due"


def test_filters(run: Run, database: DatabaseFactory) -> None:
    one = database()
    (slow,) = one.insert_jobs(1, channel="root.slow.sub")
    (root,) = one.insert_jobs(1)
    (done,) = one.insert_jobs(1, state="done")
    one.insert_jobs(1, channel="root.slower")

    def listed(*arguments: str) -> set[str]:
        return set(reasons(run("jobs", one.name, "--json", *arguments)[1]))

    assert listed("--channel", "slow") == {slow}
    assert listed("--state", "done") == {done}
    assert listed(done, root) == {done, root}
    assert len(listed("--limit", "2")) == 2
    status, out, _ = run("jobs", one.name, "no-such-uuid")
    assert status == 1
    assert "no-such-uuid: not in" in out


def test_many_waiting_jobs(run: Run, database: DatabaseFactory) -> None:
    """What is sorted is narrow: PostgreSQL spills few bytes of each waiting job, however wide its row is."""
    rows = 250_000
    db = database()
    db.execute(
        """
        INSERT INTO queue_job (uuid, name, channel, state, priority, date_created, retry, max_retries, kwargs)
        SELECT 'job-' || n, repeat('wide ', 20), 'root.part' || n %% 5, 'pending', 1 + (n * 7919::bigint) %% 50,
               (now() AT TIME ZONE 'UTC') - make_interval(secs => (n * 10473::bigint) %% 9973), 0, 5, '{}'
          FROM generate_series(1, %(rows)s) n
        """,
        {"rows": rows},
    )
    db.execute("ANALYZE queue_job")
    ((place, deep),) = db.execute(
        """SELECT place, uuid FROM (
               SELECT uuid, row_number() OVER (ORDER BY priority, date_created, id) AS place
                 FROM queue_job WHERE channel = 'root.part3') AS queue WHERE place = 31234"""
    )
    began = time.monotonic()
    status, out, _err = run("jobs", db.name)
    took_s = time.monotonic() - began
    assert status == 0
    assert f"{db.name}: {rows} pending; 100 shown" in out
    assert took_s < 10, "it may take 2 s; the rest is for a machine that is busy"

    def spilled() -> int:
        (found,) = db.execute("SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()")[0]
        return int(found)

    wait_until(lambda: spilled() > 0, "the session's statistics")
    assert spilled() < 150 * rows
    status, out, _err = run("jobs", db.name, deep)
    assert status == 0
    assert f"place {place}\n" in out


def test_odd_rows_harm_nobody(run: Run, database: DatabaseFactory) -> None:
    """Control characters, infinities, years beyond Python's, NULLs, JSON that is none."""
    one = database()
    evil = "\x1b[2J\u202e\r\n<b>"
    demo_jobs.insert_row(one.connection, uuid=evil, channel=evil, name=evil, priority=None)
    for eta in ("infinity", "-infinity", "200000-01-01"):
        demo_jobs.insert_row(one.connection, uuid=eta, eta=eta, date_created=eta)
    demo_jobs.insert_row(one.connection, uuid="x", state="wait_dependencies", dependencies="[[")
    halves = '{"depends_on": ["\\ud800", "\\u0000"]}'
    demo_jobs.insert_row(one.connection, uuid="w", state="wait_dependencies", dependencies=halves)
    demo_jobs.insert_row(one.connection, uuid="y", state=evil)
    demo_jobs.insert_row(one.connection, uuid="u" * 300)
    demo_jobs.insert_row(one.connection, uuid="z", state="enqueued", date_enqueued="-infinity")
    status, out, err = run("jobs", one.name)
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b" in out
    _, out, _ = run("jobs", one.name, "--json")
    assert "Infinity" not in out
    assert evil in reasons(out)
    assert "its uuid has 300 bytes, not 1 to 256" in texts(out)["u" * 300]


@pytest.mark.parametrize(
    "arguments",
    [
        ("jobs", "{db}", "\udcff"),
        ("jobs", "\udcff"),
        ("requeue", "{db}", "\udcff"),
        ("jobs", "{db}", "--channel", "\udcff"),
    ],
)
def test_odd_bytes_as_arguments_are_an_error_in_one_line(
    run: Run, database: DatabaseFactory, arguments: tuple[str, ...]
) -> None:
    one = database()
    status, _, err = run(*(each.format(db=one.name) for each in arguments))
    assert status in (1, 70)
    assert "is not UTF-8" in err
    assert err.count("\n") == 1


def test_oldest_branch(run: Run, database: DatabaseFactory) -> None:
    one = database(schema=OLD)
    (uuid,) = one.insert_jobs(1)
    status, out, _ = run("jobs", one.name)
    assert status == 0
    assert out.startswith(f"{uuid}  ")


def test_per_database_tree(run: Run, database: DatabaseFactory) -> None:
    one = database()
    demo_schema.set_channel(one.connection, "root.slow", capacity=1, paused=True)
    one.insert_jobs(1, channel="root.slow")
    options = {"channels": None, "sections": {"queue_job": {"max_capacity": 4, "channels": None}}}
    status, _, _ = run("jobs", one.name, "--json", **options)
    assert status == 0
    demo_schema.set_channel(one.connection, "root.slow", capacity=2, sequential=True)
    status, _, err = run("jobs", one.name, "--json", **options)
    assert status == 70
    assert "root.slow" in err
    assert "sequential" in err
    older = database(schema=OLD)
    status, _, err = run("jobs", older.name, **options)
    assert status == 70
    assert "18.0.4" in err


def test_throttle_of_a_databases_own_channel(
    run: Run, database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = database()
    demo_schema.set_channel(one.connection, "root.rare", throttle=100)
    (done, waiting) = one.insert_jobs(2, channel="root.rare")
    began_s = time.monotonic()
    one.execute(
        "UPDATE queue_job SET state = 'done', date_enqueued = now() AT TIME ZONE 'UTC' - interval '30 s',"
        " date_done = now() AT TIME ZONE 'UTC'"
        " WHERE uuid = %s",
        (done,),
    )
    status = {"mode": "per-database", "databases": [{"name": one.name, "state": "ready"}]}
    monkeypatch.setattr(client, "status_or_none", lambda _config: status)
    sections = {"queue_job": {"max_capacity": 4, "channels": None}}
    _, out, _ = run("jobs", one.name, "--json", channels=None, sections=sections)
    left_s = range(69 - int(time.monotonic() - began_s), 71)
    assert texts(out)[waiting] in {f"channel root.rare is throttled for another {left} s" for left in left_s}


@pytest.mark.parametrize("command", ["jobs", "requeue"])
def test_wrong_database(run: Run, database: DatabaseFactory, command: str) -> None:
    """One line, and which database."""
    without = database(schema=None)
    arguments = ("--state", "failed") if command == "requeue" else ()
    for name, said in ((without.name, "queue_job is not installed"), ("no_such", "does not exist")):
        status, out, err = run(command, name, *arguments)
        assert status == 70
        assert out == ""
        assert said in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("by_uri", [False, True])
def test_a_wrong_password_names_the_key_and_the_file(
    run: Run, database: DatabaseFactory, postgres: ThrowawayPostgres, tmp_path: Path, by_uri: bool
) -> None:
    name = database().name
    conf: dict[str, object] = {"db_password": "Wr0ng"}
    place = f"{tmp_path}/odoo.conf: [options] db_password"
    if by_uri:
        conf["db_name"] = f"postgresql://{postgres.user}:Wr0ng@{postgres.host}:{postgres.port}/{name}"
        place = "the URI in db_name"
    status, out, err = run("jobs", name, sections={"options": conf})
    assert (status, out, err.count("\n")) == (70, "", 1)
    assert f'authentication failed for user "{postgres.user}"; the password is that of {place}' in err
    assert "Wr0ng" not in err


# -- all databases -------------------------------------------------------------------------------------------------


def test_jobs_of_all_databases(run: Run, two: tuple[Database, Database, dict[str, str]]) -> None:
    one, other, own = two
    failed = [*one.insert_jobs(2, state="failed"), *other.insert_jobs(1, state="failed")]
    (waiting,) = other.insert_jobs(1)
    status, out, _ = run("jobs", "--all", "--state", "failed", own=own)
    assert status == 0
    assert all(uuid in out for uuid in failed)
    assert waiting not in out
    assert out.splitlines()[-1] == "2 databases: 3 failed, 1 pending; 3 shown, of 2 databases"
    status, out, _ = run("jobs", "--all", waiting, "nowhere", "--json", own=own)
    assert status == 1
    found = json.loads(out)
    assert [(each["database"], [job["uuid"] for job in each["jobs"]]) for each in found["databases"]] == [
        (one.name, []),
        (other.name, [waiting]),
    ]
    assert (found["not_found"], found["counts"], found["errors"]) == (["nowhere"], {"failed": 3, "pending": 1}, [])


def test_a_database_that_cannot_be_asked_keeps_the_others_from_nothing(
    run: Run, two: tuple[Database, Database, dict[str, str]]
) -> None:
    one, other, own = two
    one.insert_jobs(1, state="failed")
    other.insert_jobs(1, state="failed")
    one.execute("ALTER TABLE queue_job DROP COLUMN exc_name")
    status, out, err = run("jobs", "--all", own=own)
    assert (status, err) == (1, "")
    assert "1 databases: 1 failed; 1 shown" in out
    assert f"not asked: {one.name}: " in out
    status, out, err = run("requeue", "--all", "--state", "failed", "--yes", own=own)
    assert (status, err) == (0, "")
    assert "2 jobs of 2 databases put back to pending" in out


def test_a_limit_beyond_what_a_server_counts(run: Run, database: DatabaseFactory) -> None:
    one = database()
    one.insert_jobs(2)
    assert f"{one.name}: 2 pending; 2 shown" in run("jobs", one.name, "--limit", "9" * 40)[1]
