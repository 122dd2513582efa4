"""How long to wait before trying again. Pure: no clock, no I/O; tests may replace `random`."""

from __future__ import annotations

import random as _random
from collections.abc import Callable

#: A database that could not be read for this long gives up its permits.
GIVE_UP_S = 60.0


class Backoff:
    """Exponential backoff with jitter: about first_s, then twice that, and so on up to limit_s, where it stays.

    Each pause is drawn uniformly from base * (1 ± jitter), clipped to [first_s, limit_s] before drawing. So clients
    that fail together spread out even at the limit, and no pause is shorter than first_s.
    """

    def __init__(
        self,
        first_s: float = 1.0,
        limit_s: float = 60.0,
        jitter: float = 0.2,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._jitter = jitter
        self._random = random
        self._base_s = first_s

    def next_s(self) -> float:
        """The pause before the next attempt, in seconds. Each call lengthens the next one."""
        low_s = max(self._first_s, self._base_s * (1 - self._jitter))
        high_s = min(self._limit_s, self._base_s * (1 + self._jitter))
        self._base_s = min(self._limit_s, self._base_s * 2)
        return low_s + (high_s - low_s) * self._random()

    def reset(self) -> None:
        """Start from first_s again, after a success."""
        self._base_s = self._first_s


class RestartPolicy:
    """When to restart a dead child: with backoff, without giving up, and starting over after a while of health."""

    def __init__(self, backoff: Backoff | None = None, healthy_after_s: float = 30.0) -> None:
        self._backoff = backoff or Backoff()
        self._healthy_after_s = healthy_after_s

    def delay_s(self, healthy_s: float) -> float:
        """Seconds until the next start of a child that was healthy for `healthy_s` before it died."""
        if healthy_s >= self._healthy_after_s:
            self._backoff.reset()
        return self._backoff.next_s()
