"""Calls on the shared table that say False while its lock is taken: asked again until they say True.

The master never waits for that lock. Knows nothing of what the calls do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

RETRY_S = 0.05


class RetriedCalls:
    """At most one chore for each key; a later one under the same key replaces the earlier."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, Callable[[], bool]] = {}
        self._next_s = 0.0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._calls

    def add(self, key: Hashable, call: Callable[[], bool]) -> None:
        """Try it now, and from now on until it says True. It may add further chores, also under its own key."""
        self._calls[key] = call
        self._try(key, call)

    def step(self, now_s: float) -> None:
        """Ask again, if it is time."""
        if not self._calls or now_s < self._next_s:
            return
        self._next_s = now_s + RETRY_S
        for key, call in list(self._calls.items()):
            self._try(key, call)

    def next_deadline_s(self) -> float:
        return self._next_s if self._calls else math.inf

    def _try(self, key: Hashable, call: Callable[[], bool]) -> None:
        if call() and self._calls.get(key) is call:
            del self._calls[key]
