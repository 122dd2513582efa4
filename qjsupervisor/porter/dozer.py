"""One dozing database: its connection, from when its worker offers it until a worker is back.

    CONNECTING --> WAITING --> HOLDING --> HANDING_OVER          WAITING: for the lock, which the worker hands over
    any of them --connection lost--> LOST --> CONNECTING         without a worker: the lock is tried, not waited for
    HOLDING --nothing happens--> ASLEEP --written to--> LOST     asleep: no connection, no lock

It listens before it has the lock and examines the rows afterwards, so nothing in between is missed. Anything it cannot
settle itself wakes a worker: a lock held by somebody else, a database that is gone or unreadable. Writes no row.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from psycopg2.extensions import Notify

from ..errors import DatabaseError, DatabaseGone, DatabaseUnfit
from ..loop import Alarm, Loop
from ..postgres import lead_queries, queries
from ..postgres.addresses import rounds
from ..postgres.async_session import AsyncSession, Rows, Script
from ..postgres.database import CHANNEL
from ..postgres.rest import Rest
from .counters import Count
from .settings import PorterSettings
from .sleepers import Sleepers

#: So long before the earliest eta the worker is called, to be there in time.
LEAD_S = 2.0
#: The rows are examined at least this often.
LOOK_S = 3600.0
#: How long the porter waits for a worker to hand over the lock.
WAIT_MS = 5000
#: Tries for a lock that a former session of ours may still hold, and the pause between them.
_TRIES = 10
_TRY_AGAIN_S = 0.1
#: For how long, and with which pause, the porter checks whether the worker waits for the lock. The pause grows: on a
#: busy machine a worker takes its time, and the checks of many databases would slow them all down.
_HAND_OVER_S = 4.0
_HAND_OVER_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1
_POSTGRESQL_14 = 140000

#: A table locked by an upgrade is left to a worker.
_LOCK_LIMIT = "SET lock_timeout = '1s'"
_SETTINGS = "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = '14s'; " + queries.KEEPALIVES


class DozeState(enum.Enum):
    """The state of a dozing database."""

    CONNECTING = 0
    WAITING = 1
    HOLDING = 2
    HANDING_OVER = 3
    LOST = 4
    ASLEEP = 5


class Dozer:
    """One dozing database. `tell` sends the master a message.

    `on_settled` is called when it has the lock or is over; `on_lost` when it must be reconnected.
    """

    def __init__(
        self,
        database: str,
        server: str,
        dsn: Mapping[str, Any],
        failed: str,
        settings: PorterSettings,
        loop: Loop,
        tell: Callable[[Mapping[str, Any]], None],
        on_settled: Callable[[Dozer], None],
        on_lost: Callable[[Dozer, DatabaseError, float], None],
        sleepers: Sleepers,
    ) -> None:
        """`server`: name of its PostgreSQL in messages. `sleepers`: the sleeping databases of its server."""
        self.database = database
        self.state = DozeState.LOST
        self.server = server
        #: The porter is done with it.
        self.is_over = False
        self._dsn = dict(dsn)
        #: The failed jobs counted in the shared table; see Rest.
        self._failed = failed
        self._settings = settings
        self._loop = loop
        self._tell = tell
        self._on_settled = on_settled
        self._on_lost = on_lost
        self._sleepers = sleepers
        self.oid = 0
        #: Its counters before its rows were last examined.
        self._count: Count = None
        #: How long it dozes before it sleeps.
        self._doze_s = math.inf if settings.sleep_timeout_s is None else settings.sleep_timeout_s
        self._sleep_alarm = Alarm(loop, self._ask_count)
        self._session: AsyncSession | None = None
        self._attempts = 0
        #: A worker was called; do not call twice.
        self._called = False
        #: A worker holds the lock and is about to hand it over.
        self._waits = False
        #: A notification arrived while a statement ran.
        self._notified = False
        #: When to examine the rows, or to use the connection so that it does not look idle.
        self._look_alarm = Alarm(loop, self._look)
        self._speak_alarm = Alarm(loop, self._speak)

    # -- orders --------------------------------------------------------------------------------------------------

    def connect(self, now_s: float, *, waits: bool) -> None:
        """Connect and acquire the lock; `waits`: from the worker that holds it."""
        self.state, self._waits = DozeState.CONNECTING, waits
        try:
            places = [place for each in rounds(self._dsn) for place in each]
            place = places[self._attempts % len(places)]
            self._attempts += 1
            self._session = AsyncSession(
                self.database,
                place,
                self._loop,
                self._settings.connect_timeout_s,
                server=self.server,
                notified=self._hear,
                on_lost=self._lost,
            )
        except DatabaseError as error:
            self._lost(error, now_s)
            return
        self._session.run(self._begin(self._session, waits=waits))

    def begin_doze(self, doze_s: float) -> None:
        """Wake it from sleep to examine it; if there is nothing to do, it dozes for `doze_s`."""
        if self.state is DozeState.ASLEEP:
            self.state, self._doze_s = DozeState.LOST, doze_s
            self._look_alarm.clear()

    def sleep_soon(self) -> None:
        """It was asleep at a former porter, so one look is enough before it sleeps again."""
        self._doze_s = min(self._doze_s, 0.0) if self._settings.sleep_timeout_s is not None else math.inf

    def is_moved(self, counts: Mapping[int, Count]) -> bool:
        """Whether something was, or may have been, written since it fell asleep."""
        return counts.get(self.oid) != self._count

    def hand_over(self) -> None:
        """A worker has been started and is about to wait for the lock."""
        if self._session is None or self.state is DozeState.CONNECTING:
            self.end()
            return
        self.state = DozeState.HANDING_OVER
        self._session.run(self._give())

    def leave(self) -> None:
        """The supervisor stops: release the database at once for another supervisor."""
        if self._session is None or self.state is not DozeState.HOLDING:
            self.end()
            return
        self.state = DozeState.HANDING_OVER
        self._session.run(self._let_go())

    def end(self) -> None:
        """Close the connection and be done with the database."""
        self._close()
        self.state = DozeState.LOST
        self.is_over = True
        self._sleepers.leave(self)
        self._tell({"is": "left", "database": self.database})
        self._on_settled(self)

    # -- scripts -------------------------------------------------------------------------------------------------

    def _begin(self, session: AsyncSession, *, waits: bool) -> Script:
        yield _SETTINGS, None
        if session.version >= _POSTGRESQL_14:
            limit_s = self._settings.leader_timeout_s or 0
            yield f"SET idle_session_timeout = '{limit_s * 1000:.0f}ms'", None
        if self._settings.sleep_timeout_s is not None:
            ((self.oid,),) = yield queries.OID, None
        yield lead_queries.MARK, {"mark": self._settings.session_mark}
        yield f"LISTEN {CHANNEL}", None
        if waits:
            self.state = DozeState.WAITING
            self._say("waits")
            yield lead_queries.WAIT_TO_LEAD.format(wait_ms=WAIT_MS), None
        else:
            for _ in range(_TRIES):
                rows = yield lead_queries.TRY_LEAD, None
                if rows[0][0]:
                    break
                yield _TRY_AGAIN_S
            else:
                self._call("another session has the leader lock")
                self.end()
                return
        if self.state is DozeState.HANDING_OVER:
            return  # the worker changed its mind
        self.state = DozeState.HOLDING
        self._on_settled(self)
        self._say("holds")
        self._speak_next()
        yield from self._see()

    def _see(self) -> Script:
        """Whether a worker is needed."""
        self._notified = False
        yield _LOCK_LIMIT, None
        self._take((yield queries.AT_REST, None))
        if self._notified:
            self._call("")

    def _take(self, rows: Rows) -> None:
        rest = Rest.of(rows[0])
        if rest.failed != self._failed or not rest.lasts(LEAD_S):
            self._call("")
        else:
            due_in_s = min(LOOK_S, rest.due_in_s - LEAD_S)
            self._look_alarm.set(time.monotonic() + max(0.0, due_in_s))
            if self.state is DozeState.HOLDING:
                self._sleep_alarm.set_earlier(time.monotonic() + self._doze_s)

    # -- sleep ---------------------------------------------------------------------------------------------------

    def _holds(self) -> bool:
        return self.state is DozeState.HOLDING

    def _ask_count(self, _now_s: float) -> None:
        """It has dozed long enough. Counters are read before the rows, so that later writes change them."""
        self._sleepers.ask(self._sleep)

    def _sleep(self, counts: Mapping[int, Count]) -> None:
        if self.state is DozeState.HOLDING and self._session is not None and not self._called:
            self._count = counts.get(self.oid)
            self._session.run(self._fall_asleep())

    def _fall_asleep(self) -> Script:
        yield from self._see()
        if self._called or not self._holds():
            return
        yield lead_queries.LET_GO, None
        if not self._holds():
            return  # a worker was called
        self._sleep_alarm.clear()
        self._speak_alarm.clear()
        self.state = DozeState.ASLEEP
        if self._session is not None:
            self._session.close()
            self._session = None
        if self._notified:  # with the last answer
            self.begin_doze(0.0)
            self._sleepers.look(self)
        else:
            self._say("asleep")
            self._sleepers.put(self)

    def _give(self) -> Script:
        pause_s, until_s = _HAND_OVER_PAUSE_S, time.monotonic() + _HAND_OVER_S
        while not (yield lead_queries.HAND_OVER, {"mark": self._settings.session_mark}) and time.monotonic() < until_s:
            yield pause_s
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self.end()

    def _speak_up(self) -> Script:
        yield "SELECT", None

    def _let_go(self) -> Script:
        yield lead_queries.LET_GO, None
        self.end()

    # -- what happens --------------------------------------------------------------------------------------------

    def _hear(self, _notify: Notify) -> None:
        """A job was added or changed: call a worker. Before it holds the lock, it will examine the rows anyway."""
        self._notified = True
        if self.state is DozeState.HOLDING:
            self._call("")

    def _look(self, _now_s: float) -> None:
        if self.state is DozeState.HOLDING and self._session is not None:
            self._session.run(self._see())
        elif self.state is DozeState.ASLEEP:
            self.begin_doze(0.0)
            self._sleepers.look(self)

    def _speak(self, _now_s: float) -> None:
        """Use the connection, so that the server does not consider it idle."""
        if self.state is DozeState.HOLDING and self._session is not None:
            self._session.run(self._speak_up())
            self._speak_next()

    def _speak_next(self) -> None:
        limit_s = self._settings.leader_timeout_s
        self._speak_alarm.set(math.inf if limit_s is None else time.monotonic() + limit_s / 3)

    def _call(self, reason: str) -> None:
        """Call a worker; the lock is kept until it is ready."""
        if not self._called:
            self._called = True
            self._tell({"is": "wake", "database": self.database, "reason": reason})

    def _say(self, what: str) -> None:
        self._tell({"is": what, "database": self.database})

    def _lost(self, error: DatabaseError, now_s: float) -> None:
        was, self.state = self.state, DozeState.LOST
        self._close()
        if self._called or was is DozeState.HANDING_OVER or (self._waits and was is not DozeState.HOLDING):
            self.end()  # a worker will find the same and handle it
        elif isinstance(error, (DatabaseGone, DatabaseUnfit)) or (was is DozeState.HOLDING and error.refused):
            self._call(str(error))
            self.end()
        else:
            self.say_lost(error)
            self._on_lost(self, error, now_s)

    def say_lost(self, error: DatabaseError) -> None:
        """Report that nobody is notified of its jobs at the moment."""
        self._tell({"is": "lost", "database": self.database, "reason": str(error)})

    def say_away(self, for_s: float) -> None:
        """Report that the database is left to an administrator for this long."""
        self._tell({"is": "away", "database": self.database, "for_s": for_s})

    def _close(self) -> None:
        self._look_alarm.clear()
        self._sleep_alarm.clear()
        self._speak_alarm.clear()
        if self._session is not None:
            self._session.close()
            self._session = None
