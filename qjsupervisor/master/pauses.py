"""What an operator has paused, and for how long. Pure; the master keeps it over reloads and dead workers.

A pause is of one channel and what is below it ('root': everything), in one database or (None) in all. A database that
is released (RELEASED instead of a channel) is left alone altogether: its worker has no connection to it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..channelspec import ROOT
from ..states import RELEASED

#: Longer than anybody needs, and far below the limit of a timestamp.
LONGEST_S = 10 * 365 * 86400.0


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
