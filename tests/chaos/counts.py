"""What counted at the same time, in the rows of all databases and in Odoo, against the capacities in force.

What may be there above capacity is what the rule of docs/architecture allows, and nothing else:

- A claim whose answer is late was sent to nobody, and its permit goes back after LATE_S. So the row of a job that was
  enqueued, never dispatched, and at last given back, counts only for so long.
- The jobs of a database that was dropped count while their requests are open. So they do not count in Odoo where the
  supervisor was killed meanwhile, or Odoo let the request go while the job went on.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from .record import BUSY, Change, path
from .work import SEQUENTIAL
from .world import World

#: When permits of a late claim go back, and what may be between our clocks and stamps.
LATE_S = 2.0
_STAMPS_S = 0.3
_OUR_NAME = "qjsupervisor"

Dispatches = Mapping[str, Sequence[float]]


class Step(NamedTuple):
    """One more (+1) or one less of a channel; `since_s`: when it was decided."""

    at_s: float
    change: int
    channel: str | None
    since_s: float
    database: str


class Peak(NamedTuple):
    held: int = 0
    at_s: float = 0.0


def count(world: World, steps: Iterable[Step]) -> tuple[dict[str, Peak], list[str]]:
    """The most at once in each channel, and what began although its channel was full. At one time, ends come first."""
    held: dict[str, int] = defaultdict(int)
    peaks: dict[str, Peak] = {}
    over = []
    known = world.capacities[0][1]
    for step in sorted(steps, key=lambda step: step[:2]):
        for name in path(step.channel):
            held[name] += step.change
            if held[name] > peaks.get(name, Peak()).held:
                peaks[name] = Peak(held[name], step.at_s)
            if step.change > 0 and name in known:
                capacity = world.in_force(name, step.since_s, step.at_s)
                if held[name] > capacity:
                    over.append(f"{name}: {held[name]} at {step.at_s:.3f}, capacity {capacity}")
    return peaks, over


# -- rows ------------------------------------------------------------------------------------------------------------


def dispatches(world: World) -> Dispatches:
    """By uuid, when the supervisor says that it sent a job."""
    found: dict[str, list[float]] = defaultdict(list)
    for line in (line for place in world.places for line in place.supervisor.log_events("job_dispatched")):
        found[line["job_uuid"]].append(datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00")).timestamp())
    return found


def row_steps(world: World, database: str, changes: Sequence[Change], sent: Dispatches) -> Iterator[Step]:
    """Where rows of one database began and ceased to count."""
    by_job: dict[int, list[Change]] = defaultdict(list)
    for change in changes:
        by_job[change.job].append(change)
    for story in by_job.values():
        began: Change | None = None
        ran = False
        for change in story:
            if began is None and change.state in BUSY:
                began, ran = change, change.state == "started"
            elif began is not None:
                ran = ran or change.state == "started"
                if change.state not in BUSY:
                    yield from _counted(world, database, began, change, sent, ran=ran)
                    began = None
        if began is not None:
            yield Step(began.at_s, +1, began.channel, began.at_s, database)


def _counted(
    world: World, database: str, began: Change, ended: Change, sent: Dispatches, *, ran: bool
) -> Iterator[Step]:
    until_s = ended.at_s
    given_back = began.who == ended.who == _OUR_NAME and not ran
    if given_back and not any(began.at_s - 0.01 <= at_s <= ended.at_s + 0.01 for at_s in sent.get(began.uuid, ())):
        until_s = min(until_s, _claim_is_late_s(world, began.at_s))
    if until_s > began.at_s:
        yield Step(began.at_s, +1, began.channel, began.at_s, database)
        yield Step(until_s, -1, began.channel, until_s, database)


def _claim_is_late_s(world: World, at_s: float) -> float:
    """When the permit of a claim that the server made then went back, if no answer came.

    The claim was sent at the earliest when the answers began to be kept back.
    """
    sent_s = min((from_s for from_s, to_s in world.delays if from_s < at_s <= to_s + _STAMPS_S), default=at_s)
    return sent_s + LATE_S - _STAMPS_S


# -- Odoo ------------------------------------------------------------------------------------------------------------


def run_steps(world: World) -> Iterator[Step]:
    """Where runs in Odoo began and ended."""
    to_wall_s = time.time() - time.monotonic()
    for run in world.runs:
        if run["finished_s"] is None:
            continue
        received_s, started_s = run["received_s"] + to_wall_s, run["started_s"] + to_wall_s
        finished_s = run["finished_s"] + to_wall_s
        is_dropped = run["database"] == world.scratch and run["outcome"] == "broken"
        if is_dropped and any(
            each.database in (None, world.scratch) and each.from_s <= finished_s and each.to_s >= received_s
            for each in world.lapses
        ):
            continue
        yield Step(started_s, +1, run["channel"], received_s, run["database"])
        yield Step(finished_s, -1, run["channel"], finished_s, run["database"])


# -- the sequential channel --------------------------------------------------------------------------------------------


def past_failed(changes: Mapping[str, Sequence[Change]]) -> Iterator[str]:
    """Jobs of the sequential channel that were claimed while one had failed, in whichever database, and then run."""
    sequential = {name: [each for each in found if each.channel == SEQUENTIAL] for name, found in changes.items()}
    failed = [(name, *each) for name, found in sequential.items() for each in _failed(found)]
    for name, found in sequential.items():
        claimed_s: dict[int, float] = {}
        for change in found:
            if change.state == "enqueued":
                claimed_s[change.job] = change.at_s
            at_s = claimed_s.get(change.job, math.inf)
            if change.state == "started":
                for other, job, from_s, to_s in failed:
                    if from_s < at_s < to_s:
                        yield f"{name}: job {change.job} claimed at {at_s:.3f}, though {other}'s job {job} had failed"


def _failed(changes: Sequence[Change]) -> Iterator[tuple[int, float, float]]:
    """Jobs, from when to when they were `failed`."""
    since_s: dict[int, float] = {}
    for change in changes:
        if change.state == "failed":
            since_s[change.job] = change.at_s
        elif change.former == "failed":
            yield change.job, since_s.pop(change.job), change.at_s
    yield from ((job, from_s, math.inf) for job, from_s in since_s.items())
