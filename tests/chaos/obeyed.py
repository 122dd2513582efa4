"""Whether minimums, maximums and the rate were kept, by the rows and by what Odoo saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from . import rules
from .counts import Step
from .record import path
from .rules import Rules
from .world import World

#: One request may be on its way for so much longer than another.
_SEEN_LATER_S = 0.3


def shares(world: World, steps: Iterable[Step]) -> Iterator[str]:
    """What began although its database had its maximum, or took what is kept. At one time, ends come first."""
    if world.kind.rules is Rules.NONE:
        return
    by_database: Counter[str] = Counter()
    kept = others = 0
    for step in sorted(steps, key=lambda step: step[:2]):
        by_database[step.database] += step.change
        if is_guaranteed(world, step):
            kept += step.change
        else:
            others += step.change
        if step.change < 0:
            continue
        if by_database[step.database] > rules.MAXIMUM and step.database != world.scratch:
            yield f"{step.database}: {by_database[step.database]} at {step.at_s:.3f}, at most {rules.MAXIMUM}"
        capacity = world.in_force("root", step.since_s, step.at_s)
        if world.kind.supervisors == 1 and not is_guaranteed(world, step) and others + rules.MINIMUM > capacity:
            yield f"borrowed: {others} at {step.at_s:.3f}, {kept} of {rules.MINIMUM} reserved, capacity {capacity}"


def is_guaranteed(world: World, step: Step) -> bool:
    """Whether a minimum is reserved for it."""
    if world.kind.rules is Rules.CHANNEL:
        return rules.KEPT in path(step.channel)
    return step.database == world.names[0]


def rate(world: World) -> Iterator[str]:
    """Windows with more starts than the rate, as Odoo saw them."""
    for first_s, beyond_s in _next_but(world, rules.STARTS):
        if beyond_s - first_s < rules.PERIOD_S - _SEEN_LATER_S:
            yield f"{rules.PACED}: more than {rules.STARTS} within {beyond_s - first_s:.3f} s, at {beyond_s:.3f}"


def full_windows(world: World) -> int:
    """How many windows had as many starts as the rate allows."""
    return sum(last_s - first_s < rules.PERIOD_S for first_s, last_s in _next_but(world, rules.STARTS - 1))


def _next_but(world: World, number: int) -> Iterator[tuple[float, float]]:
    """When each job of the channel with a rate came to Odoo, and when the one so many after it did."""
    received_s = sorted(run["received_s"] for run in world.runs if run["channel"] == rules.PACED)
    if world.kind.rules is not Rules.NONE:
        yield from zip(received_s, received_s[number:], strict=False)
