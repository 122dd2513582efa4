"""What an operator has paused, and for how long. Pure; the master keeps it over reloads and dead workers.

A pause is of one channel and what is below it ('root': everything), in one database or (None) in all. A database that
is released (RELEASED instead of a channel) is left alone altogether: its worker has no connection to it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..channelspec import ROOT, complete_name
from ..config.values import is_unicode
from ..control import MAX_FRAME_BYTES, encode
from ..states import RELEASED

#: Longer than anybody needs, and far below the limit of a timestamp.
LONGEST_S = 10 * 365 * 86400.0
LONGEST_NAME = 500


class Scope(NamedTuple):
    """What is paused: a complete channel name, in one database or in all (None)."""

    database: str | None
    channel: str

    def __str__(self) -> str:
        if self.channel == RELEASED:
            return f"{self.database} (released)"
        return f"{self.database or 'all databases'}:{self.channel}"


class Pauses:
    """The pauses in force, each with the monotonic second of its end, or None: until resumed."""

    def __init__(self) -> None:
        self._until_s: dict[Scope, float | None] = {}
        self._by: dict[Scope, str] = {}

    def add(self, scope: Scope, until_s: float | None, by: str | None = None) -> None:
        """Pause, by order of `by`; a new order for the same scope replaces the previous one."""
        self._until_s[scope] = until_s
        self._by.pop(scope, None)
        if by is not None:
            self._by[scope] = by

    def has_room(self, scope: Scope, until_s: float | None) -> bool:
        """Whether one more can be told to a worker, which is told all its pauses in one message."""
        channels = {each.channel: end_s for each, end_s in self._until_s.items()}
        return len(encode({"do": "pauses", "pauses": {**channels, scope.channel: until_s}})) <= MAX_FRAME_BYTES

    def keep(self, now_s: float, wall_s: float) -> list[dict[str, Any]] | None:
        """What `restore` takes, as JSON has it, with UTC seconds; None: nothing is paused."""
        return [
            {
                "database": scope.database,
                "channel": scope.channel,
                "until": None if until_s is None else round(wall_s + until_s - now_s, 3),
                "by": self._by.get(scope),
            }
            for scope, until_s in self._until_s.items()
        ] or None

    def restore(self, kept: object, now_s: float, wall_s: float) -> int:
        """Pause again what was paused, and is still; how many entries are none that `keep` made."""
        entries = kept if isinstance(kept, list) else [] if kept is None else [kept]
        spoilt = 0
        for number, entry in enumerate(entries):
            found = _read(entry, now_s, wall_s)
            if found is None:
                spoilt += 1
            elif not self.has_room(found[0], found[1]):
                return spoilt + len(entries) - number
            elif found[1] is None or found[1] > now_s:
                self.add(*found)
        return spoilt

    @property
    def by(self) -> dict[Scope, str]:
        """Who ordered the pauses in force, as far as known."""
        return dict(self._by)

    def remove(self, scope: Scope) -> list[Scope]:
        """Resume the scope and everything within it; returns the scopes that were paused."""
        removed = [each for each in self._until_s if _within(each, scope)]
        for each in removed:
            del self._until_s[each]
            self._by.pop(each, None)
        return removed

    def covering(self, scope: Scope) -> list[Scope]:
        """The wider pauses that still cover the scope."""
        return [each for each in self._until_s if each != scope and _within(scope, each)]

    def expire(self, now_s: float) -> list[Scope]:
        """Remove expired pauses and return their scopes."""
        over = [scope for scope, until_s in self._until_s.items() if until_s is not None and until_s <= now_s]
        for scope in over:
            del self._until_s[scope]
            self._by.pop(scope, None)
        return over

    def released(self) -> frozenset[str]:
        """Databases that no process of ours may connect to."""
        return frozenset(
            scope.database for scope in self._until_s if scope.channel == RELEASED and scope.database is not None
        )

    def of(self, database: str) -> dict[str, float | None]:
        """For one database: channel -> end; if two pauses cover a channel, the later end."""
        found: dict[str, float | None] = {}
        for scope, until_s in self._until_s.items():
            if scope.database in (None, database):
                found[scope.channel] = _later(found.get(scope.channel, -math.inf), until_s)
        return found

    def items(self) -> list[tuple[Scope, float | None]]:
        return list(self._until_s.items())


def _within(inner: Scope, outer: Scope) -> bool:
    same_database = outer.database is None or inner.database == outer.database
    below = outer.channel in (ROOT, inner.channel) or inner.channel.startswith(outer.channel + ".")
    return same_database and below


def _later(one_s: float | None, other_s: float | None) -> float | None:
    return None if one_s is None or other_s is None else max(one_s, other_s)


def _read(entry: object, now_s: float, wall_s: float) -> tuple[Scope, float | None, str | None] | None:
    """(scope, monotonic end, who ordered it) of an entry; None where it is none."""
    if not isinstance(entry, dict):
        return None
    database, channel, until, by = (entry.get(key) for key in ("database", "channel", "until", "by"))
    names = [name for name in (database, channel, by) if name is not None]
    if not all(isinstance(name, str) and len(name) <= LONGEST_NAME and is_unicode(name) for name in names):
        return None
    if channel is None or (channel == RELEASED and not database) or database == "":
        return None
    until_s = None
    if until is not None:
        if isinstance(until, bool) or not isinstance(until, (int, float)) or not -math.inf < until < math.inf:
            return None
        until_s = now_s + max(min(until, wall_s + LONGEST_S), 0) - wall_s
    return Scope(database, RELEASED if channel == RELEASED else complete_name(channel)), until_s, by
