"""A second connection to a worker's database, open only while a big table is read, so that the read does not block the
loop. It reads one snapshot and writes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from ..config.environment import server_of
from ..errors import DatabaseError, DatabaseUnavailable
from ..loop import Loop
from . import queries
from .async_session import AsyncSession, Rows, Script, Statement
from .database import Database

#: Full reads of big tables may take longer than other statements.
READ_TIMEOUT_S = 300.0
#: From the first packet to the first answer. A full pooler accepts a connection but makes its statements wait.
FIRST_ANSWER_S = 5.0


class Reader:
    """One series of statements, in order. The first error ends it; nothing is retried here."""

    def __init__(
        self,
        database: Database,
        loop: Loop,
        on_done: Callable[[list[Rows]], None],
        on_lost: Callable[[DatabaseError, float], None],
    ) -> None:
        """One of both is called once: with the rows of each statement, or with the error and the time."""
        self.name = database.name
        #: The same server, address and encoding as the worker's own connection.
        self.connect_kwargs = database.session.reached or database.session.connect_kwargs
        self._loop = loop
        self._on_done = on_done
        self._on_lost = on_lost
        self._session: AsyncSession | None = None
        #: Nothing has been answered yet, so there may be no connection.
        self.connecting = True
        #: The server did not answer in time.
        self.is_silent = False
        #: When it began to connect; once there is a connection, when it began to read.
        self.began_s = time.monotonic()

    def start(self, statements: Sequence[Statement]) -> None:
        """Connect and run these statements. Raises DatabaseError."""
        session = self._session = AsyncSession(
            self.name,
            self.connect_kwargs,
            self._loop,
            FIRST_ANSWER_S,
            server=server_of(self.connect_kwargs, os.environ),
            notified=lambda _notify: None,
            on_lost=self._lost,
        )
        session.run(self._script(session, statements))

    def _script(self, session: AsyncSession, statements: Sequence[Statement]) -> Script:
        session.limit_s = max(0.0, self.began_s + FIRST_ANSWER_S - time.monotonic())
        yield f"SET statement_timeout = '{READ_TIMEOUT_S:.0f}s'; {queries.BEGIN_SNAPSHOT}", None
        self.connecting = False
        self.began_s = time.monotonic()
        session.limit_s = READ_TIMEOUT_S + 3
        results = []
        for statement in statements:
            rows = yield statement
            results.append(rows)
        session.close()
        self._on_done(results)

    def _lost(self, error: DatabaseError, now_s: float) -> None:
        self.is_silent = self._session is not None and self._session.is_silent
        if self.is_silent and self.connecting:
            error = DatabaseUnavailable(self.name, "a second connection gets no answer")
        self._on_lost(error, now_s)

    def close(self) -> None:
        """Close, whatever state it is in."""
        if self._session is not None:
            self._session.close()
