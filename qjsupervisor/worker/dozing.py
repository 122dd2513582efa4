"""Hands the database of an idle worker over to the porter, after which the worker exits.

Only if idle_timeout is set, the worker checks at intervals whether it is idle. After that time without any activity it
tells the master; the porter connects, listens and waits for the leader lock. The worker then checks once more and hands
over the lock. From then on the porter is responsible: it listened before it got the lock, and examines the rows after.
A worker that follows a porter waits for the lock in the same way, and reads its database once it has it.
"""

from __future__ import annotations

import math

from ..states import EXIT_STOPPED
from .module_gate import ModuleGate
from .orders import Instructions
from .parts import WorkerParts
from .progress import Progress
from .serving import Serving

#: A job due within this time keeps its worker.
HORIZON_S = 3600.0
#: Checks per idle_timeout.
_LOOKS = 4
#: Pause and number of tries to hand the lock to a porter that announced it waits.
_AGAIN_S = 0.02
_TRIES = 50


class Dozing:
    """One worker's hand-over to and from a porter."""

    def __init__(self, parts: WorkerParts, progress: Progress, instructions: Instructions) -> None:
        self._parts = parts
        self._progress = progress
        self._instructions = instructions
        self._timeout_s = parts.settings.rules.idle_timeout_s
        #: When to check for idleness; not set without idle_timeout.
        self.due = parts.deadline()
        #: Since when nothing has happened, and the numbers of jobs sent and ended by then.
        self._idle_since_s = 0.0
        self._seen = (0, 0)
        self._tries = 0

    def apply(self, timeout_s: float | None) -> None:
        """Adopt the configured timeout."""
        if timeout_s != self._timeout_s:
            self._timeout_s = timeout_s
            self._set_due(self._parts.loop.now_s())

    def arrive(self, now_s: float) -> None:
        """The database is served."""
        self._instructions.doze = False
        self._idle_since_s = now_s
        self._set_due(now_s)

    def _set_due(self, now_s: float) -> None:
        self.due.set(math.inf if self._timeout_s is None else now_s + self._timeout_s / _LOOKS)

    def take_over(self) -> None:
        """Take the leader lock over from the porter. Raises DatabaseError."""
        self._instructions.from_porter = False
        self._parts.reporting.tell({"is": "door"})
        self._parts.database.leadership.take_over()

    def look(self, serving: Serving, gate: ModuleGate, now_s: float) -> None:
        """Check for idleness; hand over if the porter waits. Raises DatabaseError."""
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
