"""What anybody may say on the channel and write into the table: at most that job is refused, with a reason."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from qjsupervisor.testing import schema
from qjsupervisor.testing.jobs import insert_row
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until

PAYLOADS = [
    "",
    "reload",
    "RELOAD",
    "a" * 7999,
    "'; DROP TABLE queue_job; --",
    '"}, {"do": "stop"}',
    "two\r\nlines: 2\r\n\r\n",
    "\x1b]0;title\x07\x1b[2J\x01\x7f\x9b",
    "%s %d %(x)s %00 ..%2f..%2f",
    "../../web/database/drop?name=prod&db=prod",
    "\u2028\u202e ☃ 𝄞 \ufeff",
    "{1,2}",
]
#: Raw control characters, C1 included, and what ends a line for some readers.
UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]")


#: Somebody's own: two rows may not become `enqueued`.
STUBBORN = """
CREATE FUNCTION stubborn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state = 'enqueued' AND NEW.name = 'stubborn' THEN RAISE EXCEPTION 'not this one'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stubborn BEFORE UPDATE ON queue_job FOR EACH ROW EXECUTE FUNCTION stubborn();
"""


@pytest.fixture
def pair(database: DatabaseFactory) -> tuple[Database, Database]:
    """The one that is attacked, and the one that must not notice."""
    return database(), database()


def start(
    postgres: ThrowawayPostgres, odoo: StandIn, supervisor: SupervisorFactory, *databases: Database, **own: object
) -> Supervisor:
    names = [database.name for database in databases]
    sections = {"qjsupervisor": {"log_level": "debug", **own}}
    conf = odoo_conf(postgres, odoo.port, db_name=",".join(names), channels="root:4", sections=sections)
    running = supervisor(conf)
    running.wait_ready(*names)
    return running


def assert_undisturbed(running: Supervisor, pids: dict[str, int]) -> None:
    status = running.status()
    assert {entry["name"]: entry["pid"] for entry in status["databases"]} == pids
    assert {(entry["state"], entry["restarts"]) for entry in status["databases"]} == {("ready", 0)}
    assert status["target"]["state"] != "down"
    errors = [entry for entry in running.log_events() if entry.get("level") in ("error", "critical")]
    assert errors == []
    assert "Traceback" not in running.log_text()


def assert_clean(lines: Iterator[str] | list[str]) -> None:
    for line in lines:
        found = UNPRINTABLE.search(line)
        assert found is None, f"{found[0]!r} in {line!r}"


def one_by_one(one: Database, channel: str | None, count: int) -> int:
    """Jobs each of which is alone, so that each may be claimed before its row was read."""
    for _ in range(count):
        uuid = insert_row(one.connection, channel=channel)
        wait_until(lambda uuid=uuid: one.state(uuid) == "done", f"a job of channel {channel!r} is done")
    return count


def test_payloads(
    postgres: ThrowawayPostgres, odoo: StandIn, pair: tuple[Database, Database], supervisor: SupervisorFactory
) -> None:
    one, other = pair
    running = start(postgres, odoo, supervisor, one, other)
    pids = running.pids()
    (foreign,) = other.insert_jobs(1, eta_s=3600)
    for payload in [*PAYLOADS, foreign]:
        one.execute("SELECT pg_notify('queue_job', %s)", (payload,))
    done = one_by_one(one, "root", 3)
    for payload in [*PAYLOADS, foreign]:
        one.execute("SELECT pg_notify('queue_job', %s)", (payload,))
        done += one_by_one(one, "root", 1)
    # More than a worker remembers, in one go.
    one.execute("SELECT pg_notify('queue_job', 'x' || n) FROM generate_series(1, 7000) AS n")
    for database in pair:
        database.insert_jobs(20)
    one.wait_for_states(done=done + 20)
    other.wait_for_states(done=20, pending=1)
    assert_undisturbed(running, pids)
    assert all("x1" not in uuids and foreign not in uuids for uuids in odoo.stats()["requests"].values())
    text = running.log_text()
    assert_clean(text.splitlines())
    assert all(isinstance(json.loads(line), dict) for line in text.splitlines())


def test_a_flood_of_reloads(
    postgres: ThrowawayPostgres, odoo: StandIn, pair: tuple[Database, Database], supervisor: SupervisorFactory
) -> None:
    """It costs some reads of the table, and holds up no job."""
    one, _ = pair
    sections = {"queue_job": {"channels": None, "max_capacity": 4}}
    conf = odoo_conf(postgres, odoo.port, db_name=one.name, sections=sections)
    running = supervisor(conf)
    running.wait_ready(one.name)
    before = scans(one)
    with closing(postgres.connect(one.name)) as session, session.cursor() as cursor:
        began_s = time.monotonic()
        for _ in range(2000):
            cursor.execute("NOTIFY queue_job, 'reload'")
    one.insert_jobs(5)
    one.wait_for_states(done=5)
    # A session tells what it did when it ends its next statement: hence the jobs.
    wait_until(lambda: one.insert_jobs(1) and scans(one) > before, "a reload was never obeyed")
    took_s = time.monotonic() - began_s
    assert scans(one) - before <= 5 + 5 * took_s, "the tree was read again and again"


def scans(database: Database) -> int:
    """How often the database's channels were read."""
    database.execute("SELECT pg_stat_clear_snapshot()")
    ((number,),) = database.execute(
        "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 'queue_job_channel'"
    )
    return int(number)


def odd_rows(one: Database, other: Database) -> int:
    """Rows that are odd and can be run nevertheless; their number."""
    created = [None, "infinity", "-infinity", "294276-12-31 23:59:59.999999", "4713-01-01 00:00:00 BC"]
    rows: list[dict[str, object]] = [{"date_created": date} for date in created]
    rows += [{"eta": eta} for eta in ("-infinity", "4713-01-01 BC", "1999-12-31 23:59:60")]
    rows += [{"priority": priority} for priority in (None, -(2**31), 2**31 - 1)]
    rows += [{"retry": None, "max_retries": None}, {"retry": 7, "max_retries": -1}, {"kwargs": None}]
    rows += [{"channel": name} for name in ODD_CHANNELS]
    rows += [{"uuid": uuid} for uuid in (*ODD_UUIDS, f"x&db={other.name}", "twin", "twin")]
    # Enqueued or started by nobody knows whom, nobody knows when.
    rows += [{"state": "enqueued"}, {"state": "started", "max_retries": 0}]
    for row in rows:
        insert_row(one.connection, **row)
    return len(rows)


ODD_CHANNELS = [
    None,
    "",
    ".",
    "..",
    "root.",
    "root..x",
    "ROOT",
    " root ",
    "root:5",
    "no_root.sub",
    "root." + "x" * 1000,
    "root" + ".deep" * 300,
    "root.two\nlines",
    "root.\x1b[2J\x07\x9b",
    "root.'; DROP TABLE queue_job; --",
    "root.ünï ☃ \u2028\u202e",
    "root.%s%(x)s{0}",
]
ODD_UUIDS = [
    " ",
    "two\r\nlines\r\nX-Odoo-Database: other",
    "50%41%00%s",
    "'\"`\\",
    "../../web?x=1#y",
    "ünï ☃ \u2028\u202e",
    "\x1b[2J\x07\x9b",
    "x" * 256,
    "+",
]


@pytest.mark.parametrize(("log_format", "fairness"), [("json", "priority"), ("console", "round-robin")])
def test_rows(
    log_format: str,
    fairness: str,
    postgres: ThrowawayPostgres,
    odoo: StandIn,
    pair: tuple[Database, Database],
    supervisor: SupervisorFactory,
) -> None:
    one, other = pair
    running = start(postgres, odoo, supervisor, one, other, log_format=log_format, fairness=fairness)
    pids = running.pids()
    runnable = odd_rows(one, other)
    refused = [insert_row(one.connection, uuid=uuid) for uuid in ("", "y" * 257, "\n" * 5000)]
    never = [insert_row(one.connection, eta="infinity"), insert_row(one.connection, eta="294276-12-31")]
    states = dict.fromkeys(("weird", "", "PENDING", "pending ", "z" * 500, "cancelled"), 1)
    for state in states:
        insert_row(one.connection, state=state)
    other.insert_jobs(20)
    other.wait_for_states(done=20, timeout_s=20)
    one.wait_for_states(done=runnable, pending=len(refused) + len(never), timeout_s=30, **states)
    assert_undisturbed(running, pids)
    stats = odoo.stats()
    assert set(stats["requests"]) == {one.name, other.name}
    assert set(stats["addressed"]) == {"both"}
    assert not set(stats["requests"][one.name]) & set(refused)
    assert len(stats["requests"][other.name]) == 20
    assert_clean(running.log_text().splitlines())
    assert_clean(running.run("status").stdout.splitlines())
    assert_clean(running.run("jobs", one.name).stdout.splitlines())
    if log_format == "json":
        reasons = [entry["reason"] for entry in running.log_events("job_refused")]
        assert sorted(reasons) == sorted(f"its uuid has {n} bytes, not 1 to 256" for n in (0, 257, 5000))


def test_odd_channels_one_by_one(
    postgres: ThrowawayPostgres, odoo: StandIn, pair: tuple[Database, Database], supervisor: SupervisorFactory
) -> None:
    one, other = pair
    running = start(postgres, odoo, supervisor, one, other)
    pids = running.pids()
    for channel in ODD_CHANNELS:
        one_by_one(one, channel, 3)
    assert_undisturbed(running, pids)
    assert set(odoo.stats()["executions"][one.name].values()) == {1}


def test_bytes_that_are_no_text(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A SQL_ASCII database holds any bytes, and sends them as they are."""
    other = database()
    name = f"ascii_{other.name}"
    create = f"CREATE DATABASE {name} OWNER odoo TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
    postgres.execute("postgres", create, superuser=True)
    one = Database(postgres, name)
    try:
        schema.install(one.connection)
        running = start(postgres, odoo, supervisor, one, other)
        pids = running.pids()
        one_by_one(one, "root", 3)
        with one.connection.cursor() as cursor:
            cursor.execute(b"SELECT pg_notify('queue_job', E'\\xff\\xfe\\x80')")
            cursor.execute(b"NOTIFY queue_job, '\xc3\x28\xa0\xa1'")
            for uuid, channel, state in (
                (b"\xc3\xa9", b"root", b"pending"),
                (b"\xff\xfe", b"root.\xe2\x28\xa1", b"failed"),
                (b"\xfe\xff", b"root", b"\xc3\x28"),
            ):
                insert = b"INSERT INTO queue_job (uuid, channel, state) VALUES ('%b', '%b', '%b')"
                cursor.execute(insert % (uuid, channel, state))
        one.insert_jobs(5)
        other.insert_jobs(5)
        other.wait_for_states(done=5)
        wait_until(lambda: count(one, "done") == 8, "the jobs whose uuids are text")
        assert_undisturbed(running, pids)
        # The bytes of a uuid arrive as they are; whether Odoo knows such a job is its own business.
        wait_until(lambda: "é" in odoo.stats()["requests"][name], "the job whose uuid is UTF-8")
        assert len(odoo.stats()["requests"][name]) == 9
    finally:
        one.drop()


def count(database: Database, state: str) -> int:
    ((number,),) = database.execute("SELECT count(*) FROM queue_job WHERE state = %s", (state,))
    return int(number)


def test_notifications_of_others(
    postgres: ThrowawayPostgres, odoo: StandIn, pair: tuple[Database, Database], supervisor: SupervisorFactory
) -> None:
    """Any role that may connect can shout."""
    one, other = pair
    running = start(postgres, odoo, supervisor, one, other)
    pids = running.pids()
    postgres.execute("postgres", "CREATE ROLE stranger LOGIN PASSWORD 'x'", superuser=True)
    try:
        dsn = {**one.dsn(), "user": "stranger", "password": "x"}
        with closing(psycopg2.connect(**dsn)) as session, session.cursor() as cursor:
            for number in range(2000):
                cursor.execute("SELECT pg_notify('queue_job', %s)", (f"{number}" * 100,))
                session.commit()
            one.insert_jobs(10)
            one.wait_for_states(done=10)
        assert_undisturbed(running, pids)
    finally:
        postgres.execute("postgres", "DROP ROLE stranger", superuser=True)


def test_rows_that_the_database_does_not_let_start(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Neither the connection nor another job is lost for them, and they run when they may."""
    one = database()
    one.execute(STUBBORN)
    running = start(postgres, odoo, supervisor, one)
    pids = running.pids()
    for number in range(3):  # alone, so that they may be claimed before their rows were read
        one.insert_jobs(1)
        one.wait_for_states(done=number + 1)
    insert_row(one.connection, uuid="stubborn 1", name="stubborn", priority=1)
    running.wait_for("job_refused")
    one.insert_jobs(30)
    insert_row(one.connection, uuid="stubborn 2", name="stubborn", priority=1)
    one.wait_for_states(done=33, pending=2)
    said = running.log_events("job_refused")
    assert {entry["reason"].partition(" CONTEXT")[0] for entry in said} == {
        "the database does not let it start: not this one"
    }
    assert running.log_events("database_lost") == []
    assert running.pids() == pids
    one.execute("ALTER TABLE queue_job DISABLE TRIGGER stubborn")
    one.wait_for_states(done=35, timeout_s=20)
    wait_until(lambda: {entry["running"] for entry in running.status()["channels"]} == {0}, "all permits are back")


#: Somebody's own: what a row is called is what becomes of a change of its state.
REFUSING = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.name = 'ends' AND NEW.state = 'enqueued' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
    IF length(NEW.name) = 5 AND NEW.state = 'enqueued' THEN RAISE EXCEPTION 'no' USING ERRCODE = NEW.name; END IF;
    IF NEW.name = 'kept' AND NEW.state = 'pending' THEN RAISE EXCEPTION 'no' USING ERRCODE = '42P01'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON queue_job FOR EACH ROW EXECUTE FUNCTION refuse();
"""
REFUSALS = ["42501", "42P01", "20000", "21000", "2F005", "54001", "55P03", "57014", "08001", "HV000", "0A000", "XX000"]
REFUSALS += ["3D000", "53100", "40001", "25006", "P0001", "23514"]


def test_one_row_stops_nobody_whatever_its_error_is(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A trigger's error is no word about the database: it is neither gone nor unfit, and the connection is not lost."""
    one = database()
    one.execute(REFUSING)
    running = start(postgres, odoo, supervisor, one)
    pids = running.pids()
    for code in REFUSALS:
        insert_row(one.connection, uuid=code, name=code, priority=1)
    one.insert_jobs(8)
    one.wait_for_states(done=8, pending=len(REFUSALS))
    refused = {one.job(code)["id"] for code in REFUSALS}
    wait_until(lambda: {entry["job_id"] for entry in running.log_events("job_refused")} == refused, "all are told")
    assert running.log_events("database_lost") == running.log_events("database_blocked") == []
    assert running.pids() == pids
    one.execute("ALTER TABLE queue_job DISABLE TRIGGER refuse")
    one.wait_for_states(done=8 + len(REFUSALS), timeout_s=30)
    wait_until(lambda: {entry["running"] for entry in running.status()["channels"]} == {0}, "all permits are back")


def test_rows_that_cannot_be_put_back(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """What is refused is a dead job's revival: it holds no permit, and the connection is not lost for it."""
    one, other = database(), database()
    one.execute(REFUSING)
    stay = [insert_row(one.connection, name="kept", state="enqueued") for _ in range(4)]
    goes = insert_row(one.connection, name="goes", state="enqueued")
    one.execute("UPDATE queue_job SET date_enqueued = now() AT TIME ZONE 'UTC' - interval '1 hour'")
    running = start(postgres, odoo, supervisor, one, other)
    wait_until(lambda: one.state(goes) == "done", "the other dead job runs again")
    refused = running.wait_for("job_refused")
    assert refused["job_id"] in {one.job(uuid)["id"] for uuid in stay}
    assert "put back" in refused["reason"]
    other.insert_jobs(5)
    other.wait_for_states(done=5)
    one.insert_jobs(5)
    one.wait_for_states(done=6, enqueued=4)
    wait_until(lambda: (running.database_status(one.name) or {})["failed"] == 4, "they count as failed")
    assert running.log_events("database_lost") == running.log_events("database_gone") == []
    one.execute("ALTER TABLE queue_job DISABLE TRIGGER refuse")
    one.wait_for_states(done=10, timeout_s=20)
    wait_until(lambda: (running.database_status(one.name) or {})["failed"] == 0, "they count no more")


def test_a_row_that_ends_the_connection(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """After the second time it is claimed alone, and then left alone for longer each time."""
    one = database()
    one.execute(REFUSING)
    running = start(postgres, odoo, supervisor, one)
    insert_row(one.connection, uuid="ends", name="ends", priority=1)
    one.insert_jobs(8)
    one.wait_for_states(done=8, pending=1, timeout_s=45)
    refused = running.wait_for("job_refused", timeout_s=30)
    assert refused["job_id"] == one.job("ends")["id"]
    assert set(odoo.stats()["executions"][one.name].values()) == {1}
