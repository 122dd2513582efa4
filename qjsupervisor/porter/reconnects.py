"""Decides when a porter reconnects to databases: a few at a time, and one while their server is down.

One `Reconnects` per PostgreSQL server. Opens no connection itself; the dozers do.
"""

from __future__ import annotations

import math
from collections import deque

from ..backoff import Backoff
from ..errors import DatabaseError, ServerDown
from ..loop import Alarm, Loop
from .dozer import Dozer, State

#: How long a database is left to an administrator who ended its session, as workers do.
AWAY_S = 5.0
#: Most connections being opened at once.
AT_ONCE = 12
#: Pause after a connection was refused because of the database itself.
_REFUSED_S = 3.0
#: Pause after a lost connection.
_LOST_S = 0.5


class Reconnects:
    """The databases of one PostgreSQL server waiting to be connected."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: deque[Dozer] = deque()
        self._connecting: set[Dozer] = set()
        self._backoff = Backoff(first_s=0.2, limit_s=3.0)
        self._is_down = False
        self._alarm = Alarm(loop, self._go_on)

    def add(self, dozer: Dozer, now_s: float, later_s: float = 0.0) -> None:
        """Connect to a database in its turn, at the earliest `later_s` from now."""
        if later_s:
            self._loop.call_at(now_s + later_s, lambda then_s: self.add(dozer, then_s))
        elif not dozer.is_over and dozer.state is State.LOST:
            self._waiting.append(dozer)
            if not self._is_down:
                self._alarm.set_earlier(now_s)

    def settled(self, dozer: Dozer, now_s: float) -> None:
        """A database has its lock or is over."""
        self._connecting.discard(dozer)
        if not dozer.is_over:
            self._is_down = False
            self._backoff.reset()
        if self._waiting and not (self._is_down and self._alarm.at_s < math.inf):
            self._alarm.set_earlier(now_s)

    def failed(self, dozer: Dozer, error: DatabaseError, now_s: float) -> None:
        """A database lost its connection, or got none."""
        self._connecting.discard(dozer)
        if isinstance(error, ServerDown):
            self._is_down = True
            self._waiting.append(dozer)
            self._alarm.set(now_s + self._backoff.next_s())
        else:
            self.add(dozer, now_s, later_s=_REFUSED_S if error.refused else _LOST_S)
            if not self._is_down:
                self._alarm.set_earlier(now_s)

    def _go_on(self, now_s: float) -> None:
        while self._waiting and len(self._connecting) < (1 if self._is_down else AT_ONCE):
            dozer = self._waiting.popleft()
            if not dozer.is_over and dozer.state is State.LOST:
                self._connecting.add(dozer)
                dozer.connect(now_s, waits=False)
                if self._is_down:  # it has just found out
                    break
