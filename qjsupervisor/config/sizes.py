"""Sizes of channels and of databases' shares: a number, or a percentage of the parent.  Pure.

A percentage is negative until its parent is known: -50 is 50 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..channelspec import ROOT, ChannelSpec, parent_name
from ..text import first_few
from .values import integer_in

#: Far more than one Odoo can run, and far below what a counter in the shared table holds.
HIGHEST_CAPACITY = 1_000_000
#: Most channels named in an error.
_NAMED = 5


def parse_size(key: str, value: str) -> int:
    """'8' -> 8, '50%' -> -50. Raises ValueError."""
    try:
        if value.endswith("%"):
            return -integer_in(1, 100)(value[:-1])
        return integer_in(1 if key == "max" else 0, HIGHEST_CAPACITY)(value)
    except ValueError as error:
        raise ValueError(f"{error}; or a percentage, as in 50%") from None


def size_text(size: int) -> str:
    """A size as it was written."""
    return f"{-size}%" if size < 0 else str(size)


def size_of(size: int, of: int | None, whose: str) -> int:
    """A size as a number; a percentage is rounded up, and at least 1. Raises ValueError."""
    if size >= 0:
        return size
    if of is None:
        raise ValueError(f"{-size}% of {whose}, which has no limit; allowed there: a number")
    return max(1, math.ceil(of * -size / 100))


def without_percentages(spec: ChannelSpec) -> ChannelSpec:
    """The spec without sizes that are percentages."""
    capacity = None if spec.capacity is not None and spec.capacity < 0 else spec.capacity
    return replace(spec, capacity=capacity, minimum=max(0, spec.minimum))


def refuse_percentages(specs: Sequence[ChannelSpec]) -> None:
    """Raise ValueError for minimums in percent that fit no parent, whatever its capacity."""
    below: dict[str, dict[str, int]] = {}
    for spec in specs:
        if spec.minimum < 0:
            below.setdefault(parent_name(spec.name) or ROOT, {})[spec.name] = -spec.minimum
    for parent, parts in below.items():
        total = sum(parts.values())
        if total > 100:
            named = first_few([f"{name} {part}%" for name, part in parts.items()], _NAMED)
            raise ValueError(f"channel {parent}: minimums below it are {total}% ({named}), {total - 100}% too much")


def with_sizes(tree: Sequence[ChannelSpec], maximums: Mapping[str, int | None]) -> tuple[ChannelSpec, ...]:
    """The tree (parents first) with percentages resolved, and these maximums besides its capacities.

    A parent without its own limit has that of its nearest limited ancestor. Raises ValueError naming the channel.
    """
    found: dict[str, ChannelSpec] = {}
    limits: dict[str, int | None] = {}
    for spec in tree:
        above = parent_name(spec.name)
        around = None if above is None else limits[above]

        def size(size: int, spec: ChannelSpec = spec, around: int | None = around) -> int:
            try:
                return size_of(size, around, parent_name(spec.name) or ROOT)
            except ValueError as error:
                raise ValueError(f"channel {spec.name}: {error}") from None

        sizes = [size(each) for each in (spec.capacity, maximums.get(spec.name)) if each is not None]
        capacity = min(sizes, default=None)
        limits[spec.name] = min((each for each in (capacity, around) if each is not None), default=None)
        default = spec.capacity_default
        if default is not None and default < 0:
            default = size_of(default, limits[spec.name], spec.name)
        found[spec.name] = replace(spec, capacity=capacity, minimum=size(spec.minimum), capacity_default=default)
    sized = tuple(found.values())
    _check_minimums(sized, limits)
    return sized


def minimums_below(tree: Sequence[ChannelSpec]) -> dict[str, dict[str, int]]:
    """Channel -> {child: what it is guaranteed, itself or by its subchannels}."""
    found: dict[str, dict[str, int]] = {spec.name: {} for spec in tree}
    for spec in reversed(tree):  # children first
        least = max(spec.minimum, sum(found[spec.name].values()))
        above = parent_name(spec.name)
        if least and above is not None:
            found[above][spec.name] = least
    return found


def _check_minimums(tree: Sequence[ChannelSpec], limits: Mapping[str, int | None]) -> None:
    if not any(spec.minimum for spec in tree):
        return
    below = minimums_below(tree)
    for spec in tree:
        most, limit, least = spec.capacity, limits[spec.name], below[spec.name]
        if most is not None and spec.minimum > most:
            over = spec.minimum - most
            raise ValueError(f"channel {spec.name}: min is {spec.minimum}, {over} more than its max, which is {most}")
        total = sum(least.values())
        if limit is not None and total > limit:
            named = first_few([f"{name} {each}" for name, each in reversed(least.items())], _NAMED)
            what = f"minimums below it are {total} ({named})"
            raise ValueError(f"channel {spec.name}: {what}, {total - limit} more than {limit}")
