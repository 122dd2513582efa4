"""How a session waits for its server: with a deadline, and with heartbeats meanwhile.

A silent server must not block a process for ever, and a worker that waits for one must not look hung. This module
knows no database and never closes a connection.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable
from typing import Any

from psycopg2 import extensions

#: A statement that takes longer is abandoned together with its connection. The server has the same limit.
STATEMENT_TIMEOUT_S = 15.0
#: An answer that takes longer than this is late.
LATE_S = 2.0
#: Interval between heartbeats during a wait.
WAIT_SLICE_S = 1.0
_EVENTS = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}


class Waiter:
    """Waits for asynchronous connections, calling `stamp` meanwhile. Every wait has a deadline."""

    def __init__(self, stamp: Callable[[], None] = lambda: None) -> None:
        self._stamp = stamp
        #: When the next heartbeat is due.
        self._beat_s = 0.0
        #: Called at most once per wait, when the answer is late. It must not use the connection.
        self.on_late: Callable[[], None] = lambda: None

    def wait(self, connection: Any, deadline_s: float) -> None:
        """Wait until the connection has finished. Raises TimeoutError at the deadline, or psycopg2.Error."""
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        late_s = time.monotonic() + LATE_S
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
                # Also during an answer that comes in without a pause, and between many that are short.
                if now_s >= self._beat_s:
                    self._beat_s = now_s + WAIT_SLICE_S
                    self._stamp()
                if poller.poll(min(left_s, WAIT_SLICE_S) * 1000):
                    break
            state = connection.poll()
