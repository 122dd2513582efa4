"""Where a worker is on its way to serving its database, and why; what the master and the log are told of it."""

from __future__ import annotations

import time

from ..backoff import GIVE_UP_S
from ..loop import Deadline
from ..states import Phase
from .reporting import Loss, Reporting


class Progress:
    """One worker's phase."""

    def __init__(self, reporting: Reporting, next_step: Deadline, give_up: Deadline) -> None:
        """`next_step`: the next one towards serving.

        `give_up`: the end of our patience with a database that cannot be read: the permits held for it go back.
        """
        self._reporting = reporting
        self.phase = Phase.DISCONNECTED
        #: What was told of the phase.
        self._shown = (Phase.DISCONNECTED, "")
        self.next_step = next_step
        next_step.ring()
        self.give_up = give_up
        #: Whether permits may be held for a database that cannot be read: those of a predecessor at first.
        self.holds_unread = False
        self.note_unread(time.monotonic())
        #: What to add to the reason, as long as permits were given up.
        self._given_up = ""
        #: What the worker ends with; None: it goes on.
        self.exit_code: int | None = None

    def enter(self, phase: Phase, reason: str, loss: Loss | None = None) -> None:
        """Change the phase; `loss`: the database is lost, or one more attempt came to nothing."""
        self.phase = phase
        self.show(phase, reason + self._given_up, loss)

    def show(self, phase: Phase, reason: str, loss: Loss | None = None) -> None:
        """Tell the phase; once for each change."""
        if loss is not None or (phase, reason) != self._shown:
            self._shown = (phase, reason)
            self._reporting.enter(phase, reason, loss)

    def arrive(self) -> None:
        """The database is served from now on."""
        self._given_up = ""
        self.phase = Phase.SERVING

    def note_unread(self, now_s: float) -> None:
        """The database cannot be read from now on."""
        if not self.holds_unread:
            self.holds_unread = True
            self.give_up.set(now_s + GIVE_UP_S)

    def note_read(self) -> None:
        """The database was read, or no permit is held for it any more."""
        self.holds_unread = False
        self.give_up.clear()

    def note_given_up(self, what: str) -> None:
        """Permits were given up: that goes with every reason until the database is served."""
        self._given_up = what
        phase, shown = self._shown
        self.show(phase, shown + what)
