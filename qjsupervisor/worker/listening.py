"""How a worker listens to its database between two statements: its connection in the loop.

The connection comes and goes, and is left alone for moments while the worker's own jobs make all the noise. That it
hears at all is seen by what it says to itself. It starts nothing and reads no row.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable

from ..errors import DatabaseUnavailable
from ..loop import Deadline, Loop
from ..postgres.database import Database

#: How often it sees that its connection does; with SIGN_LIMIT_S, a dead one is noticed within 30 s.
LISTEN_CHECK_S = 20.0
#: While jobs are being started, their own notifications (started, done) come in one after the other. They are left to
#: lie for this long after a start, or until the next statement, which brings them along: a new job waits no longer.
QUIET_S = 0.008
#: And for this long where no permit is left for any channel: a new job changes nothing before there is one, and the
#: statement that looks at an ended job brings along what was said until then.
FULL_QUIET_S = 0.05


class Listening:
    """One worker's ear."""

    def __init__(
        self,
        database: Database,
        loop: Loop,
        on_ready: Callable[[float], None],
        check: Deadline,
        leader_timeout_s: float | None = None,
    ) -> None:
        """`leader_timeout_s`: the server ends a session that says nothing for so long."""
        #: Three times within that: one that comes late costs nothing.
        self._check_interval_s = (
            LISTEN_CHECK_S if leader_timeout_s is None else min(LISTEN_CHECK_S, leader_timeout_s / 3)
        )
        self._database = database
        self._loop = loop
        self._on_ready = on_ready
        self._watched_fd = -1
        database.session.on_ended = self._forget
        self.quiet_until_s = 0.0
        #: It does not listen until `quiet_until_s`.
        self.is_quiet = False
        self._dispatched = 0
        self._check_sent = False
        #: When it is next to be seen that the connection hears.
        self.check = check

    def watch(self, now_s: float, *, busy: bool) -> None:
        """Keep the loop in line with the connection; `busy`: requests are open, whose jobs may be noisy."""
        fd = self._database.fileno() if self._database.connected else -1
        if fd < 0 and self._database.connected:
            self._loop.call_at(now_s, self._on_ready)  # it has ended: let it be found out
        self.is_quiet = busy and now_s < self.quiet_until_s
        if self.is_quiet:
            fd = -1
        if fd == self._watched_fd:
            return
        self._forget()
        if fd >= 0:
            self._loop.register(fd, selectors.EVENT_READ, self._on_ready)
        self._watched_fd = fd

    def _forget(self) -> None:
        """The socket is closed, or not to be listened to."""
        if self._watched_fd >= 0:
            self._loop.unregister(self._watched_fd)
            self._watched_fd = -1

    def note_started(self, dispatched: int, now_s: float, *, full: bool) -> None:
        """So many jobs were started since the beginning: where that is more than before, be quiet for a moment.

        `full`: nothing else could start anywhere.
        """
        if dispatched > self._dispatched:
            self._dispatched = dispatched
            self.quiet_until_s = now_s + (FULL_QUIET_S if full else QUIET_S)

    def begin_checks(self) -> None:
        """A connection listens from now on."""
        self.check.set(time.monotonic() + self._check_interval_s)
        self._check_sent = False

    def check_listen(self, now_s: float) -> None:
        """See that the connection still hears: what it says to itself has to have come back by the next time.

        Raises DatabaseError.
        """
        if self._check_sent and not self._database.notified.heard_itself:
            raise DatabaseUnavailable(
                self._database.name, "LISTEN hears nothing: is there a pooler in transaction mode in between?"
            )
        self._database.call_itself()
        self._check_sent = True
        self.check.set(now_s + self._check_interval_s)
