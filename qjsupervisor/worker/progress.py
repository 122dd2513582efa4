"""A worker's phase and its reason, as reported to the master and the log."""

from __future__ import annotations

import time

from ..backoff import GIVE_UP_S
from ..loop import Deadline
from ..states import Phase
from .reporting import Loss, Reporting


class Progress:
    """One worker's phase."""

    def __init__(self, reporting: Reporting, next_step: Deadline, give_up: Deadline) -> None:
        """`next_step`: when to take the next step towards serving.

        `give_up`: when to return the permits held for a database that cannot be read.
        """
        self._reporting = reporting
        self.phase = Phase.DISCONNECTED
        #: The phase and reason last reported.
        self._shown = (Phase.DISCONNECTED, "")
        self.next_step = next_step
        next_step.ring()
        self.give_up = give_up
        #: Whether permits may be held for a database that is not read, at first those of a predecessor.
        self.holds_unread = False
        self.note_unread(time.monotonic())
        #: Added to the reason after permits were given up.
        self._given_up = ""
        #: The worker's exit code; None while it runs.
        self.exit_code: int | None = None

    def enter(self, phase: Phase, reason: str, loss: Loss | None = None) -> None:
        """Change the phase; `loss`: the database was lost, or another attempt failed."""
        self.phase = phase
        self.show(phase, reason + self._given_up, loss)

    def show(self, phase: Phase, reason: str, loss: Loss | None = None) -> None:
        """Report the phase, once per change."""
        if loss is not None or (phase, reason) != self._shown:
            self._shown = (phase, reason)
            self._reporting.enter(phase, reason, loss)

    def arrive(self) -> None:
        """The database is served."""
        self._given_up = ""
        self.phase = Phase.SERVING

    def note_unread(self, now_s: float) -> None:
        """The database cannot be read."""
        if not self.holds_unread:
            self.holds_unread = True
            self.give_up.set(now_s + GIVE_UP_S)

    def note_read(self) -> None:
        """The database was read, or holds no permits any more."""
        self.holds_unread = False
        self.give_up.clear()

    def note_given_up(self, what: str) -> None:
        """Permits were given up; this is added to every reason until the database is served."""
        self._given_up = what
        phase, shown = self._shown
        self.show(phase, shown + what)
