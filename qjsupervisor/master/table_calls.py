"""Makes calls on the shared table, and repeats those that found its lock taken (they return False).

The master never waits for that lock. This module does not know what the calls do.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from ..loop import Alarm, Timers

RETRY_S = 0.05


class RetriedCalls:
    """At most one call per key; a later one with the same key replaces the earlier."""

    def __init__(self, timers: Timers) -> None:
        self._calls: dict[Hashable, Callable[[], bool]] = {}
        self._alarm = Alarm(timers, self._retry)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._calls

    def add(self, key: Hashable, call: Callable[[], bool]) -> None:
        """Try it now, and again until it returns True. It may add further calls, even under its own key."""
        self._calls[key] = call
        self._try(key, call)
        if self._calls:
            self._alarm.set_earlier(0.0)  # at once, as the lock is held only for microseconds

    def _retry(self, now_s: float) -> None:
        self._alarm.set(now_s + RETRY_S)
        for key, call in list(self._calls.items()):
            self._try(key, call)
        if not self._calls:
            self._alarm.clear()

    def _try(self, key: Hashable, call: Callable[[], bool]) -> None:
        if call() and self._calls.get(key) is call:
            del self._calls[key]
