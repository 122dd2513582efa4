"""How long to wait before trying again. Pure: no clock, no I/O; `random` is a seam."""

from __future__ import annotations

import random as _random
from collections.abc import Callable

#: A database that nobody could read for so long gives its permits up.
GIVE_UP_S = 60.0


class Backoff:
    """Exponential pauses with jitter: about first_s, twice that, ... up to limit_s, then so for ever.

    Each pause is drawn evenly from base * (1 ± jitter), cut to [first_s, limit_s] before drawing: so many
    that fail together spread out also at the limit, and none is shorter than first_s.
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
        """The pause before the next attempt, in seconds; every call lengthens the following one."""
        low_s = max(self._first_s, self._base_s * (1 - self._jitter))
        high_s = min(self._limit_s, self._base_s * (1 + self._jitter))
        self._base_s = min(self._limit_s, self._base_s * 2)
        return low_s + (high_s - low_s) * self._random()

    def reset(self) -> None:
        """It worked: start from first_s again."""
        self._base_s = self._first_s


class RestartPolicy:
    """When a dead child is started again: backed off, for ever, from the start after a while of health."""

    def __init__(self, backoff: Backoff | None = None, healthy_after_s: float = 30.0) -> None:
        self._backoff = backoff or Backoff()
        self._healthy_after_s = healthy_after_s

    def delay_s(self, healthy_s: float) -> float:
        """Seconds until the next start of a child that was healthy for `healthy_s` before it died."""
        if healthy_s >= self._healthy_after_s:
            self._backoff.reset()
        return self._backoff.next_s()
