"""Faults of databases, their rows and their notifications."""

from __future__ import annotations

from contextlib import suppress

import psycopg2

from qjsupervisor.testing import jobs

from .fault import CannotError
from .record import ODD
from .world import Heal, World

_HOSTILE = (
    "",
    "reload",
    "' OR 1=1; --",
    "../../web/session/logout",
    "\x1b[31mred\x1b[0m",
    "a\nb\r\nHost: evil",
    "%00%ff",
    "ü" * 3000,
    "00000000-0000-0000-0000-000000000000",
)
#: Of jobs under which a database is dropped, and how often they are looked at before.
_BUSY_JOB_S = 3.0
_LOOKS = 20


def hostile_payloads(world: World) -> None:
    with world.session(world.chance.choice(world.names)) as connection, connection.cursor() as cursor:
        for payload in world.chance.sample(_HOSTILE, 4):
            cursor.execute("SELECT pg_notify('queue_job', %s)", (payload,))


def odd_rows(world: World) -> None:
    """Rows of the strangest kinds; whether they run is no matter here."""
    rows: list[dict[str, object]] = [
        {"channel": None, "priority": None, "date_created": None},
        {"channel": "", "date_created": "infinity", "eta": "-infinity"},
        {"channel": "no.such\n channel", "priority": -2147483648},
        {"channel": "root." + "x" * 300, "kwargs": '"nonsense"'},
        {"uuid": ""},
        {"uuid": "x" * 5000},
        {"uuid": "twice & twice\n#"},
        {"state": "unheard of"},
        {"eta": "infinity", "retry": 2147483647, "max_retries": None},
    ]
    with world.session(world.chance.choice(world.names)) as connection:
        for row in world.chance.sample(rows, 4):
            jobs.insert_row(connection, **{"name": ODD, "retry": 0, "max_retries": 0, **row})


def missed_notification(world: World) -> tuple[float, Heal]:
    name = world.chance.choice(world.names)
    if name in world.deaf:
        raise CannotError("already")
    world.deaf.add(name)
    try:
        _set_trigger(world, name, "DISABLE")
    except psycopg2.Error:
        world.deaf.discard(name)
        raise
    with suppress(psycopg2.Error), world.session(name) as connection:
        jobs.insert_jobs(connection, 3, max_retries=0)
    return world.chance.uniform(0.1, 1.5), lambda: _set_trigger(world, name, "ENABLE")


def _set_trigger(world: World, name: str, verb: str) -> None:
    with world.session(name) as connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE queue_job {verb} TRIGGER queue_job_notify")
    if verb == "ENABLE":
        world.deaf.discard(name)


def drop_database(world: World) -> tuple[float, Heal]:
    _drop(world)
    return world.chance.uniform(0.0, 4.0), lambda: _make_again(world)


def drop_busy_database(world: World) -> tuple[float, Heal]:
    """It is dropped and made again at once, surely while jobs of it run."""
    with world.session(world.scratch) as connection:
        jobs.insert_jobs(connection, 4, priority=0, max_retries=0, kwargs={"sleep": _BUSY_JOB_S})
    return 0.2, lambda: _drop_while_busy(world, _LOOKS)


def _drop_while_busy(world: World, looks: int) -> tuple[float, Heal]:
    with world.session(world.scratch) as connection:
        busy = jobs.states(connection).get("started", 0)
    if looks and not busy:
        return 0.2, lambda: _drop_while_busy(world, looks - 1)
    _drop(world)
    return 0.0, lambda: _make_again(world)


def _drop(world: World) -> None:
    world.expect_answers()
    world.forget_session(world.scratch)
    world.postgres.drop_database(world.scratch)


def _make_again(world: World) -> None:
    world.expect_answers()
    with suppress(psycopg2.errors.DuplicateDatabase):
        world.make_database(world.scratch)
    with world.session(world.scratch) as connection:
        jobs.insert_jobs(connection, 4, max_retries=0, kwargs={"sleep": 0.2})
