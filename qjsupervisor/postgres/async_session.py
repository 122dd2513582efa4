"""A session with PostgreSQL in the loop: asynchronous, so that no server, database or long read delays anything else.

Statements come from a script: a generator that yields a statement and is sent its rows, or yields a pause in seconds.
One script runs at a time; in between the session only listens. After an error the session is closed for good.
"""

from __future__ import annotations

import math
import selectors
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import psycopg2
from psycopg2 import extensions

from ..errors import DatabaseError, DatabaseUnavailable, ServerDown
from ..loop import Alarm, Loop
from .failures import ended_by_server, translated, why_unreachable
from .waiter import STATEMENT_TIMEOUT_S

#: A statement with its parameters.
Statement = tuple[str, Mapping[str, Any] | None]
Rows = list[tuple[Any, ...]]
Script = Generator[Statement | float, Rows, None]

_EVENTS = {extensions.POLL_READ: selectors.EVENT_READ, extensions.POLL_WRITE: selectors.EVENT_WRITE}


class AsyncSession:
    """One connection. `notified` receives each notification, `on_lost` the error that ended it, at most once."""

    def __init__(
        self,
        database: str,
        connect_kwargs: Mapping[str, Any],
        loop: Loop,
        connect_s: float,
        *,
        server: str,
        notified: Callable[[extensions.Notify], None],
        on_lost: Callable[[DatabaseError, float], None],
    ) -> None:
        """Begin to connect. Raises DatabaseError. `server`: its name in messages."""
        self.database = database
        self._server = server
        self._loop = loop
        self._notified = notified
        self._on_lost = on_lost
        self._limit = Alarm(loop, self._overdue)
        #: Limit for each answer.
        self.limit_s = STATEMENT_TIMEOUT_S
        #: It ended because the server did not answer in time.
        self.is_silent = False
        self._pause = Alarm(loop, lambda _now_s: self._advance([]))
        self._connection: Any = None
        self._cursor: Any = None
        self._script: Script | None = None
        #: The script to run next.
        self._next: Script | None = None
        #: The registered descriptor and its events.
        self._watched: tuple[int, int] | None = None
        try:
            self._connection = psycopg2.connect(**{"client_encoding": "UTF8", **connect_kwargs, "async_": 1})
        except psycopg2.Error as error:
            raise self._explained(error) from error
        self._limit.set(time.monotonic() + connect_s)
        self._poll(0.0)

    @property
    def version(self) -> int:
        """The server's version in libpq's numbering, e.g. 150004; valid once connected."""
        return int(self._connection.server_version)

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def run(self, script: Script) -> None:
        """Run this script next, replacing one that has not begun."""
        self._next = script
        if self._cursor is not None and self._script is None:
            self._begin()

    def close(self) -> None:
        """Close, in whatever state."""
        self._limit.clear()
        self._pause.clear()
        self._unwatch()
        self._script = self._next = None
        connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None and not connection.closed:
            connection.close()

    # -- input ---------------------------------------------------------------------------------------------------

    def _poll(self, now_s: float) -> None:
        try:
            state = self._connection.poll()
            if state == extensions.POLL_OK:
                self._done()
            elif self._connection is not None:
                self._watch(_EVENTS[state])
        except (psycopg2.Error, UnicodeError) as error:
            self._lose(self._explained(error), now_s)

    def _done(self) -> None:
        """Connected, a statement was answered, or a notification arrived."""
        self._connection.poll()  # notifications that came behind the answer: the socket will not signal them
        self._hear()
        if self._connection is None:
            return
        self._watch(selectors.EVENT_READ)
        if self._cursor is None:
            self._cursor = self._connection.cursor()
            self._limit.clear()
            self._begin()
        elif self._script is not None and math.isinf(self._pause.at_s):
            self._advance(self._cursor.fetchall() if self._cursor.description else [])

    def _hear(self) -> None:
        notifies = self._connection.notifies
        while self._connection is not None and notifies:
            self._notified(notifies.pop(0))

    # -- scripts -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._script, self._next = self._next, None
        if self._script is not None:
            self._advance(None)

    def _advance(self, rows: Rows | None) -> None:
        """Send the script its result, and do what it yields next."""
        script = self._script
        assert script is not None
        try:
            wanted = next(script) if rows is None else script.send(rows)
        except StopIteration:
            self._script = None
            self._limit.clear()
            if self._connection is not None:
                self._begin()
            return
        if self._connection is None:  # the script closed it
            return
        if isinstance(wanted, float):
            self._limit.clear()
            self._pause.set(time.monotonic() + wanted)
            return
        try:
            self._cursor.execute(*wanted)
        except (psycopg2.Error, UnicodeError) as error:
            self._lose(self._explained(error), time.monotonic())
            return
        self._limit.set(time.monotonic() + self.limit_s)
        self._poll(0.0)

    # -- the end -------------------------------------------------------------------------------------------------

    def _overdue(self, now_s: float) -> None:
        self.is_silent = True
        if self._cursor is None:
            self._lose(ServerDown(self.database, self._server, "no connection in time"), now_s)
        else:
            self._lose(DatabaseUnavailable(self.database, "the server does not answer"), now_s)

    def _lose(self, error: DatabaseError, now_s: float) -> None:
        self.close()
        self._on_lost(error, now_s or time.monotonic())

    def _explained(self, error: Exception) -> DatabaseError:
        if self._cursor is None and (reason := why_unreachable(error)):
            return ServerDown(self.database, self._server, reason)
        notices = self._connection.notices if self._connection is not None else []
        return ended_by_server(translated(self.database, error), notices)

    # -- the loop ------------------------------------------------------------------------------------------------

    def _watch(self, events: int) -> None:
        """Register anew in each step, because libpq may have replaced the socket by another of the same number."""
        wanted = (self._connection.fileno(), events)
        if wanted == self._watched and self._cursor is not None:
            return
        self._unwatch()
        self._loop.register(wanted[0], events, self._poll)
        self._watched = wanted

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._loop.unregister(self._watched[0])
            self._watched = None
