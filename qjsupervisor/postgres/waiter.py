"""How psycopg2 waits in a worker: its green mode, with a deadline, and with the worker's heartbeat while it lasts.

A silent server must not hold a worker for ever, and a worker that waits for one must not look as if it hung. It knows
of no database, and never closes a connection.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.extensions

#: A statement that takes longer is given up, and the connection with it; the server is told the same.
STATEMENT_TIMEOUT_S = 15.0
#: How often a heartbeat is given while a statement is waited for.
_WAIT_SLICE_S = 1.0


class Waiter:
    """How psycopg2 waits in this process: `stamp` is called while it does, and no wait is for ever."""

    def __init__(self, stamp: Callable[[], None]) -> None:
        self._stamp = stamp
        self.limit_s = STATEMENT_TIMEOUT_S

    def install(self) -> None:
        """Make psycopg2 wait here, for the whole process."""
        psycopg2.extensions.set_wait_callback(self._wait)

    def _wait(self, connection: Any) -> None:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        # A little longer than the server's own limit: its word is better than a cut connection.
        deadline_s = time.monotonic() + self.limit_s + 3
        poller = select.poll()
        while state != psycopg2.extensions.POLL_OK:
            reads = state == psycopg2.extensions.POLL_READ
            poller.register(connection.fileno(), select.POLLIN if reads else select.POLLOUT)
            while not poller.poll(_WAIT_SLICE_S * 1000):
                self._stamp()
                if time.monotonic() > deadline_s:
                    # psycopg2 closes the connection on this, and holds its lock: close() here would wait for ever.
                    raise psycopg2.OperationalError("the server does not answer")
            state = connection.poll()
