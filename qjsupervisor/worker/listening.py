"""Listens for notifications between statements, with the worker's connection in the loop.

The connection comes and goes, and is ignored for moments while only the worker's own jobs send notifications. That
LISTEN works is verified by a notification to itself. Starts nothing and reads no row.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable

from ..errors import DatabaseUnavailable
from ..loop import Deadline, Loop
from ..postgres.database import Database

#: Interval of that check; with SIGN_LIMIT_S a dead connection is noticed within 30 s.
LISTEN_CHECK_S = 20.0
#: While jobs are being started, their own notifications (started, done) arrive one by one. They are left unread for
#: this long after a start, or until the next statement, which reads them too: a new job waits no longer than that.
QUIET_S = 0.008
#: And for this long if no permit is left for any channel: until one is free a new job changes nothing, and the
#: statement that reads an ended job's row also reads the notifications.
FULL_QUIET_S = 0.05


class Listening:
    """One worker's LISTEN connection in the loop."""

    def __init__(
        self,
        database: Database,
        loop: Loop,
        on_ready: Callable[[float], None],
        check: Deadline,
        leader_timeout_s: float | None = None,
    ) -> None:
        """`leader_timeout_s`: the server ends a session that is silent for this long."""
        #: Three times within that, so that a late one does no harm.
        self._check_interval_s = (
            LISTEN_CHECK_S if leader_timeout_s is None else min(LISTEN_CHECK_S, leader_timeout_s / 3)
        )
        self._database = database
        self._loop = loop
        self._on_ready = on_ready
        self._watched_fd = -1
        database.session.on_ended = self._forget
        self.quiet_until_s = 0.0
        #: Notifications are ignored until `quiet_until_s`.
        self.is_quiet = False
        self._dispatched = 0
        self._check_sent = False
        #: When to check LISTEN next.
        self.check = check

    def watch(self, now_s: float, *, busy: bool) -> None:
        """Register the current connection in the loop; `busy`: requests are open, whose jobs send notifications."""
        fd = self._database.fileno() if self._database.connected else -1
        if fd < 0 and self._database.connected:
            self._loop.call_at(now_s, self._on_ready)  # the connection has ended: have it noticed
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
        """Unregister the socket: it is closed or to be ignored."""
        if self._watched_fd >= 0:
            self._loop.unregister(self._watched_fd)
            self._watched_fd = -1

    def note_started(self, dispatched: int, now_s: float, *, full: bool) -> None:
        """Ignore notifications for a moment if `dispatched`, the total of started jobs, has grown.

        `full`: nothing else could start anywhere.
        """
        if dispatched > self._dispatched:
            self._dispatched = dispatched
            self.quiet_until_s = now_s + (FULL_QUIET_S if full else QUIET_S)

    def begin_checks(self) -> None:
        """Begin to check a new LISTEN connection."""
        self.check.set(time.monotonic() + self._check_interval_s)
        self._check_sent = False

    def check_listen(self, now_s: float) -> None:
        """Check that LISTEN works: a notification to itself must have arrived by the next check.

        Raises DatabaseError.
        """
        if self._check_sent and not self._database.notified.heard_itself:
            raise DatabaseUnavailable(
                self._database.name, "LISTEN hears nothing: is there a pooler in transaction mode in between?"
            )
        self._database.call_itself()
        self._check_sent = True
        self.check.set(now_s + self._check_interval_s)
