"""A second connection to a worker's database, open only while a big table is read, so that the read does not block the
loop. Nothing here waits.

It reads one snapshot and writes nothing. Every psycopg2 error is raised as a DatabaseError.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg2
import psycopg2.extensions

from . import queries
from .database import Database
from .failures import translated

#: Full reads of big tables may take longer than other statements.
READ_TIMEOUT_S = 300.0
#: From the first packet to the first answer. A full pooler accepts a connection but makes its statements wait.
FIRST_ANSWER_S = 5.0


class Reader:
    """At most one such connection at a time.

    `start` begins a series of statements; call `on_ready` whenever the socket is ready; `results` is set when all are
    done. The first error ends the series; nothing is retried here.
    """

    def __init__(self, database: Database) -> None:
        self.name = database.name
        #: The same server, address and encoding as the worker's own connection.
        self.connect_kwargs = {**(database.session.reached or database.session.connect_kwargs), "async_": True}
        self._connection: Any = None
        self._cursor: Any = None
        self._todo: Iterator[tuple[str, dict[str, Any] | None]] = iter(())
        self._found: list[list[tuple[Any, ...]]] = []
        self.results: list[list[tuple[Any, ...]]] | None = None
        #: Nothing has been answered yet, so there may be no connection.
        self.connecting = True
        self.began_s = 0.0
        #: Deadline of the current step (monotonic).
        self.deadline_s = 0.0

    def start(self, statements: Sequence[tuple[str, dict[str, Any] | None]]) -> None:
        """Connect and run these statements in order. Raises DatabaseError."""
        self._todo = iter(
            [(f"SET statement_timeout = '{READ_TIMEOUT_S:.0f}s'; {queries.BEGIN_SNAPSHOT}", None), *statements]
        )
        self._found, self.results = [], None
        self.began_s = time.monotonic()
        self.deadline_s = self.began_s + FIRST_ANSWER_S
        try:
            self._connection = psycopg2.connect(**self.connect_kwargs)
        except psycopg2.Error as error:
            self.close()
            raise translated(self.name, error) from error

    def fileno(self) -> int:
        return int(self._connection.fileno())

    def on_ready(self) -> int:
        """Continue; returns the select.POLL* event to wait for next, 0 once `results` is set. Raises DatabaseError."""
        try:
            state = self._connection.poll()
            while state == psycopg2.extensions.POLL_OK:
                if not self._next():
                    return 0
                state = self._connection.poll()
        except (psycopg2.Error, UnicodeDecodeError) as error:
            self.close()
            raise translated(self.name, error) from error
        return select.POLLIN if state == psycopg2.extensions.POLL_READ else select.POLLOUT

    def _next(self) -> bool:
        if self._cursor is None:
            self._cursor = self._connection.cursor()
        else:
            self.connecting = False
            self.deadline_s = time.monotonic() + READ_TIMEOUT_S + 3
            self._found.append(self._cursor.fetchall() if self._cursor.description else [])
        following = next(self._todo, None)
        if following is None:
            self.results = self._found[1:]
            self.close()
            return False
        self._cursor.execute(*following)
        return True

    def close(self) -> None:
        """Close, whatever state it is in."""
        if self._connection is not None and not self._connection.closed:
            self._connection.close()
        self._connection = self._cursor = None
