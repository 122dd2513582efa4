"""One connection to one database, in autocommit mode, for the worker, the scout and the commands.

It overrides, in one place for every process, what a role, a database or the environment may have set: encoding, time
limits, number formats. Each address of the server gets the full connection timeout. Every wait has a limit, and every
psycopg2 error is raised as a DatabaseError. This module knows no table, logs nothing and never sleeps.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg2
from psycopg2 import extensions

from ..config.environment import server_of
from ..errors import DatabaseError, DatabaseGone, DatabaseUnavailable, ServerDown
from .addresses import is_silent, is_wrong_server, rounds
from .failures import LOCK_NOT_AVAILABLE, ended_by_server, is_undecodable, translated, why_unreachable, with_place
from .waiter import STATEMENT_TIMEOUT_S, Waiter

#: If connect_kwargs do not say.
CONNECT_LIMIT_S = 10.0
#: We wait a little longer than the server's own limit, because its error is better than a cut connection.
_GRACE_S = 3.0
#: After a connect that got no answer: how long another question may take that any server answers at once.
_SILENCE_S = 2.0
#: Settings that a role or a database may have changed in a way that ends or distorts our sessions:
#: (first version that has it, name, value).
_SETTINGS = (
    (0, "idle_in_transaction_session_timeout", "0"),
    (0, "lock_timeout", "0"),
    (0, "extra_float_digits", "3"),
    (140000, "idle_session_timeout", "0"),
    (170000, "transaction_timeout", "0"),
)
#: For text without an encoding: each byte is one character, and survives unchanged in both directions.
_BYTES = "LATIN1"
#: Python's codecs for the PostgreSQL encodings that this process reads byte by byte.
_CODECS: dict[str, str] = {}


class Session:
    """One connection at a time; `reached` says where to. `waiter` sends heartbeats while we wait for the server."""

    def __init__(
        self,
        database: str,
        connect_kwargs: Mapping[str, Any],
        waiter: Waiter | None = None,
        *,
        connect_s: float | None = None,
        settings: Sequence[tuple[int, str]] = (),
        for_people: bool = False,
    ) -> None:
        """`connect_s`: limit for each address. `settings`: (first server version, statement) to run on connecting.

        `for_people`: text without a valid encoding is shown as well as possible.
        """
        self.database = database
        self.connect_kwargs = dict(connect_kwargs)
        self._connect_s = connect_s or float(connect_kwargs.get("connect_timeout") or CONNECT_LIMIT_S)
        self._waiter = waiter or Waiter()
        self._more_settings = tuple(settings)
        self._for_people = for_people
        #: The most likely encoding of a raw session's text.
        self._codec = "utf-8"
        #: How long we wait for a statement. The server's own limit is set by statements.
        self.limit_s = STATEMENT_TIMEOUT_S
        #: Deadline for all statements together (monotonic).
        self.deadline_s = math.inf
        #: Keyword arguments that reproduce the server, address and encoding of this connection.
        self.reached: dict[str, Any] = {}
        #: Text is read byte by byte, because the database has no encoding or a row does not fit it.
        self.is_raw = False
        #: Called before, or at the latest just after, the socket is closed: its number is another socket's next.
        self.on_ended: Callable[[], None] = lambda: None
        self._connection: Any = None
        self._cursor: Any = None

    # -- connection --------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect to the first suitable address that answers. Raises DatabaseUnavailable or DatabaseGone."""
        for places in rounds(self.connect_kwargs):
            failures = []
            for kwargs in places:
                try:
                    self._connect(kwargs)
                except (DatabaseUnavailable, DatabaseGone) as error:
                    failures.append(error)
                    continue
                return
            if not any(is_wrong_server(str(error)) for error in failures):
                break
        raise self._worst(failures)

    def _worst(self, failures: list[DatabaseUnavailable | DatabaseGone]) -> DatabaseError:
        """One error for all addresses; DatabaseGone only if all of them say so."""
        down = [error for error in failures if isinstance(error, ServerDown)]
        if len(down) == len(failures):
            return ServerDown(self.database, down[0].server, "; ".join(dict.fromkeys(error.reason for error in down)))
        first = next((error for error in failures if isinstance(error, DatabaseUnavailable)), failures[0])
        said = dict.fromkeys(str(error) for error in failures)
        if len(said) == 1:
            return first
        kind = DatabaseUnavailable if isinstance(first, DatabaseUnavailable) else type(first)
        return kind(self.database, "; ".join(said))

    def _connect(self, kwargs: dict[str, Any]) -> None:
        self._open({**kwargs, "client_encoding": "UTF8"})
        encoding = str(self._connection.get_parameter_status("server_encoding"))
        self.is_raw = self.is_raw or encoding == "SQL_ASCII"
        if self.is_raw:
            # No conversion by the server, which would refuse such text or leave it as it is.
            as_it_is = _BYTES
            if encoding != "SQL_ASCII":
                as_it_is = encoding
                self._codec = _CODECS.setdefault(encoding, extensions.encodings.get(encoding, "utf-8"))
                extensions.encodings[encoding] = "iso8859_1"
            self.close()
            self._open({**kwargs, "client_encoding": as_it_is})
        self._settle()

    def _open(self, kwargs: dict[str, Any]) -> None:
        self.reached = kwargs
        try:
            self._connection = psycopg2.connect(**kwargs, async_=1)
            self._wait(time.monotonic() + self._connect_s)
            self._cursor = self._connection.cursor()
        except (psycopg2.Error, UnicodeError) as error:
            self.close()
            if reason := why_unreachable(error):
                raise self._server_down(reason) from error
            if isinstance(error, UnicodeEncodeError):
                raise DatabaseGone(
                    self.database, f"{self.database!r} is not UTF-8: no database is called that"
                ) from error
            raise with_place(translated(self.database, error), kwargs.get("password")) from error
        except TimeoutError:
            was_reached = self._is_reached()
            silent = was_reached and is_silent(self._connection.fileno(), min(_SILENCE_S, self._connect_s))
            self.close()
            if not was_reached:
                raise self._server_down(f"no connection within {self._connect_s:g} s") from None
            waited = f"no connection within {self._connect_s:g} s{self._where(kwargs)}"
            if silent:
                raise self._server_down(f"it does not answer: {waited}") from None
            raise DatabaseUnavailable(self.database, f"the server does not answer: {waited}") from None

    def _server_down(self, reason: str) -> ServerDown:
        return ServerDown(self.database, server_of(self.connect_kwargs, os.environ), reason)

    def _is_reached(self) -> bool:
        """Whether somebody is at the address, though we are not let in: a pooler perhaps, for one database."""
        try:
            with socket.socket(fileno=os.dup(self._connection.fileno())) as sock:
                sock.getpeername()
        except (OSError, psycopg2.Error):
            return False
        return True

    @staticmethod
    def _where(kwargs: Mapping[str, Any]) -> str:
        where = kwargs.get("hostaddr") or kwargs.get("host")
        return f" at {where}" if where else ""

    def _settle(self) -> None:
        version = self.version
        statements = [(since, f"SET {name} = {value}") for since, name, value in _SETTINGS]
        self.rows("; ".join(each for since, each in [*statements, *self._more_settings] if version >= since))

    def close(self) -> None:
        """Close, whatever state it is in."""
        self.on_ended()
        if self._connection is not None and not self._connection.closed:
            self._connection.close()
        self._connection = self._cursor = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    @property
    def version(self) -> int:
        """The server's version in libpq's numbering: 150004."""
        return int(self._connection.server_version)

    def fileno(self) -> int:
        """The socket, for a selector; -1 if the connection ended and no statement has found out yet."""
        return -1 if self._connection.closed else int(self._connection.fileno())

    def hear(self, notifies: object) -> None:
        """Append notifications to this object from now on, whichever statement they arrive with."""
        self._connection.notifies = notifies

    # -- statements --------------------------------------------------------------------------------------

    def receive(self) -> None:
        """Collect what arrived while no statement was running."""
        self._run(self._connection.poll)

    def rows(
        self, statement: str, params: Mapping[str, Any] | None = None, *, of_row: bool = False
    ) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows, [] if it has none.

        `of_row`: a trigger may refuse the statement because of a row, which does not cost the connection. Neither does
        waiting too long for another session's lock; an open transaction is over then.
        """
        was_raw = self.is_raw
        try:
            found: list[tuple[Any, ...]] = self._run(lambda: self._execute(statement, params), of_row=of_row)
        except DatabaseError:
            if not self._for_people or self.is_raw is was_raw:
                raise
            self.connect()
            found = self._run(lambda: self._execute(statement, params))
        return found

    def _execute(self, statement: str, params: Mapping[str, Any] | None) -> list[tuple[Any, ...]]:
        readable = self._for_people and self.is_raw
        self._cursor.execute(statement, self._as_bytes(params) if readable and params else params)
        self._wait(min(time.monotonic() + self.limit_s + _GRACE_S, self.deadline_s))
        found = self._cursor.fetchall() if self._cursor.description else []
        try:
            self._connection.poll()  # notifications that came with the answer: the socket will not signal them
        except psycopg2.Error:
            self.on_ended()  # we have the rows; that the connection ended since is found out next
        return [tuple(map(self._as_text, row)) for row in found] if readable else found

    def _as_bytes(self, params: Mapping[str, Any]) -> dict[str, Any]:
        def raw(value: Any) -> Any:
            if isinstance(value, list):
                return [raw(each) for each in value]
            return value.encode(self._codec).decode("latin-1") if isinstance(value, str) else value

        return {name: raw(value) for name, value in params.items()}

    def _as_text(self, value: Any) -> Any:
        return value.encode("latin-1").decode(self._codec, "replace") if isinstance(value, str) else value

    def _wait(self, deadline_s: float) -> None:
        self._waiter.wait(self._connection, deadline_s)

    def _run(self, action: Callable[[], Any], *, of_row: bool = False) -> Any:
        try:
            return action()
        except (psycopg2.Error, UnicodeError) as error:
            found = ended_by_server(translated(self.database, error, of_row=of_row), self._connection.notices)
            # The next connection reads text byte by byte, so that the row affects only itself.
            self.is_raw = self.is_raw or is_undecodable(found)
            if not (found.of_row or found.sqlstate == LOCK_NOT_AVAILABLE):
                self.close()
            raise found from error
        except TimeoutError:
            self.close()
            reason = f"the server does not answer: no answer within {self.limit_s:g} s"
            raise DatabaseUnavailable(self.database, reason) from None
