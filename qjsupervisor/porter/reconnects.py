"""Decides when a porter reconnects to databases: a few at a time, and one while their server is down.

A session that was ended alone was ended by an administrator, who wants the database for a while. Several at once were
ended by their server.

One `Reconnects` per PostgreSQL server. Opens no connection itself; the dozers do.
"""

from __future__ import annotations

import math
from collections import deque

from ..backoff import Backoff
from ..errors import DatabaseError, ServerDown
from ..loop import Alarm, Loop
from ..postgres.failures import ADMIN_SHUTDOWN
from .dozer import Dozer, DozeState

#: How long a database is left to an administrator who ended its session, as workers do.
AWAY_S = 5.0
#: Most connections being opened at once.
AT_ONCE = 12
#: Pause after a connection was refused because of the database itself.
_REFUSED_S = 3.0
#: Pause after a lost connection.
_LOST_S = 0.5
#: Sessions lost within this time of each other were lost together.
_TOGETHER_S = 0.5


class Reconnects:
    """The databases of one PostgreSQL server waiting to be connected."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: deque[Dozer] = deque()
        self._connecting: set[Dozer] = set()
        self._backoff = Backoff(first_s=0.2, limit_s=3.0)
        self._is_down = False
        self._alarm = Alarm(loop, self._go_on)
        #: Databases whose session was just ended, and when.
        self._ended: dict[Dozer, float] = {}
        self._ended_alarm = Alarm(loop, self._judge_ended)
        #: When a session was last lost without the server saying that it ended it. A server that stops may be unable
        #: to say so in a session that is just sending a statement.
        self._broken_s = -math.inf

    def add(self, dozer: Dozer, now_s: float, later_s: float = 0.0) -> None:
        """Connect to a database in its turn, at the earliest `later_s` from now."""
        if later_s:
            self._loop.call_at(now_s + later_s, lambda then_s: self.add(dozer, then_s))
        elif not dozer.is_over and dozer.state is DozeState.LOST:
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
        was_connecting = dozer in self._connecting
        self._connecting.discard(dozer)
        if error.sqlstate == ADMIN_SHUTDOWN:
            self._ended[dozer] = now_s
            self._ended_alarm.set(now_s + _TOGETHER_S)
            return
        if isinstance(error, ServerDown) or not was_connecting:
            self._broken_s = now_s
        if isinstance(error, ServerDown):
            self._is_down = True
            self._waiting.append(dozer)
            self._alarm.set(now_s + self._backoff.next_s())
        else:
            self.add(dozer, now_s, later_s=_REFUSED_S if error.refused else _LOST_S)
            if not self._is_down:
                self._alarm.set_earlier(now_s)

    def _judge_ended(self, now_s: float) -> None:
        ended, self._ended = self._ended, {}
        alone = len(ended) == 1 and self._broken_s < min(ended.values()) - _TOGETHER_S
        for dozer in ended:
            if alone and not dozer.is_over:
                dozer.say_away(AWAY_S)
            self.add(dozer, now_s, later_s=AWAY_S if alone else 0.0)

    def _go_on(self, now_s: float) -> None:
        while self._waiting and len(self._connecting) < (1 if self._is_down else AT_ONCE):
            dozer = self._waiting.popleft()
            if not dozer.is_over and dozer.state is DozeState.LOST:
                self._connecting.add(dozer)
                dozer.connect(now_s, waits=False)
                if self._is_down:  # it has just found out
                    break
