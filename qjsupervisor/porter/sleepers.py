"""The sleeping databases of one server, and what makes them doze again.

A database is connected again and its rows examined when something was written in it, when the counters may have been
reset (by a restart of the server), and every hour. Routine looks are spread over time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DatabaseError
from ..loop import Alarm, Loop
from .counters import Count, Counters
from .settings import PorterSettings

if TYPE_CHECKING:
    from .dozer import Dozer

#: How long a database dozes after a write, since a session may report further writes up to eleven seconds later.
DOZE_S = 12.0
#: Pause between routine looks: 50 per second.
_PACE_S = 0.02


class Sleepers:
    """The sleeping databases of one server. `connect` has a database connected in its turn."""

    def __init__(
        self,
        server: str,
        dsn: Mapping[str, Any],
        settings: PorterSettings,
        loop: Loop,
        connect: Callable[[Dozer, float], None],
    ) -> None:
        """`dsn`: that of any database of the server."""
        self._sleepers: dict[str, Dozer] = {}
        self._connect = connect
        self._looks: deque[Dozer] = deque()
        self._pace_alarm = Alarm(loop, self._look_at_next)
        self._is_told = False
        #: The last reading.
        self._counts: Mapping[int, Count] = {}
        self._counters = Counters(
            server,
            {**dsn, "dbname": settings.maintenance_db},
            settings.connect_timeout_s,
            loop,
            take=self.take,
            restarted=self.restarted,
            failed=self.failed,
        )

    def ask(self, take: Callable[[Mapping[int, Count]], None]) -> None:
        """Call `take` with counters read from now on."""
        self._counters.ask(take)

    def put(self, dozer: Dozer) -> None:
        """Add a database that fell asleep."""
        self._sleepers[dozer.database] = dozer
        self._counters.is_needed = True
        if dozer.is_moved(self._counts):  # written to since the reading by which it fell asleep
            self._wake([dozer])

    def leave(self, dozer: Dozer) -> None:
        """Remove a database that no longer sleeps."""
        self._sleepers.pop(dozer.database, None)
        self._counters.is_needed = bool(self._sleepers)

    def look(self, dozer: Dozer) -> None:
        """Examine, in its turn, a database that fell asleep long ago or at another porter."""
        self.leave(dozer)
        self._looks.append(dozer)
        self._pace_alarm.set_earlier(time.monotonic())

    def close(self) -> None:
        self._counters.close()

    def _look_at_next(self, now_s: float) -> None:
        if self._looks:
            self._connect(self._looks.popleft(), now_s)
        if self._looks:
            self._pace_alarm.set(now_s + _PACE_S)

    def take(self, counts: Mapping[int, Count]) -> None:
        """The counters changed: wake the databases concerned."""
        self._counts = counts
        self._wake([each for each in self._sleepers.values() if each.is_moved(counts)])

    def _wake(self, dozers: Sequence[Dozer]) -> None:
        now_s = time.monotonic()
        for dozer in dozers:
            self.leave(dozer)
            dozer.begin_doze(DOZE_S)
            self._connect(dozer, now_s)

    def restarted(self) -> None:
        """The server may have reset its counters: examine all databases."""
        self._is_told = False
        for dozer in list(self._sleepers.values()):
            dozer.begin_doze(0.0)
            self.look(dozer)

    def failed(self, error: DatabaseError) -> None:
        """The counters cannot be read: report it once for each database."""
        if not self._is_told:
            self._is_told = True
            for dozer in self._sleepers.values():
                dozer.say_lost(error)
