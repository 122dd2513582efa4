"""The scout against a real PostgreSQL: what it lists, what it finds, and that nothing holds it up."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.control import MAX_FRAME_BYTES, Message, Pipe, encode
from qjsupervisor.errors import DatabaseUnavailable
from qjsupervisor.postgres.eligibility import Verdict
from qjsupervisor.scout import scout as scout_module
from qjsupervisor.scout.probe import Probe, probe
from qjsupervisor.scout.scout import list_databases, run_scout, scan
from qjsupervisor.states import Mode
from qjsupervisor.testing import schema as schemas
from qjsupervisor.testing.postgres import ThrowawayPostgres
from tests.conftest import DatabaseFactory
from tests.helpers import odoo_conf, wait_until

Configure = Callable[..., Config]


@pytest.fixture
def configure(postgres: ThrowawayPostgres, tmp_path: Path) -> Configure:
    """configure(databases_exclude="x*"): a configuration for the session's cluster."""

    def make(db_name: str | None = None, **own: object) -> Config:
        path = tmp_path / "odoo.conf"
        path.write_text(odoo_conf(postgres, 8069, db_name=db_name, sections={"qjsupervisor": own}))
        return load({"config": str(path)}, {})

    return make


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port whose listener takes connections and never says a word."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        yield sock.getsockname()[1]


def look(postgres: ThrowawayPostgres, name: str, mode: Mode = Mode.SERVER_WIDE, **dsn: Any) -> Probe:
    return probe(name, {**postgres.dsn(name), **dsn}, mode, ask_leader=True)


def scanned(config: Config, timeout_s: float = 30.0) -> dict[str, Probe]:
    found = scan(config, list_databases(config), time.monotonic() + timeout_s)
    return {each.database: each for each in found}


# -- listing -------------------------------------------------------------------------------------------------


def test_lists_as_odoo_does(postgres: ThrowawayPostgres, database: DatabaseFactory, configure: Configure) -> None:
    names = [database(name).name for name in ("b_second", "a_first", "c'quote", 'd"ouble', "e %s ümlaut")]
    foreign = "not_ours"
    postgres.execute("postgres", f"CREATE DATABASE {foreign}", superuser=True)
    try:
        listed = list_databases(configure())
    finally:
        postgres.execute("postgres", f"DROP DATABASE {foreign}", superuser=True)
    assert listed == sorted(listed)
    assert set(names) <= set(listed)
    assert not {"postgres", "template0", "template1", "qjs_template", foreign} & set(listed)


def test_globs_choose(database: DatabaseFactory, configure: Configure) -> None:
    for name in ("prod_a", "prod_b", "prod_test", "other"):
        database(name)
    config = configure(databases_include="prod_*", databases_exclude="*_test")
    assert [name for name in list_databases(config) if "_" in name] == ["prod_a", "prod_b"]
    assert list_databases(configure("prod_b,prod_test,other", databases_include="prod_*")) == ["prod_b", "prod_test"]


def test_listing_without_a_server_is_an_error(configure: Configure) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"password authentication failed|does not exist|refused"):
        list_databases(
            load({}, {"ODOO_QUEUE_JOB_JOBRUNNER_DB_HOST": "127.0.0.1", "ODOO_QUEUE_JOB_JOBRUNNER_DB_PORT": "1"})
        )


# -- probing -------------------------------------------------------------------------------------------------


def test_odd_text_in_the_catalog_is_survived(postgres: ThrowawayPostgres, configure: Configure) -> None:
    superuser = postgres.connect("postgres", superuser=True)
    with closing(superuser), superuser.cursor() as cursor:
        cursor.execute(
            "CREATE DATABASE odd ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' "
            f"OWNER {postgres.user}"
        )
        try:
            with closing(postgres.connect("odd")) as connection:
                schemas.install(connection)
            found = look(postgres, "odd")
            assert found.verdict is Verdict.READY
            assert "SQL_ASCII" in found.warnings[0]
            assert "odd" in list_databases(configure())
        finally:
            cursor.execute("DROP DATABASE odd WITH (FORCE)")


# -- nothing holds it up -------------------------------------------------------------------------------------


def test_a_locked_database_does_not_delay_the_others(
    postgres: ThrowawayPostgres, database: DatabaseFactory, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, free = database("locked"), database("free")
    with closing(postgres.connect("locked")) as upgrade, upgrade.cursor() as cursor:
        upgrade.autocommit = False
        cursor.execute("LOCK TABLE ir_module_module IN ACCESS EXCLUSIVE MODE")
        begun = time.monotonic()
        found = scan(configure("locked,free"), ["locked", "free"], begun + 3)
        first = next(found)
        assert (first.database, first.verdict) == (free.name, Verdict.READY)
        assert time.monotonic() - begun < 1
        (second,) = found
        assert (second.database, second.verdict) == (locked.name, Verdict.UNREACHABLE)
        assert time.monotonic() - begun < 4


def test_a_silent_host_costs_its_own_time_only(
    postgres: ThrowawayPostgres, database: DatabaseFactory, configure: Configure, black_hole: int
) -> None:
    good = database().name
    uris = ",".join(f"postgresql://127.0.0.1:{black_hole}/silent{number}" for number in range(3))
    config = configure(f"{uris},{good}", connect_timeout=2)
    names = list_databases(config)
    begun = time.monotonic()
    found = scan(config, names, begun + 20)
    assert next(found).database == good
    assert time.monotonic() - begun < 2, "it waits for none of them"
    rest = list(found)
    assert {each.verdict for each in rest} == {Verdict.UNREACHABLE}
    (reason,) = {each.reason for each in rest}
    assert reason is not None
    assert reason.endswith(" cannot be reached: it does not answer: no connection within 2 s at 127.0.0.1")
    assert {each.server_down for each in rest} == {f"127.0.0.1:{black_hole}"}
    assert time.monotonic() - begun < 6, "one after the other would take that long"


def test_a_frozen_server() -> None:
    with ThrowawayPostgres() as frozen:
        frozen.create_database("one")
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            found = probe("one", frozen.dsn("one"), Mode.SERVER_WIDE, connect_s=0.5)
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
    assert found.verdict is Verdict.UNREACHABLE
    assert found.reason is not None
    assert "no connection within 0.5 s" in found.reason


def test_many_databases_few_connections(
    postgres: ThrowawayPostgres, database: DatabaseFactory, configure: Configure
) -> None:
    names = [database().name for _ in range(6)]
    config = configure(",".join([*names, *(f"missing{number}" for number in range(100))]))
    found = scanned(config)
    assert sum(each.verdict is Verdict.READY for each in found.values()) == 6
    assert sum(each.verdict is Verdict.ABSENT for each in found.values()) == 100


# -- what it tells -------------------------------------------------------------------------------------------


def told(config: Config) -> list[Message]:
    ours, theirs = Pipe.pair()
    with closing(ours), closing(theirs):
        assert run_scout(config, theirs) == 0
        return ours.receive_all()


def test_messages(database: DatabaseFactory, configure: Configure) -> None:
    name = database().name
    messages = told(configure(f"{name},missing"))
    assert messages[0] == {"listed": [name, "missing"]}
    assert messages[-1] == {"done": True}
    verdicts = {each["database"]: each["verdict"] for each in messages[1:-1]}
    assert verdicts == {name: "ready", "missing": "absent"}
    details = next(each["details"] for each in messages[1:-1] if each["database"] == name)
    assert details["module_state"] == "installed"
    assert "password" not in str(messages)


def test_an_error_is_told(configure: Configure) -> None:
    (message,) = told(configure(maintenance_db="no_such_database"))
    assert message["error"].startswith("the databases cannot be listed: ")
    assert "no_such_database" in message["error"]


# -- what a database's owner can write -----------------------------------------------------------------------


def test_a_database_that_says_much_costs_itself_only(database: DatabaseFactory, configure: Configure) -> None:
    """A module's state of 100,000 characters would not fit into a message."""
    loud, quiet = database(), database()
    loud.execute("ALTER TABLE ir_module_module ALTER COLUMN state TYPE varchar")
    loud.execute("UPDATE ir_module_module SET state = repeat('x', 100000) WHERE name = 'queue_job'")
    messages = told(configure(f"{loud.name},{quiet.name}"))
    assert {each["database"] for each in messages if "database" in each} == {loud.name, quiet.name}
    assert max(len(encode(each)) for each in messages) < MAX_FRAME_BYTES / 10
    assert messages[-1] == {"done": True}


def test_whatever_goes_wrong_with_one_database_is_its_verdict(
    database: DatabaseFactory, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, good = database(), database()

    def fault(name: str, *arguments: Any, **options: Any) -> Probe:
        if name == odd.name:
            raise ZeroDivisionError("nobody thought of this")
        return probe(name, *arguments, **options)

    monkeypatch.setattr(scout_module, "probe", fault)
    found = scanned(configure(f"{odd.name},{good.name}"))
    assert found[good.name].verdict is Verdict.READY
    assert found[odd.name].verdict is Verdict.UNREACHABLE
    assert "ZeroDivisionError: nobody thought of this" in str(found[odd.name].reason)


def test_names_that_fill_more_than_a_message(configure: Configure) -> None:
    """Six bytes for each control character."""
    names = [f"{number:03}" + "\x01" * 60 for number in range(400)]
    parts = list(scout_module._in_parts(names))
    assert [name for part in parts for name in part] == names
    assert len(parts) > 1
    assert all(len(encode({"listed": part})) <= MAX_FRAME_BYTES for part in parts)


def test_a_scan_goes_on_with_what_the_last_one_had_no_time_for(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []

    def slow(name: str, *_: Any, **__: Any) -> Probe:
        looked_at.append(name)
        threading.Event().wait(0.05)
        return Probe(database=name, verdict=Verdict.READY, reason=None)

    monkeypatch.setattr(scout_module, "probe", slow)
    names = [f"d{number:03}" for number in range(100)]
    config = configure(",".join(names))
    rest = [
        each.database
        for each in scan(config, names, time.monotonic() + 0.15)
        if each.reason == scout_module.NOT_LOOKED_AT
    ]
    assert rest
    wait_until(lambda: len(looked_at) == len(names), "the threads of the first scan are through")
    del looked_at[:]
    list(scan(config, names, time.monotonic() + 10, first=rest))
    assert set(looked_at[: len(rest)]) == set(rest)


def test_scans_that_get_to_a_few_get_to_all_in_turn(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has time for less than half of them: two groups took turns, and the others were never served."""
    hold = threading.Event()
    seen: set[str] = set()
    left = 0

    def look(name: str, *_: Any, **__: Any) -> Probe:
        nonlocal left
        left -= 1
        if left < 0:
            hold.wait(20)
        return Probe(database=name, verdict=Verdict.READY, reason=None)

    monkeypatch.setattr(scout_module, "probe", look)
    monkeypatch.setattr(scout_module, "PARALLEL", 1)
    names = [f"d{number:02}" for number in range(12)]
    config = configure(",".join(names))
    first: list[str] = []
    try:
        for _ in range(4):
            left = 3
            found = list(scan(config, names, time.monotonic() + 0.2, first=first))
            first = [each.database for each in found if each.reason == scout_module.NOT_LOOKED_AT]
            seen.update(set(names) - set(first))
    finally:
        hold.set()
    assert seen == set(names)


def test_threads_that_cannot_be_started(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is enough for a scan; without any it is the listing that fails, with the limit's name."""
    start, left = threading.Thread.start, 1

    def refuse(thread: threading.Thread) -> None:
        nonlocal left
        if not left:
            raise RuntimeError("can't start new thread")
        left -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    def ready(name: str, *_: Any, **__: Any) -> Probe:
        return Probe(database=name, verdict=Verdict.READY, reason=None)

    monkeypatch.setattr(scout_module, "probe", ready)
    config = configure("a,b,c")
    assert len(list(scan(config, ["a", "b", "c"], time.monotonic() + 5))) == 3
    (message,) = [each for each in told(config) if "error" in each]
    assert "ulimit -u" in message["error"]
