"""The settings of one channel, and the defaults for channels that nobody configured. Pure.

`config` parses the text form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

ROOT = "root"
#: The longest name that fits into the shared table.
MAX_NAME_BYTES = 256
#: Configured channels, missing parents included: the shared table has a cell for each in each database.
MAX_CHANNELS = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `starts` in any window of `period_s` seconds."""

    starts: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Share:
    """A database's part of all permits: below `minimum` it comes first; `maximum` is its limit (None: no limit).

    With `reserve`, the minimum is kept free for it even while it does not wait.
    """

    minimum: int = 0
    maximum: int | None = None
    reserve: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """One channel of a tree; `name` is the complete name: 'root', 'root.sub', ..."""

    name: str
    #: How many jobs may run at once in it and below it; None: no limit of its own; 0 (root only): nothing runs.
    #: This and other sizes are negative for a percentage of the parent, as long as the tree is not known.
    capacity: int | None
    #: While fewer of its jobs run, they come first in its parent; with `reserve`, room for them is always kept free.
    minimum: int = 0
    reserve: bool = False
    #: Its starts for each start of a sibling of weight 1; 0: not set, the order of jobs decides.
    weight: int = 0
    #: Strictly in order, one at a time, stops on a failed job.
    sequential: bool = False
    #: Minimum number of seconds between two starts.
    throttle_s: int = 0
    rate: Rate | None = None
    paused: bool = False
    #: Jobs that run for longer are reported or terminated; None: no limit.
    max_runtime_s: float | None = None
    #: For subchannels that nobody configured: None means no limit of their own.
    capacity_default: int | None = None
    sequential_default: bool = False
    rate_default: Rate | None = None
    #: Whether it exists only because of an ancestor's defaults; nobody configured it.
    made: bool = False


def spec_from(told: Mapping[str, Any]) -> ChannelSpec:
    """From dataclasses.asdict of a ChannelSpec, by way of JSON; unknown keys of newer versions are ignored."""
    known = {each.name: told[each.name] for each in fields(ChannelSpec) if each.name in told}
    for name in ("rate", "rate_default"):
        if known.get(name):
            known[name] = Rate(**known[name])
    return ChannelSpec(**known)


def complete_name(channel: str | None) -> str:
    """The complete name of a job's channel: NULL and '' mean the root, and 'root.' may be omitted."""
    if not channel or channel == ROOT:
        return ROOT
    return channel if channel.startswith(ROOT + ".") else f"{ROOT}.{channel}"


def makes_channels(spec: ChannelSpec) -> bool:
    """Whether its defaults limit a subchannel that nobody configured."""
    return bool(spec.sequential_default or spec.capacity_default or spec.rate_default)


def parent_name(name: str) -> str | None:
    """The complete name one level up; None for the root."""
    return name.rpartition(".")[0] or None


def inherited(name: str, parent: ChannelSpec, *, made: bool = False) -> ChannelSpec:
    """The settings of an unconfigured channel, from the defaults of its nearest ancestor."""
    if parent.sequential_default:
        return ChannelSpec(name=name, capacity=1, sequential=True, rate=parent.rate_default, made=made)
    return ChannelSpec(name=name, capacity=parent.capacity_default or None, rate=parent.rate_default, made=made)


def complete_tree(specs: Iterable[ChannelSpec]) -> tuple[ChannelSpec, ...]:
    """The channels and all their ancestors; the root comes first, and each channel after its parent.

    A missing ancestor gets its parent's defaults; an unconfigured root has capacity 1.
    """
    given = {spec.name: spec for spec in specs}
    tree = {ROOT: given.get(ROOT, ChannelSpec(name=ROOT, capacity=1))}
    for name in given:
        line: list[str] = []
        above: str | None = name
        while above is not None and above not in tree:
            line.append(above)
            above = parent_name(above)
        for channel in reversed(line):
            tree[channel] = given.get(channel) or inherited(channel, tree[parent_name(channel) or ROOT])
    return tuple(tree.values())


def max_runtime_of(channel: str | None, limits: Mapping[str, float]) -> tuple[str, float] | None:
    """The shortest max_runtime on the path from `channel` to the root, and whose it is; None if unlimited."""
    found: tuple[str, float] | None = None
    name: str | None = complete_name(channel)
    while name is not None:
        limit_s = limits.get(name)
        if limit_s is not None and (found is None or limit_s < found[1]):
            found = (name, limit_s)
        name = parent_name(name)
    return found
