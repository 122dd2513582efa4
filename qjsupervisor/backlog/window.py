"""The best members of an ordered set whose rest stays in the database: memory bounded by configuration, not by backlog.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

#: Sortable, and never equal to another member, since keys end with the job's id.
Item = TypeVar("Item", bound=Any)


class Window(Generic[Item]):
    """The smallest `limit` members of a set.

    `horizon` None: the window holds all members. Otherwise it holds every member up to and including the horizon and
    none beyond; those are only in the database.
    """

    __slots__ = ("horizon", "items", "limit")

    def __init__(self, limit: int) -> None:
        self.items: list[Item] = []
        self.limit = limit
        self.horizon: Item | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def runs_dry(self) -> bool:
        """Whether it is time to read members beyond the horizon."""
        return self.horizon is not None and len(self.items) <= self.limit // 4

    def clear(self) -> None:
        """Become empty, with nothing beyond."""
        self.items = []
        self.horizon = None

    def put(self, item: Item) -> Item | None:
        """Add a member; returns the one not held afterwards (itself or the worst one), or None."""
        if self.horizon is not None and self.horizon < item:
            return item
        insort(self.items, item)
        if len(self.items) <= self.limit:
            return None
        dropped = self.items.pop()
        self.horizon = self.items[-1]
        return dropped

    def remove(self, item: Item) -> bool:
        """Remove a member; False if it is not held."""
        at = bisect_left(self.items, item)
        if at == len(self.items) or self.items[at] != item:
            return False
        del self.items[at]
        return True

    def extend(self, found: Iterable[Item], horizon: Item | None) -> list[Item]:
        """Add missing members after reading the best ones anew; all up to `horizon` are known now (None: all).

        Returns the members dropped for lack of room, or because the read did not reach as far as them, so that others
        may come before them.
        """
        self.items = sorted({*self.items, *found})
        self.horizon = horizon
        reached = len(self.items) if horizon is None else bisect_right(self.items, horizon)
        kept = min(reached, self.limit)
        dropped = self.items[kept:]
        del self.items[kept:]
        if kept < reached:
            self.horizon = self.items[-1]
        return dropped
