"""The stream of jobs: kinds of jobs by weight, each a small batch for one database."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from qjsupervisor.testing import jobs

from . import rules
from .rules import Rules
from .world import World

SEQUENTIAL = "root.seq"

Kind = Callable[[random.Random], Mapping[str, Any]]


def _short(chance: random.Random) -> Mapping[str, Any]:
    return {"count": chance.randint(1, 4), "kwargs": {"sleep": chance.uniform(0.0, 0.2)}}


def _burst(chance: random.Random) -> Mapping[str, Any]:
    return {"count": chance.randint(10, 30), "kwargs": {"sleep": chance.uniform(0.0, 0.05)}}


def _urgent(chance: random.Random) -> Mapping[str, Any]:
    return {"count": chance.randint(1, 3), "priority": chance.randint(0, 20), "kwargs": {"sleep": 0.05}}


def _later(chance: random.Random) -> Mapping[str, Any]:
    return {"count": chance.randint(1, 5), "eta_s": chance.uniform(0.2, 4.0), "kwargs": {"sleep": 0.02}}


def _slow(chance: random.Random) -> Mapping[str, Any]:
    return {"count": 1, "channel": "root.slow", "kwargs": {"sleep": chance.uniform(0.3, 1.2)}}


def _sequential(chance: random.Random) -> Mapping[str, Any]:
    retry = chance.choice((0, 0, 0, 1))
    return {"count": chance.randint(1, 2), "channel": SEQUENTIAL, "kwargs": {"sleep": 0.05, "retry": retry}}


def _failing(chance: random.Random) -> Mapping[str, Any]:
    return {"count": 1, "channel": chance.choice(("root", "root.slow")), "kwargs": {"fail": True}}


def _retrying(chance: random.Random) -> Mapping[str, Any]:
    return {"count": 1, "kwargs": {"retry": chance.randint(1, 2), "retry_s": chance.uniform(0.1, 1.0)}}


def _dying(_chance: random.Random) -> Mapping[str, Any]:
    return {"count": 1, "kwargs": {"die": 1, "sleep": 0.05}}


def _failing_in_sequence(_chance: random.Random) -> Mapping[str, Any]:
    """Nothing of its channel may start in any database until somebody has set it to done (`clear`)."""
    return {"count": 1, "channel": SEQUENTIAL, "kwargs": {"fail": True, "cleared": True, "sleep": 0.05}}


def _long(chance: random.Random) -> Mapping[str, Any]:
    """Its Python goes on, whatever happens to PostgreSQL."""
    return {"count": 1, "kwargs": {"sleep": chance.uniform(5.0, 20.0)}}


def _paced(chance: random.Random) -> Mapping[str, Any]:
    return {"count": chance.randint(2, 8), "channel": rules.PACED, "kwargs": {"sleep": chance.uniform(0.0, 0.1)}}


def _kept(chance: random.Random) -> Mapping[str, Any]:
    return {"count": chance.randint(1, 3), "channel": rules.KEPT, "kwargs": {"sleep": chance.uniform(0.1, 0.5)}}


#: Not in the database that is dropped: what failed there would be forgotten, and what runs there be let go.
_NOT_IN_SCRATCH = (_failing_in_sequence, _long)
KINDS: dict[Kind, int] = {
    _short: 30,
    _burst: 8,
    _urgent: 15,
    _later: 10,
    _slow: 12,
    _sequential: 8,
    _failing: 5,
    _retrying: 8,
    _dying: 2,
    _failing_in_sequence: 2,
    _long: 2,
    _paced: 12,
    _kept: 6,
}


def insert(world: World) -> int:
    """One batch; how many jobs. psycopg2.Error where there is no PostgreSQL or database at the moment."""
    chance = world.chance
    name = chance.choice(world.names)
    (kind,) = chance.choices(list(KINDS), list(KINDS.values()))
    if (kind in _NOT_IN_SCRATCH and name == world.scratch) or (kind is _long and not world.kind.long):
        return 0
    if kind in (_paced, _kept) and world.kind.rules is Rules.NONE:
        return 0
    batch = dict(kind(chance))
    if name in world.deaf and batch.get("channel") == SEQUENTIAL:
        return 0
    with world.session(name) as connection:
        # No limit of tries: faults use some up that the job did not ask for.
        return len(jobs.insert_jobs(connection, batch.pop("count"), max_retries=0, **batch))


def clear(world: World) -> None:
    """Somebody sets to done what failed in the sequential channel. psycopg2.Error as above."""
    for name in world.names[:-1]:
        with world.session(name) as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE queue_job SET state = 'done' WHERE channel = %s AND state = 'failed'", (SEQUENTIAL,))
