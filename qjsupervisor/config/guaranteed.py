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
    #: Whether jobs wait, and the channel is not shut.
    waits: bool


class Lack(NamedTuple):
    """What a database lacks of its minimum."""

    permits: int
    reserve: bool
    #: Whether it wants a permit.
    waits: bool


class Guaranteed(NamedTuple):
    """Permits of `channel`, of which `free` are free, are kept for others: channel or database -> how many it lacks."""

    channel: str
    free: int
    lacks: Mapping[str, int]


def branches_of(status: Mapping[str, Any]) -> dict[str, Subtree]:
    """Shared channels by name, from the status."""
    views = {str(view["name"]): view for view in status.get("channels", ())}
    shut = {name for name, view in views.items() if _is_shut(view)}
    return {
        name: Subtree(
            view.get("capacity"),
            int(view.get("minimum") or 0),
            bool(view.get("reserve")),
            int(view.get("running") or 0),
            bool(view.get("pending")) and shut.isdisjoint(_upwards(name)),
        )
        for name, view in views.items()
    }


def _is_shut(view: Mapping[str, Any]) -> bool:
    """Whether nothing in a shared channel may start now, for a reason of its own."""
    rate = view.get("rate") or {}
    return any(map(view.get, ("paused", "closed", "stopped", "throttled_for_s"))) or bool(
        rate.get("next_in_s") or rate.get("unread")
    )


def lacking_databases(status: Mapping[str, Any]) -> dict[str, Lack]:
    """What databases lack of their minimums."""
    found = {}
    for view in status.get("databases", ()):
        share = view.get("share") or {}
        lack = share.get("min", 0) - share.get("used", 0)
        if lack > 0:
            found[str(view.get("name"))] = Lack(lack, bool(share.get("reserve")), bool(view.get("wait_s")))
    return found


class KeptPermits:
    """For whom permits are kept, at one moment.

    Reserved minimums hold up any job that does not count for them, even one whose own minimum is not reached; those of
    waiting channels and databases hold up jobs that count for none.
    """

    def __init__(self, branches: Mapping[str, Subtree], databases: Mapping[str, Lack]) -> None:
        """`databases`: see lacking_databases."""
        self._branches = branches
        self._databases = databases
        #: Channel -> its subchannels with a minimum in or below them.
        self._guaranteed: dict[str, list[str]] = {}
        for name, branch in branches.items():
            for channel in _upwards(name) if branch.minimum else ():
                within = self._guaranteed.setdefault(parent_name(channel) or "", [])
                if channel not in within:
                    within.append(channel)
        self._found: dict[tuple[str, str], Guaranteed | None] = {}

    def holding_up(self, channel: str, database: str) -> Guaranteed | None:
        """Whose guaranteed permits hold up a waiting job of a channel and database, or None."""
        key = channel, database if database in self._databases else ""
        if key not in self._found:
            self._found[key] = self._find(*key) if self._guaranteed or self._databases else None
        return self._found[key]

    def _find(self, channel: str, database: str) -> Guaranteed | None:
        path, branches, least = list(_upwards(channel)), dict(self._branches), dict(self._databases)
        own = {name: branches[name]._replace(waits=True) for name in path if name in branches}
        branches |= own
        after = branches | {name: branch._replace(running=branch.running + 1) for name, branch in own.items()}
        left = dict(least)
        if database:
            least[database] = least[database]._replace(waits=True)
            left[database] = least[database]._replace(permits=least[database].permits - 1)
        for only_reserved in (False, True):
            for node, branch in own.items():
                if branch.capacity is None:
                    continue
                free = max(0, branch.capacity - branch.running)
                before = sum(self._kept(branches, node, least, only_reserved=only_reserved).values())
                lacks = self._kept(after, node, left, only_reserved=only_reserved)
                if lacks and free <= before <= sum(lacks.values()):
                    return Guaranteed(node, free, lacks)
        return None

    def _kept(
        self, branches: Mapping[str, Subtree], node: str, databases: Mapping[str, Lack], *, only_reserved: bool
    ) -> dict[str, int]:
        """Permits of a channel that are kept for those below it, and of the root for databases."""
        found = self._lacks(branches, node, only_reserved=only_reserved)
        for name, lack in databases.items() if node == ROOT else ():
            if lack.permits > 0 and (lack.reserve or (lack.waits and not only_reserved)):
                found[name] = lack.permits
        return found

    def _lacks(self, branches: Mapping[str, Subtree], node: str, *, only_reserved: bool) -> dict[str, int]:
        """Channel -> what it lacks of its minimum, for channels below `node`."""
        found: dict[str, int] = {}
        for name in self._guaranteed.get(node, ()):
            branch = branches.get(name)
            below = self._lacks(branches, name, only_reserved=only_reserved)
            counts = branch is not None and (branch.reserve or (branch.waits and not only_reserved))
            own = branch.minimum - branch.running if branch is not None and counts else 0
            found |= {name: own} if own > 0 and own >= sum(below.values()) else below
        return found


def _upwards(channel: str) -> Iterator[str]:
    name: str | None = channel
    while name is not None:
        yield name
        name = parent_name(name)
