"""A session against real servers: what a role, a database, the environment and the network may do to it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest

from qjsupervisor.broker.coordinator import Coordinator
from qjsupervisor.commands import statements
from qjsupervisor.errors import DatabaseError, DatabaseGone, DatabaseUnavailable, DatabaseUnfit, ServerDown
from qjsupervisor.job import job_of
from qjsupervisor.postgres import queries
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.session import Session
from qjsupervisor.postgres.waiter import Waiter
from qjsupervisor.testing import schema
from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory
from ..helpers import Database as One
from ..replica import Replica

CHANNEL = "root.größe €"


def connected(one: One) -> Database:
    made = Database(one.name, one.dsn(), Waiter())
    made.connect()
    return made


# -- encodings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
@pytest.mark.parametrize("said_by", ["database", "environment"])
def test_text_is_what_it_is_whatever_encoding_sessions_begin_with(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch, encoding: str, said_by: str
) -> None:
    one = database()
    (uuid,) = one.insert_jobs(1, channel=CHANNEL)
    if said_by == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", encoding)
    else:
        one.execute(f'ALTER DATABASE "{one.name}" SET client_encoding = {encoding}')
    with closing(connected(one)) as made:
        made.listen()
        (job,) = made.turn({}, [uuid])[1]
    assert job.channel == CHANNEL


@pytest.fixture
def windows(postgres: ThrowawayPostgres) -> Iterator[One]:
    """A database in WIN1252, where a byte has no meaning in Unicode."""
    name = "windows"
    create = "CREATE DATABASE windows OWNER odoo TEMPLATE template0 ENCODING 'WIN1252' LC_COLLATE 'C' LC_CTYPE 'C'"
    postgres.execute("postgres", create, superuser=True)
    with closing(postgres.connect(name)) as connection:
        schema.install(connection)
    one = One(postgres, name)
    yield one
    one.drop()


def spoil(one: One, uuid: str) -> None:
    statement = "UPDATE queue_job SET channel = convert_from('\\x726f6f742e81', 'WIN1252') WHERE uuid = %s"
    one.execute(statement, (uuid,))


def test_a_row_that_cannot_be_decoded_costs_itself(windows: One) -> None:
    """The worker connects anew, once, and then takes text as it is."""
    good, bad = windows.insert_jobs(2)
    spoil(windows, bad)
    made = connected(windows)
    with closing(made):
        with pytest.raises(DatabaseUnfit):
            made.rows(queries.LOAD, {"limit": 10, "deferred": []})
        made.connect()
        jobs = [job_of(row[1:]) for row in made.rows(queries.LOAD, {"limit": 10, "deferred": []})]
        assert {job.uuid: job.channel for job in jobs} == {good: "root", bad: "root.\x81"}
        made.listen()
        claimed, _read = made.turn({job.id: 0 for job in jobs}, [])
        assert {job.uuid for job in claimed} == {good, bad}


def test_people_see_the_other_rows_too(windows: One) -> None:
    windows.insert_jobs(1, channel="root.größe")
    (bad,) = windows.insert_jobs(1)
    spoil(windows, bad)
    session = Session(windows.name, windows.dsn(), for_people=True)
    session.connect()
    with closing(session):
        shown = session.rows("SELECT channel FROM queue_job ORDER BY id")
        assert shown == [("root.größe",), ("root.\ufffd",)]
        found = session.rows("SELECT id FROM queue_job WHERE channel = %(channel)s", {"channel": "root.größe"})
        assert len(found) == 1


# -- what a role or a database may have set -----------------------------------------------------------------------


def test_limits_of_a_role_are_not_ours(database: DatabaseFactory) -> None:
    one = database()
    limits = {
        "idle_session_timeout": "100ms",
        "idle_in_transaction_session_timeout": "100ms",
        "transaction_timeout": "100ms",
        "lock_timeout": "100ms",
        "extra_float_digits": "-15",
    }
    (version,) = one.execute("SHOW server_version_num")[0]
    since = {"idle_session_timeout": 140000, "transaction_timeout": 170000}
    known = {name: value for name, value in limits.items() if int(version) >= since.get(name, 0)}
    for name, value in known.items():
        one.execute(f"ALTER DATABASE \"{one.name}\" SET {name} = '{value}'")
    session = Session(one.name, one.dsn())
    session.connect()
    with closing(session):
        for name in known:
            expected = "3" if name == "extra_float_digits" else "0"
            assert session.rows(f"SHOW {name}") == [(expected,)], name
        exact = "1764300000.123456"
        assert session.rows(f"SELECT {exact}::float8") == [(float(exact),)]


# -- ids -------------------------------------------------------------------------------------------------------


def test_ids_beyond_32_bits(database: DatabaseFactory) -> None:
    """queue_job.id of a database that has seen many jobs, widened by its administrator."""
    one = database()
    one.execute("ALTER TABLE queue_job ALTER COLUMN id TYPE bigint")
    one.execute("ALTER TABLE queue_job_lock ALTER COLUMN queue_job_id TYPE bigint")
    one.execute("ALTER SEQUENCE queue_job_id_seq AS bigint RESTART 3000000000")
    first, second = one.insert_jobs(2)
    ids = [one.job(uuid)["id"] for uuid in (first, second)]
    assert min(ids) >= 3000000000
    with closing(connected(one)) as made:
        made.listen()
        rows = made.rows(queries.LOAD, {"limit": 10, "deferred": ids[1:]})
        assert [job_of(row[1:]).id for row in rows] == ids[:1]
        claimed, _read = made.turn(dict.fromkeys(ids, 0), [])
        assert sorted(job.id for job in claimed) == ids
        one.execute("UPDATE queue_job SET date_enqueued = date_enqueued - interval '1 minute'")
        assert made.look_dead(ids, 10).keys() == set(ids)
        assert [job.id for job in made.revive({ids[0]: "enqueued"}, 10)] == ids[:1]
        assert made.give_back(ids) == ids[1:]
        assert [job.id for job in made.read_ids(ids)] == ids
        assert [job.id for job in made.turn({ids[1]: ids[0]}, [])[0]] == ids[1:]
        one.execute("UPDATE queue_job SET state = 'started', date_started = date_created - interval '1 hour'")
        assert sorted(row[0] for row in made.running_for(ids, 60)) == ids
        assert made.end_session_of(ids[0]) is None
        one.execute("DELETE FROM queue_job WHERE id = %s", ids[:1])
        assert list(made.without_row(ids)) == ids[:1]


# -- addresses -------------------------------------------------------------------------------------------------


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port of every local address whose listener takes connections and never says a word."""
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        sock.listen(64)
        yield sock.getsockname()[1]


def test_the_second_host_is_tried_where_the_first_swallows_packets(database: DatabaseFactory, black_hole: int) -> None:
    one = database()
    dsn = one.dsn()
    dsn |= {"host": f"127.0.0.1,{dsn['host']}", "port": f"{black_hole},{dsn['port']}", "connect_timeout": 1}
    begun_s = time.monotonic()
    session = Session(one.name, dsn)
    session.connect()
    with closing(session):
        assert session.rows("SELECT inet_server_port()") == [(one.postgres.port,)]
        assert 0.9 < time.monotonic() - begun_s < 3
        assert session.reached["port"] == str(one.postgres.port), "for whoever connects to the same server"


def test_the_second_address_of_a_name_is_tried(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch, black_hole: int
) -> None:
    one = database()
    mute = socket.create_server(("127.0.0.9", one.postgres.port))
    resolve = socket.getaddrinfo

    def two_addresses(host: str | bytes, *rest: Any, **more: Any) -> list[Any]:
        if host not in ("postgres.test", b"postgres.test"):
            return list(resolve(host, *rest, **more))
        return [entry for ip in ("127.0.0.9", "127.0.0.1") for entry in resolve(ip, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    session = Session(one.name, {**one.dsn(), "host": "postgres.test"}, connect_s=0.5)
    with closing(mute), closing(session):
        session.connect()
        assert session.reached["hostaddr"] == "127.0.0.1"
        assert session.reached["host"] == "postgres.test", "certificates are of the name"


@pytest.mark.parametrize("answers", [False, True])
def test_a_silent_server_is_told_apart_from_a_database_that_nobody_answers_for(answers: bool) -> None:
    """A pooler says that it is there, and lets us wait for the database; a stopped server says nothing to anybody."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        listener.settimeout(0.05)
        with ExitStack() as clients:
            while not over.is_set():
                with suppress(TimeoutError):
                    client = clients.enter_context(listener.accept()[0])
                    if answers and client.recv(8) == struct.pack("!ii", 8, 80877103):
                        client.sendall(b"N")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        dsn = {"host": "127.0.0.1", "port": listener.getsockname()[1], "dbname": "any", "user": "odoo"}
        with pytest.raises(DatabaseUnavailable, match="does not answer") as caught:
            Session("any", dsn, connect_s=0.3).connect()
        over.set()
        thread.join()
    assert isinstance(caught.value, ServerDown) is not answers


def test_no_address_answers(black_hole: int) -> None:
    """Each is named."""
    dsn = {"host": "127.0.0.1,127.0.0.2", "port": black_hole, "dbname": "any", "user": "odoo"}
    with pytest.raises(DatabaseUnavailable) as caught:
        Session("any", dsn, connect_s=0.2).connect()
    assert "0.2 s at 127.0.0.1; " in str(caught.value)
    assert str(caught.value).endswith("0.2 s at 127.0.0.2")


def test_the_coordinator_is_waited_for_as_long_as_any_server(black_hole: int) -> None:
    coordinator = Coordinator({"host": "127.0.0.1", "port": black_hole, "connect_timeout": 1}, "c", lambda: None)
    begun_s = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match=r"no connection within 1 s at 127\.0\.0\.1"):
        coordinator.connect()
    assert time.monotonic() - begun_s < 3


def test_gone_is_what_every_address_says(postgres: ThrowawayPostgres, black_hole: int) -> None:
    dsn = {**postgres.dsn("nowhere"), "host": "127.0.0.1,127.0.0.1"}
    with pytest.raises(DatabaseGone):
        Session("nowhere", dsn).connect()
    with pytest.raises(DatabaseError) as caught:
        Session("nowhere", {**dsn, "port": f"{postgres.port},{black_hole}"}, connect_s=0.2).connect()
    assert not isinstance(caught.value, DatabaseGone)


def test_a_list_of_hosts_leads_to_the_one_that_can_be_written_to() -> None:
    """The old primary is back as a standby and stands first."""
    with ThrowawayPostgres() as primary, ExitStack() as stack:
        primary.create_database("db")
        standby = stack.enter_context(Replica(primary))
        dsn = {**primary.dsn("db"), "host": "127.0.0.1,127.0.0.1"}
        session = Session("db", {**dsn, "port": f"{standby.port},{primary.port}"})
        session.connect()
        with closing(session):
            assert session.rows("SELECT pg_is_in_recovery(), inet_server_port()") == [(False, primary.port)]
        asked = {**dsn, "port": f"{primary.port},{standby.port}", "target_session_attrs": "standby"}
        session = Session("db", asked)
        session.connect()
        with closing(session):
            assert session.rows("SELECT inet_server_port()") == [(standby.port,)], "as the configuration says"
        # No server can be written to: any will do, so that whoever asks it says what is wrong.
        session = Session("db", {**dsn, "port": f"{standby.port},{standby.port}"})
        session.connect()
        with closing(session):
            assert session.rows("SELECT pg_is_in_recovery()") == [(True,)]


# -- old servers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [100023, 150004])
def test_what_the_commands_ask_an_old_server_means_the_same(database: DatabaseFactory, version: int) -> None:
    """PostgreSQL 10 and 11 do not know MATERIALIZED; they always do it."""
    one = database()
    (uuid,) = one.insert_jobs(1)
    listing = statements.for_version(
        statements.LIST_JOBS.format(dependencies="NULL::text", rank="job.priority", kept="NOT MATERIALIZED"), version
    )
    putting = statements.for_version(statements.REQUEUE.format(idle=statements.IDLE), version)
    assert ("MATERIALIZED" in listing + putting) is (version >= 120000)
    assert "starts_with" not in listing, "PostgreSQL 11 and later"
    one.execute("UPDATE queue_job SET state = 'enqueued'")
    rows = one.execute(listing, {"uuids": None, "states": None, "channel": "root", "limit": 5, "places": True})
    assert [row[0] for row in rows] == [uuid]
    moved = one.execute(putting, {"uuids": None, "states": ["enqueued"], "channel": None, "older_than_s": None})
    assert moved == [(uuid, "enqueued", True)]


# -- answers that are long -------------------------------------------------------------------------------------

#: Comes a piece at a time, for three seconds, and never pauses for one.
TRICKLE = "SELECT repeat('x', 10000), pg_sleep(0.1) FROM generate_series(1, 30)"


def test_a_long_answer_has_heartbeats_and_a_deadline_while_it_comes(database: DatabaseFactory) -> None:
    """A worker that reads for longer than hang_timeout was taken for one that hangs."""
    one = database()
    beats: list[float] = []
    session = Session(one.name, one.dsn(), Waiter(lambda: beats.append(time.monotonic())))
    with closing(session):
        session.connect()
        beats.clear()
        assert len(session.rows(TRICKLE)) == 30
        assert len(beats) in (2, 3, 4), "one a second"
        begun_s = session.deadline_s = time.monotonic()
        session.deadline_s += 1.5
        with pytest.raises(DatabaseUnavailable, match="no answer within"):
            session.rows(TRICKLE)
        assert time.monotonic() - begun_s < 2
