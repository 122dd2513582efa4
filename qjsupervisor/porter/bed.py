"""Where the databases of one server sleep, and what makes them doze again.

Something was written in them, the counters may have begun anew (a restart of the server), or an hour is over. Then a
database is connected to once more, and its rows decide. Those that are only looked at to be sure take their turns.
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

#: How long a database dozes in which something was written: a session reports the rest up to eleven seconds later.
DOZE_S = 12.0
#: Pause between two databases that are looked at to be sure: 50 a second.
_PACE_S = 0.02


class Bed:
    """Those that sleep on one server. `connect` has one connected to, in its turn."""

    def __init__(
        self,
        server: str,
        dsn: Mapping[str, Any],
        settings: PorterSettings,
        loop: Loop,
        connect: Callable[[Dozer, float], None],
    ) -> None:
        """`dsn`: of any database of the server."""
        self._sleepers: dict[str, Dozer] = {}
        self._connect = connect
        self._looks: deque[Dozer] = deque()
        self._pace_alarm = Alarm(loop, self._look_at_next)
        self._is_told = False
        #: As they were read last.
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
        """Have `take` called with counters that are read from now on."""
        self._counters.ask(take)

    def put(self, dozer: Dozer) -> None:
        """It sleeps from now on."""
        self._sleepers[dozer.database] = dozer
        self._counters.is_needed = True
        if dozer.is_moved(self._counts):  # between the reading that it fell asleep by and now
            self._wake([dozer])

    def leave(self, dozer: Dozer) -> None:
        """It does not sleep any more."""
        self._sleepers.pop(dozer.database, None)
        self._counters.is_needed = bool(self._sleepers)

    def look(self, dozer: Dozer) -> None:
        """Look at one that was put to sleep long ago, or by another porter, when it is its turn."""
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
        """Something was written somewhere."""
        self._counts = counts
        self._wake([each for each in self._sleepers.values() if each.is_moved(counts)])

    def _wake(self, dozers: Sequence[Dozer]) -> None:
        now_s = time.monotonic()
        for dozer in dozers:
            self.leave(dozer)
            dozer.stir(DOZE_S)
            self._connect(dozer, now_s)

    def restarted(self) -> None:
        """The server may have forgotten what it counted."""
        self._is_told = False
        for dozer in list(self._sleepers.values()):
            dozer.stir(0.0)
            self.look(dozer)

    def failed(self, error: DatabaseError) -> None:
        """Nobody sees what is written."""
        if not self._is_told:
            self._is_told = True
            for dozer in self._sleepers.values():
                dozer.say_lost(error)
