"""Ends all workers, a few at a time so that they do not delay each other."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from ..loop import Timers
from .worker_process import ABORT_GRACE_S, WorkerProcess

#: Workers draining at the same time when the supervisor stops. One takes less time than its successor elsewhere needs
#: to take over, so several would make those compete for the processors.
STOP_AT_ONCE = 2
#: One that takes longer than this to exit keeps no other one waiting.
STOP_NEXT_S = 0.5
#: When all have been told, as a part of the time that they have.
STOP_SPREAD = 0.5


class Ending:
    """The workers that have not been told to end yet."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._to_stop: deque[WorkerProcess] = deque()
        self._to_abort: deque[WorkerProcess] = deque()
        #: When the last one was told to stop.
        self._stopped_s = -math.inf
        #: When the remaining ones are all asked for their stacks at once.
        self._abort_all_s = math.inf

    def stop(self, workers: Iterable[WorkerProcess], graceful_s: float, now_s: float) -> None:
        """Drain the workers, the next one whenever one has exited.

        All at once they would compete for the processors, and each database would wait that long for the supervisor
        that takes it over.
        """
        self._to_stop = deque(workers)
        self._timers.call_at(now_s + graceful_s * STOP_SPREAD, self._stop_rest)
        self._timers.call_at(now_s + STOP_NEXT_S, self._go_on_anyway)
        for _ in range(STOP_AT_ONCE):
            self._stop_next(now_s)

    def abort(self, workers: Iterable[WorkerProcess], now_s: float) -> None:
        """Have workers write their stacks and die, one by one while that is quick, to keep the stacks apart."""
        self._to_abort = deque(workers)
        self._abort_all_s = now_s + ABORT_GRACE_S
        self._timers.call_at(self._abort_all_s, self._abort_next)
        self._abort_next(now_s)

    def go_on(self, now_s: float) -> None:
        """A worker has exited: end the next one."""
        self._stop_next(now_s)
        self._abort_next(now_s)

    def _go_on_anyway(self, now_s: float) -> None:
        if self._to_stop:
            if now_s >= self._stopped_s + STOP_NEXT_S:
                self._stop_next(now_s)
            self._timers.call_at(self._stopped_s + STOP_NEXT_S, self._go_on_anyway)

    def _stop_next(self, now_s: float) -> None:
        self._stopped_s = now_s
        while self._to_stop:
            worker = self._to_stop.popleft()
            worker.stop(now_s, reason="the supervisor stops")
            if worker.child is not None:
                return

    def _stop_rest(self, now_s: float) -> None:
        while self._to_stop:
            self._stop_next(now_s)

    def _abort_next(self, now_s: float) -> None:
        while self._to_abort:
            worker = self._to_abort.popleft()
            if worker.child is None or worker.is_aborting:
                continue
            worker.abort("the supervisor was told to quit", now_s)
            if now_s < self._abort_all_s:
                return
