"""Finds for whom free permits, or the next ones, are kept: from the status or one database's rows.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..channelspec import ROOT, parent_name


class Subtree(NamedTuple):
    """A channel and its subchannels."""

    capacity: int | None
    minimum: int
    reserve: bool
    running: int
    #: Whether jobs wait.
    waits: bool


class Guaranteed(NamedTuple):
    """Permits of `channel`, of which `free` are free, are kept for others: channel or database -> how many it lacks."""

    channel: str
    free: int
    lacks: Mapping[str, int]


def branches_of(status: Mapping[str, Any]) -> dict[str, Subtree]:
    """Shared channels by name, from the status."""
    return {
        str(view["name"]): Subtree(
            view.get("capacity"),
            int(view.get("minimum") or 0),
            bool(view.get("reserve")),
            int(view.get("running") or 0),
            bool(view.get("pending")),
        )
        for view in status.get("channels", ())
    }


def lacking_databases(status: Mapping[str, Any], database: str) -> dict[str, int]:
    """What other databases lack of their minimums if they wait or it is reserved; {} if this one is short too."""
    found = {}
    for view in status.get("databases", ()):
        share = view.get("share") or {}
        lack = share.get("min", 0) - share.get("used", 0)
        if lack > 0 and view.get("name") == database:
            return {}
        if lack > 0 and (share.get("reserve") or view.get("wait_s")):
            found[str(view.get("name"))] = lack
    return found


def guaranteed(branches: Mapping[str, Subtree], channel: str, databases: Mapping[str, int]) -> Guaranteed | None:
    """Whose guaranteed permits hold up a job of a channel, or None. `databases`: see lacking_databases."""
    is_short, way = False, ""
    for node in _upwards(channel):
        own = branches.get(node)
        if own is not None and own.capacity is not None and not is_short:
            lacks = _lacks(branches, node, without=way)
            lacks |= databases if node == ROOT else {}
            free = max(0, own.capacity - own.running)
            if lacks and free <= sum(lacks.values()):
                return Guaranteed(node, free, lacks)
        is_short = is_short or (own is not None and own.running < own.minimum)
        way = node
    return None


def _upwards(channel: str) -> Iterator[str]:
    name: str | None = channel
    while name is not None:
        yield name
        name = parent_name(name)


def _lacks(branches: Mapping[str, Subtree], node: str, without: str) -> dict[str, int]:
    """Channel -> what it lacks of its minimum, for channels below `node` except on one path."""
    found: dict[str, int] = {}
    for name, branch in branches.items():
        if parent_name(name) != node or name == without:
            continue
        own = branch.minimum - branch.running if branch.reserve or branch.waits else 0
        below = _lacks(branches, name, "")
        if own > 0 and own >= sum(below.values()):
            found[name] = own
        else:
            found |= below
    return found
