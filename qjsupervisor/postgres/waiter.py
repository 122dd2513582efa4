"""How a session waits for its server: with a deadline, and with a sign of life while it lasts.

A silent server must not hold anybody for ever, and a worker that waits for one must not look as if it hung. It knows
of no database, and never closes a connection.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable
from typing import Any

from psycopg2 import extensions

#: A statement that takes longer is given up, and the connection with it; the server is told the same.
STATEMENT_TIMEOUT_S = 15.0
#: An answer that takes longer is late.
LATE_S = 2.0
#: How often a heartbeat is given while a statement is waited for.
_WAIT_SLICE_S = 1.0
_EVENTS = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}


class Waiter:
    """Waits for asynchronous connections; `stamp` is called while it does, and no wait is for ever."""

    def __init__(self, stamp: Callable[[], None] = lambda: None) -> None:
        self._stamp = stamp
        #: Called, once a wait, when an answer is late. It must not use the connection.
        self.on_late: Callable[[], None] = lambda: None

    def wait(self, connection: Any, deadline_s: float) -> None:
        """Until the connection has done what it was told. TimeoutError at the deadline; psycopg2.Error."""
        state = connection.poll()
        late_s = math.inf if state == extensions.POLL_OK else time.monotonic() + LATE_S
        while state != extensions.POLL_OK:
            poller = select.poll()
            # Anew each time: libpq changes the descriptor while it connects.
            poller.register(connection.fileno(), _EVENTS[state])
            while True:
                now_s = time.monotonic()
                left_s = deadline_s - now_s
                if left_s <= 0:
                    raise TimeoutError
                if now_s >= late_s:
                    late_s = math.inf
                    self.on_late()
                if poller.poll(min(left_s, _WAIT_SLICE_S) * 1000):
                    break
                self._stamp()
                if time.monotonic() >= late_s:
                    late_s = math.inf
                    self.on_late()
            state = connection.poll()
