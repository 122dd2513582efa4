"""Runs blocking database work outside the loop: few threads, a short queue, results delivered in the loop."""

from __future__ import annotations

import queue
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..errors import QJSupervisorError
from ..logs import get_logger
from ..loop import Loop

THREADS = 2
#: Calls that may wait for a thread; more are refused.
MOST_WAITING = 16

_log = get_logger()

#: Receives a call's result: a value, or an error message for people.
Take = Callable[[Any, str], None]
_Call = tuple[Callable[[], Any], Take]


class Background:
    """Runs calls in threads, which are created on first use."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._calls: queue.Queue[_Call] = queue.Queue(MOST_WAITING)
        self._done: queue.SimpleQueue[tuple[Take, Any, str]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        loop.register(self._reader, selectors.EVENT_READ, self._deliver)

    def close(self) -> None:
        """Deliver nothing more; a call still running ends with the process."""
        self._loop.unregister(self._reader)
        self._reader.close()
        self._writer.close()

    def submit(self, call: Callable[[], Any], take: Take) -> None:
        """Call in a thread, then `take(value, error)` in the loop; `error` is '' or one line for people."""
        if len(self._threads) < THREADS:
            self._threads.append(threading.Thread(target=self._work, daemon=True))
            self._threads[-1].start()
        try:
            self._calls.put_nowait((call, take))
        except queue.Full:
            take(None, "too many ask at once: try again in a moment")

    def _work(self) -> None:
        while True:
            call, take = self._calls.get()
            value, error = None, ""
            try:
                value = call()
            except QJSupervisorError as known:
                error = str(known)
            except Exception as unknown:  # noqa: BLE001  (a bug: it must not end the thread, and is told)
                _log.error("monitor_request_failed", reason=str(unknown), exc_info=unknown)
                error = "this cannot be done: see the log"
            self._done.put((take, value, error))
            with suppress(OSError):  # full, so already readable; or closed
                self._writer.send(b"x")

    def _deliver(self, _now_s: float) -> None:
        with suppress(BlockingIOError):
            self._reader.recv(4096)
        with suppress(queue.Empty):
            while True:
                take, value, error = self._done.get_nowait()
                take(value, error)
