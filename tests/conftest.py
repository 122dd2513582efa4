"""Fixtures: one PostgreSQL cluster for the session, a database, a stand-in Odoo and a supervisor each test.

A missing PostgreSQL is an error, never a reason to skip. QJS_PG_BINDIR chooses another one than the wheel's.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import extensions
from structlog.testing import capture_logs
from structlog.typing import EventDict

from qjsupervisor.testing import schema as schema_module
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.schema import Schema
from qjsupervisor.testing.stand_in import StandIn
from tests.helpers import Database, FakeClock, Supervisor

# A shell without job control starts what it puts in the background with SIGINT ignored, and that is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)

DatabaseFactory = Callable[..., Database]
StandInFactory = Callable[..., StandIn]
SupervisorFactory = Callable[..., Supervisor]

#: A time zone that nobody mistakes for UTC: queue_job's timestamps are UTC whatever the session's is.
_SETTINGS: Mapping[str, str | int] = {"timezone": "<+0545>-5:45", "max_connections": 400}
_LATEST = Schema()
_supervisors = pytest.StashKey[list[Supervisor]]()


@pytest.fixture(scope="session")
def postgres() -> Iterator[ThrowawayPostgres]:
    """The session's cluster. A test that stops or kills it makes its own: ThrowawayPostgres()."""
    with ThrowawayPostgres(settings=_SETTINGS) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def template(postgres: ThrowawayPostgres) -> str:
    """A template database with queue_job as 18.0.4 installs it."""
    name = "qjs_template"
    postgres.create_database(name)
    with closing(postgres.connect(name)) as connection:
        schema_module.install(connection)
    postgres.make_template(name)
    return name


@pytest.fixture
def database(postgres: ThrowawayPostgres, template: str) -> Iterator[DatabaseFactory]:
    """Makes databases: database(), database("prod_a"), database(schema=Schema(...)).

    schema=None: Odoo without queue_job. They are dropped at the end.
    """
    made: list[Database] = []

    def make(name: str | None = None, *, schema: Schema | None = _LATEST) -> Database:
        name = name or f"db_{secrets.token_hex(4)}"
        postgres.create_database(name, template if schema == _LATEST else None)
        new = Database(postgres, name)
        made.append(new)
        if schema is None:
            schema_module.install_base(new.connection)
        elif schema != _LATEST:
            schema_module.install(new.connection, schema)
        return new

    yield make
    for one in made:
        one.drop()


@pytest.fixture
def connection(database: DatabaseFactory) -> extensions.connection:
    """A session of the role `odoo` in a database with queue_job, in autocommit."""
    return database().connection


@pytest.fixture
def stand_in(postgres: ThrowawayPostgres) -> Iterator[StandInFactory]:
    """Starts stand-in Odoos: stand_in(workers=2, auth="user:password", ...); all end with the test."""
    started: list[StandIn] = []

    def start(cluster: ThrowawayPostgres = postgres, **options: Any) -> StandIn:
        new = StandIn(cluster, **options)
        started.append(new)
        return new.start()

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def odoo(stand_in: StandInFactory) -> StandIn:
    """A stand-in Odoo with eight workers."""
    return stand_in()


@pytest.fixture
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SupervisorFactory]:
    """Starts supervisors: supervisor(conf_text_or_path, env={...}, arguments=[...]).

    All of them end with the test.
    """
    started = request.node.stash.setdefault(_supervisors, [])

    def start(conf: str | Path, env: Mapping[str, str] | None = None, arguments: Sequence[str] = ()) -> Supervisor:
        new = Supervisor(conf, tmp_path, env, arguments)
        started.append(new)
        return new.start()

    yield start
    for one in started:
        one.close()


@pytest.fixture
def log_events() -> Iterator[list[EventDict]]:
    """What this process logs; does not cross a fork."""
    with capture_logs() as events:
        yield events


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of a failed test's supervisors."""
    report = yield
    if report.failed:
        for one in item.stash.get(_supervisors, []):
            report.sections.append((f"log of supervisor {one.log.name}", one.tail(200)))
    return report
