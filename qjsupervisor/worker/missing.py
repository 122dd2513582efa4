"""Finds known jobs that have no row any more, after a notification about a uuid without a row."""

from __future__ import annotations

import time

from ..loop import Deadline
from ..postgres.database import Database
from .rows import Rows

#: Shortest interval between searches, and the largest share of time they may take.
MISSING_S, MISSING_SHARE = 0.1, 0.05


class MissingRows:
    """The missing rows of one database."""

    def __init__(self, database: Database, rows: Rows, look: Deadline) -> None:
        """`look`: when to compare known jobs with the table; not set while no missing one was announced."""
        self._database = database
        self._rows = rows
        self.look = look
        #: Earliest time of the next search, since anybody can announce non-existent jobs at any rate.
        self._from_s = 0.0

    def expect(self) -> None:
        """A job without a row was announced."""
        self.look.set_if_idle(self._from_s)

    def forget(self, now_s: float) -> None:
        """Forget known jobs that have no row. Raises DatabaseError."""
        self.look.clear()
        ids = self._rows.backlog.known()
        for job_id in self._database.without_row(ids) if ids else ():
            self._rows.backlog.forget(job_id)
        ended_s = time.monotonic()
        self._from_s = ended_s + max(MISSING_S, (ended_s - now_s) / MISSING_SHARE)
