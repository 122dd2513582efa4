"""Checks the demo's results: each finding is one line for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from psycopg2 import extensions

from ..testing.odoo_stats import Stats
from . import work

#: Row: number of jobs that began before they were due.
_EARLY = "SELECT count(*) FROM queue_job WHERE date_started < eta"
#: Rows: uuid, in the order the channel must keep.
_ORDER = "SELECT uuid FROM queue_job WHERE channel = %s ORDER BY priority, date_created, id"


def findings(done: work.Work, connections: Mapping[str, extensions.connection], stats: Stats) -> Iterator[str]:
    """Yield what is wrong; nothing if all is well."""
    yield from _wrong_states(done, connections)
    yield from _wrong_runs(done, stats)
    yield from _over_capacity(stats)
    yield from _out_of_order(connections, stats)
    for database, connection in connections.items():
        with connection.cursor() as cursor:
            cursor.execute(_EARLY)
            ((early,),) = cursor.fetchall()
            if early:
                yield f"{database}: {early} jobs began before they were due"


def _wrong_states(done: work.Work, connections: Mapping[str, extensions.connection]) -> Iterator[str]:
    wrong: Counter[tuple[str, str, str, str]] = Counter()
    for database, uuid, state in work.states(connections):
        batch = done.batches[database, uuid]
        if state != batch.state:
            wrong[database, batch.about, state, batch.state] += 1
    for (database, about, state, wanted), count in wrong.items():
        yield f"{database}: {count} of the jobs '{about}' are {state}, not {wanted}"


def _wrong_runs(done: work.Work, stats: Stats) -> Iterator[str]:
    wrong: Counter[tuple[str, str, int, int]] = Counter()
    for (database, uuid), batch in done.batches.items():
        runs = stats["executions"].get(database, {}).get(uuid, 0)
        if runs != batch.runs:
            wrong[database, batch.about, runs, batch.runs] += 1
    for (database, about, runs, wanted), count in wrong.items():
        yield f"{database}: {count} of the jobs '{about}' were run {runs} times, not {wanted}"


def _over_capacity(stats: Stats) -> Iterator[str]:
    for channel, capacity in work.CAPACITIES.items():
        peak = stats["peak"].get(channel, 0)
        if peak > capacity:
            yield f"{channel}: {peak} jobs at once, more than its capacity of {capacity}"


def _out_of_order(connections: Mapping[str, extensions.connection], stats: Stats) -> Iterator[str]:
    for database, connection in connections.items():
        with connection.cursor() as cursor:
            cursor.execute(_ORDER, (work.SEQUENTIAL,))
            wanted = [uuid for (uuid,) in cursor]
        runs = (run for run in stats["runs"] if run["database"] == database)
        if wanted != [run["uuid"] for run in runs if run["channel"] == work.SEQUENTIAL]:
            yield f"{database}: the jobs of the sequential channel {work.SEQUENTIAL} were not run in order"
