"""Waits until all is drained, and judges the run from PostgreSQL's record and the stand-in's."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg2

from qjsupervisor.testing.odoo_stats import Run

from ..helpers import wait_until
from . import counts, obeyed, record
from .fault import CANNOT
from .record import ODD, Change
from .rules import Rules
from .work import SEQUENTIAL
from .world import CAPACITIES, World

_OUR_NAME = "qjsupervisor"
#: Rows: (uuid, id, state, kwargs) of the jobs that count.
_JOBS = "SELECT uuid, id, state, kwargs::text FROM queue_job WHERE name IS DISTINCT FROM %s"
_LEFT = """
SELECT coalesce(channel, ''), state, count(*), min(id) FROM queue_job
 WHERE name IS DISTINCT FROM %s AND (state NOT IN ('done', 'failed') OR state = 'failed' AND channel = %s)
 GROUP BY 1, 2 ORDER BY 1, 2
"""
_SHOWN = 10
_PATIENCE = 4
_READ_S = 300.0


class Job(NamedTuple):
    uuid: str
    id: int
    state: str
    kwargs: dict[str, Any]


def judge(world: World, drain_s: float, turn: Callable[[], None], say: Callable[[str], None]) -> list[str]:
    """The violations; `turn` is called while it waits."""
    began_s = time.monotonic()
    found = list(unless(world, _left, "still there", drain_s, turn))
    say(f"drained after {time.monotonic() - began_s:.1f} s" if not found else "NOT drained")
    found += unless(world, _unrest, "at rest", drain_s, turn)
    say(f"at rest after {time.monotonic() - began_s:.1f} s")
    world.keep_runs()
    return found + judge_runs(world, world.names, say)


def judge_runs(world: World, names: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """What was violated, as far as these databases' records and the stand-in's show it."""
    found = list(world.violations)
    found += _short(
        f"a process ended with a traceback: {line['reason']}"
        for place in world.places
        for line in place.supervisor.log_events("child_failed")
    )
    (world.folder / "runs").write_text("\n".join(map(str, world.runs)))
    sent = counts.dispatches(world)
    changes: dict[str, list[Change]] = {}
    rows: list[counts.Step] = []
    for name in names:
        changes[name], jobs = _read(world, name)
        (world.folder / f"{name}.record").write_text("\n".join(map(str, changes[name])))
        rows += counts.row_steps(world, name, changes[name], sent)
        found += _short(_runs_of(world, name, jobs, changes[name]))
        found += _short(_order(world, name, changes[name]))
    for what, steps in (("rows enqueued or started", rows), ("jobs in Odoo", list(counts.run_steps(world)))):
        peaks, over = counts.count(world, steps)
        said = ", ".join(f"{peaks.get(name, counts.Peak()).held} in {name}" for name in CAPACITIES)
        say(f"{what}, at most: {said}")
        found += _short(f"{what}: {each}" for each in over)
        found += _short(f"{what}: {each}" for each in obeyed.shares(world, steps))
    say(f"the rate was used up in {obeyed.full_windows(world)} windows")
    found += _short(obeyed.rate(world))
    found += _short(counts.past_failed(changes))
    again = sum(each.former == "started" and each.state == "pending" for name in names for each in changes[name])
    say(f"{len(world.runs)} runs seen by Odoo; {again} times a job was to run again")
    found += _short(_twice_at_once(world))
    return found


# -- waiting -----------------------------------------------------------------------------------------------------


def unless(
    world: World, look: Callable[[World], list[str]], what: str, limit_s: float, turn: Callable[[], None]
) -> list[str]:
    """What `look` still finds when that has not changed for `limit_s`, or is not over after _PATIENCE times that."""
    began_s = changed_s = time.monotonic()
    before: list[str] = []
    while True:
        turn()
        try:
            found = look(world)
        except CANNOT as error:
            found = [f"{type(error).__name__}: {error}"]
        now_s = time.monotonic()
        if found != before:
            before, changed_s = found, now_s
        if not found or now_s >= changed_s + limit_s or now_s >= began_s + _PATIENCE * limit_s:
            return [f"{what} after {now_s - began_s:.0f} s: {each}" for each in found]


def _read(world: World, name: str) -> tuple[list[Change], list[Job]]:
    """A database's record and jobs; read again where the server did not answer in time."""
    found: list[tuple[list[Change], list[Job]]] = []

    def is_read() -> bool:
        with suppress(psycopg2.Error), world.session(name) as connection, connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '60s'")
            changes = record.read(connection)
            cursor.execute(_JOBS, (ODD,))
            found.append((changes, [Job(uuid, n, state, json.loads(kwargs)) for uuid, n, state, kwargs in cursor]))
        return bool(found)

    wait_until(is_read, f"the record of {name} is read", _READ_S)
    return found[0]


def _left(world: World) -> list[str]:
    found = []
    for name in world.names:
        with world.session(name) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.05)")
            cursor.execute(_LEFT, (ODD, SEQUENTIAL))
            found += [f"{name}: {number} {state} in {channel}, id {first}" for channel, state, number, first in cursor]
    return found


def _unrest(world: World) -> list[str]:
    """What `status` shows that should not be."""
    found = []
    seen: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for status in (place.supervisor.status() for place in world.places):
        for each in status["databases"]:
            seen[each["name"]].append(each)
        found += [f"{each['name']}: {each['running']} permits held" for each in status["channels"] if each["running"]]
        found += [f"paused: {each}" for each in status["pauses"]]
        for member in (status["cluster"] or {"members": []})["members"]:
            found += [f"limbo of {member['pid']}: {member['limbo']}"] if member["limbo"] else []
    found += [f"{name}: {each['running']} jobs run" for name in seen for each in seen[name] if each["running"]]
    for name in world.names:
        # One that is asleep is so for each supervisor: nobody holds its lock.
        states = sorted("standby" if each.get("phase") == "asleep" else each["state"] for each in seen[name])
        if states == ["standby"] * len(world.places) and any(each.get("phase") == "asleep" for each in seen[name]):
            continue
        if states != ["ready", *["standby"] * (len(world.places) - 1)]:
            found.append(f"{name} is {states}: {[each['last_error'] for each in seen[name]]}")
    return found


# -- what ran ----------------------------------------------------------------------------------------------------


def _runs_of(world: World, database: str, jobs: list[Job], changes: list[Change]) -> Iterator[str]:
    by_job: dict[int, list[Change]] = defaultdict(list)
    for change in changes:
        by_job[change.job].append(change)
    for job in jobs:
        for wrong in _job(world, database, job, by_job[job.id]):
            story = " ".join(f"{each.at_s % 1000:.2f}:{each.state}({each.who[:4]})" for each in by_job[job.id])
            yield f"{database}, job {job.id} {job.uuid} {job.kwargs}: {wrong}: {story}"


def _job(world: World, database: str, job: Job, changes: list[Change]) -> Iterator[str]:
    """It ran once, and again only where it asked for it or where its run was ended by a fault."""
    fails = job.kwargs.get("fail") and not job.kwargs.get("cleared")
    if job.state != ("failed" if fails else "done"):
        yield f"is {job.state}"
    retries = deaths = runs = 0
    started_s: float | None = None
    for change in changes:
        if change.state == "started":
            runs += 1
            started_s = change.at_s
        elif change.former == "started" and started_s is not None:
            if change.who != _OUR_NAME:
                retries += change.state == "pending"
            elif not _interrupted(world, database, job.uuid, started_s, change.at_s):
                deaths += 1
    if retries > job.kwargs.get("retry", 0):
        yield f"tried {retries} times more"
    if deaths > job.kwargs.get("die", 0):
        yield f"{deaths} runs taken for dead that nothing had ended"
    if not runs:
        yield "never ran"


def _interrupted(world: World, database: str, uuid: str, from_s: float, to_s: float) -> bool:
    return any(
        each.from_s <= to_s and each.to_s >= from_s and each.database in (None, database) and each.uuid in (None, uuid)
        for each in world.interruptions
    )


def _twice_at_once(world: World) -> Iterator[str]:
    """No job runs while it runs.

    Those whose session was ended are over for PostgreSQL before they know: they count where `dead_after_restart` does.
    """
    last: dict[tuple[str, str], Run] = {}
    for run in sorted(world.runs, key=lambda each: each["started_s"]):
        key = run["database"], run["uuid"]
        former = last.get(key)
        counts_anyway = world.kind.long and run["database"] != world.scratch
        if (
            former
            and (counts_anyway or former["outcome"] != "broken")
            and (former["finished_s"] or 0.0) > run["started_s"]
        ):
            yield f"{key}: ran twice at once"
        last[key] = run


def _order(world: World, database: str, changes: list[Change]) -> Iterator[str]:
    """The sequential channel's jobs were inserted in the order of their ids, with one priority.

    With ageing a job that asked to be retried at an eta counts from that, and others go before it.
    """
    latest = 0
    later: set[int] = set()
    for change in changes:
        if change.channel != SEQUENTIAL or change.job in later:
            continue
        if world.kind.rules is not Rules.NONE and change.state == "pending" and change.who != _OUR_NAME:
            later.add(change.job)
        elif change.state == "started":
            if change.job < latest:
                yield f"{database}: {SEQUENTIAL}: job {change.job} started after {latest}"
            latest = max(latest, change.job)


def _short(found: Iterable[str]) -> list[str]:
    """The first few, and how many more."""
    everything = list(found)
    more = len(everything) - _SHOWN
    return everything[:_SHOWN] + ([f"... {more} more like these"] if more > 0 else [])
