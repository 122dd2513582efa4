"""How a worker that has nothing to do makes room: the porter takes its database over, and the worker exits.

The worker looks now and then, only where idle_timeout is set. Once nothing has happened for that time it tells the
master; the porter connects, listens and waits for the leader lock. Then the worker looks once more and hands the lock
over. What arrives from then on is the porter's: it listened before it got the lock, and looks at the rows after.

A worker that comes after a porter waits for the lock in the same way, and reads its database when it has it.
"""

from __future__ import annotations

import math

from ..states import EXIT_STOPPED
from .module_gate import ModuleGate
from .orders import Instructions
from .parts import Parts
from .progress import Progress
from .serving import Serving

#: A job that is due within this time keeps its worker.
HORIZON_S = 3600.0
#: How often the worker looks, as a part of idle_timeout.
_LOOKS = 4
#: How often, and how many times, it tries to hand the lock over to a porter that said that it waits.
_AGAIN_S = 0.02
_TRIES = 50


class Dozing:
    """One worker's way to its porter, and from it."""

    def __init__(self, parts: Parts, progress: Progress, instructions: Instructions) -> None:
        self._parts = parts
        self._progress = progress
        self._instructions = instructions
        self._timeout_s = parts.settings.rules.idle_timeout_s
        #: When to look whether there is something to do; not set where idle_timeout is not.
        self.due = parts.deadline()
        #: Since when nothing has happened, and the number of jobs that were sent and ended by then.
        self._idle_since_s = 0.0
        self._seen = (0, 0)
        self._tries = 0

    def apply(self, timeout_s: float | None) -> None:
        """The configuration was read again."""
        if timeout_s != self._timeout_s:
            self._timeout_s = timeout_s
            self._set_due(self._parts.loop.now_s())

    def arrive(self, now_s: float) -> None:
        """The database is served from now on."""
        self._instructions.doze = False
        self._idle_since_s = now_s
        self._set_due(now_s)

    def _set_due(self, now_s: float) -> None:
        self.due.set(math.inf if self._timeout_s is None else now_s + self._timeout_s / _LOOKS)

    def take_over(self) -> None:
        """The porter has the leader lock: have it handed over. Raises DatabaseError."""
        self._instructions.from_porter = False
        self._parts.reporting.tell({"is": "door"})
        self._parts.database.leadership.take_over()

    def look(self, serving: Serving, gate: ModuleGate, now_s: float) -> None:
        """See whether there is anything to do; hand over where the porter waits. Raises DatabaseError."""
        self._set_due(now_s)
        seen = (serving.dispatched, serving.finished)
        if seen != self._seen or gate.is_closed or self._is_busy():
            self._seen, self._idle_since_s = seen, now_s
            self._stay()
            return
        rest = self._parts.database.rest()
        if not rest.lasts(HORIZON_S) or self._is_busy():
            self._idle_since_s = now_s
            self._stay()
        elif self._instructions.doze:
            self._hand_over(serving, now_s)
        elif self._timeout_s is not None and now_s >= self._idle_since_s + self._timeout_s:
            self._parts.reporting.tell({"is": "idle", "failed": rest.failed})

    def _is_busy(self) -> bool:
        return self._parts.dispatcher.open > 0 or len(self._parts.database.notified) > 0

    def _stay(self) -> None:
        if self._instructions.doze:
            self._instructions.doze, self._tries = False, 0
            self._parts.reporting.tell({"is": "stays"})

    def _hand_over(self, serving: Serving, now_s: float) -> None:
        if self._parts.database.leadership.hand_over():
            serving.drain(now_s, connected=False)
            self._parts.reporting.tell({"is": "dozes"})
            self._progress.exit_code = EXIT_STOPPED
            return
        self._tries += 1
        if self._tries >= _TRIES:
            self._stay()
        else:
            self.due.set(now_s + _AGAIN_S)
