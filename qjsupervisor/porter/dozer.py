"""One database that dozes: its connection, from the moment that its worker offers it until a worker is back.

    CONNECTING --> WAITING --> HOLDING --> HANDING_OVER          WAITING: for the lock, which the worker hands over
    any of them --connection lost--> LOST --> CONNECTING         without a worker: the lock is tried, not waited for
    HOLDING --nothing happens--> ASLEEP --written to--> LOST     asleep: no connection, no lock

It listens before it has the lock, and looks at the rows after: whatever happens in between is found by one of them.
Whatever it cannot settle itself wakes a worker: a lock that somebody else has, a database that is gone or cannot be
read. It writes no row.
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
from ..postgres import queries
from ..postgres.addresses import rounds
from ..postgres.database import CHANNEL
from ..postgres.rest import Rest
from .bed import Bed
from .counters import Count
from .link import Link, Rows, Script
from .settings import PorterSettings

#: So long before the earliest eta the worker is called, to be there in time.
LEAD_S = 2.0
#: The rows are looked at again after so long, whatever happened.
LOOK_S = 3600.0
#: How long the porter waits for the lock of a worker that said it would hand it over.
WAIT_MS = 5000
#: How often a lock is tried that a former session of ours may still have, and the pause between.
_TRIES = 10
_TRY_AGAIN_S = 0.1
#: How often, and with which pause, the porter looks whether the worker waits for the lock.
_HAND_OVER_TRIES = 150
_HAND_OVER_AGAIN_S = 0.01
_POSTGRESQL_14 = 140000

#: A table that somebody has locked for an upgrade is a worker's business.
_LOCK_LIMIT = "SET lock_timeout = '1s'"
_SETTINGS = "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = '14s'; " + queries.KEEPALIVES


class State(enum.Enum):
    """Where it stands."""

    CONNECTING = 0
    WAITING = 1
    HOLDING = 2
    HANDING_OVER = 3
    LOST = 4
    ASLEEP = 5


class Dozer:
    """One database. `tell` sends the master a message.

    `on_settled` is called when it has the lock, or ended; `on_lost` when it is to be connected again.
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
        bed: Bed,
    ) -> None:
        """`server`: what messages call its PostgreSQL. `bed`: where it sleeps."""
        self.database = database
        self.state = State.LOST
        self.server = server
        #: There is nothing left to do for it.
        self.is_over = False
        self._dsn = dict(dsn)
        #: The failed jobs that the shared table counts; see Rest.
        self._failed = failed
        self._settings = settings
        self._loop = loop
        self._tell = tell
        self._on_settled = on_settled
        self._on_lost = on_lost
        self._bed = bed
        self.oid = 0
        #: What was counted in it before its rows were looked at for the last time.
        self._count: Count = None
        #: How long it dozes before it sleeps.
        self._doze_s = math.inf if settings.sleep_timeout_s is None else settings.sleep_timeout_s
        self._sleep_alarm = Alarm(loop, self._ask_count)
        self._link: Link | None = None
        self._attempts = 0
        #: The worker is to come: nothing is said twice.
        self._called = False
        #: A worker has the lock, and is about to hand it over.
        self._waits = False
        #: Something was notified while a statement ran.
        self._notified = False
        #: When to look at the rows, or to speak on the connection.
        self._look_alarm = Alarm(loop, self._look)
        self._speak_alarm = Alarm(loop, self._speak)

    # -- orders --------------------------------------------------------------------------------------------------

    def connect(self, now_s: float, *, waits: bool) -> None:
        """Connect, and get the lock: `waits`: from the worker that has it."""
        self.state, self._waits = State.CONNECTING, waits
        try:
            places = [place for each in rounds(self._dsn) for place in each]
            place = places[self._attempts % len(places)]
            self._attempts += 1
            self._link = Link(
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
        self._link.run(self._begin(self._link, waits=waits))

    def stir(self, doze_s: float) -> None:
        """It sleeps, and is to be looked at: it dozes for so long, if there is nothing to do."""
        if self.state is State.ASLEEP:
            self.state, self._doze_s = State.LOST, doze_s
            self._look_alarm.clear()

    def sleep_soon(self) -> None:
        """A former porter had it asleep: one look is enough."""
        self._doze_s = min(self._doze_s, 0.0) if self._settings.sleep_timeout_s is not None else math.inf

    def is_moved(self, counts: Mapping[int, Count]) -> bool:
        """Whether something was written since it fell asleep, or may have been."""
        return counts.get(self.oid) != self._count

    def hand_over(self) -> None:
        """A worker comes, and is about to wait for the lock."""
        if self._link is None or self.state is State.CONNECTING:
            self.end()
            return
        self.state = State.HANDING_OVER
        self._link.run(self._give())

    def leave(self) -> None:
        """The supervisor stops: let the database go at once, so that somebody else can have it."""
        if self._link is None or self.state is not State.HOLDING:
            self.end()
            return
        self.state = State.HANDING_OVER
        self._link.run(self._let_go())

    def end(self) -> None:
        """Close, and have nothing to do with it any more."""
        self._close()
        self.state = State.LOST
        self.is_over = True
        self._bed.leave(self)
        self._tell({"is": "left", "database": self.database})
        self._on_settled(self)

    # -- scripts -------------------------------------------------------------------------------------------------

    def _begin(self, link: Link, *, waits: bool) -> Script:
        yield _SETTINGS, None
        if link.version >= _POSTGRESQL_14:
            limit_s = self._settings.leader_timeout_s or 0
            yield f"SET idle_session_timeout = '{limit_s * 1000:.0f}ms'", None
        if self._settings.sleep_timeout_s is not None:
            ((self.oid,),) = yield queries.OID, None
        yield queries.MARK, {"mark": self._settings.session_mark}
        yield f"LISTEN {CHANNEL}", None
        if waits:
            self.state = State.WAITING
            self._say("waits")
            yield queries.WAIT_TO_LEAD.format(wait_ms=WAIT_MS), None
        else:
            for _ in range(_TRIES):
                rows = yield queries.TRY_LEAD, None
                if rows[0][0]:
                    break
                yield _TRY_AGAIN_S
            else:
                self._call("another session has the leader lock")
                self.end()
                return
        if self.state is State.HANDING_OVER:
            return  # the worker has thought better of it
        self.state = State.HOLDING
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
            if self.state is State.HOLDING:
                self._sleep_alarm.set_earlier(time.monotonic() + self._doze_s)

    # -- sleep ---------------------------------------------------------------------------------------------------

    def _holds(self) -> bool:
        return self.state is State.HOLDING

    def _ask_count(self, _now_s: float) -> None:
        """It has dozed for long enough. The counter is read before the rows: what is written later moves it."""
        self._bed.ask(self._sleep)

    def _sleep(self, counts: Mapping[int, Count]) -> None:
        if self.state is State.HOLDING and self._link is not None and not self._called:
            self._count = counts.get(self.oid)
            self._link.run(self._fall_asleep())

    def _fall_asleep(self) -> Script:
        yield from self._see()
        if self._called or not self._holds():
            return
        yield queries.LET_GO, None
        if not self._holds():
            return  # a worker comes
        self._sleep_alarm.clear()
        self._speak_alarm.clear()
        self.state = State.ASLEEP
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._notified:  # with the last answer
            self.stir(0.0)
            self._bed.look(self)
        else:
            self._say("asleep")
            self._bed.put(self)

    def _give(self) -> Script:
        for _ in range(_HAND_OVER_TRIES):
            rows = yield queries.HAND_OVER, {"mark": self._settings.session_mark}
            if rows:
                break
            yield _HAND_OVER_AGAIN_S
        self.end()

    def _speak_up(self) -> Script:
        yield "SELECT", None

    def _let_go(self) -> Script:
        yield queries.LET_GO, None
        self.end()

    # -- what happens --------------------------------------------------------------------------------------------

    def _hear(self, _notify: Notify) -> None:
        """A job came or changed: that is a worker's business. Before the lock is ours, it looks at the rows anyway."""
        self._notified = True
        if self.state is State.HOLDING:
            self._call("")

    def _look(self, _now_s: float) -> None:
        if self.state is State.HOLDING and self._link is not None:
            self._link.run(self._see())
        elif self.state is State.ASLEEP:
            self.stir(0.0)
            self._bed.look(self)

    def _speak(self, _now_s: float) -> None:
        """Not to be taken for frozen."""
        if self.state is State.HOLDING and self._link is not None:
            self._link.run(self._speak_up())
            self._speak_next()

    def _speak_next(self) -> None:
        limit_s = self._settings.leader_timeout_s
        self._speak_alarm.set(math.inf if limit_s is None else time.monotonic() + limit_s / 3)

    def _call(self, reason: str) -> None:
        """Have a worker come; the lock is kept until it is there."""
        if not self._called:
            self._called = True
            self._tell({"is": "wake", "database": self.database, "reason": reason})

    def _say(self, what: str) -> None:
        self._tell({"is": what, "database": self.database})

    def _lost(self, error: DatabaseError, now_s: float) -> None:
        was, self.state = self.state, State.LOST
        self._close()
        if self._called or was is State.HANDING_OVER or (self._waits and was is not State.HOLDING):
            self.end()  # the worker finds the same, and knows what to do
        elif isinstance(error, (DatabaseGone, DatabaseUnfit)) or (was is State.HOLDING and error.refused):
            self._call(str(error))
            self.end()
        else:
            self.say_lost(error)
            self._on_lost(self, error, now_s)

    def say_lost(self, error: DatabaseError) -> None:
        """Tell that nobody hears of its jobs at the moment."""
        self._tell({"is": "lost", "database": self.database, "reason": str(error)})

    def _close(self) -> None:
        self._look_alarm.clear()
        self._sleep_alarm.clear()
        self._speak_alarm.clear()
        if self._link is not None:
            self._link.close()
            self._link = None
