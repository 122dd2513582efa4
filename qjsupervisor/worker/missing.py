"""Jobs without a row: one was spoken of, and which of those that are known it is, nobody says."""

from __future__ import annotations

import time

from ..loop import Deadline
from ..postgres.database import Database
from .rows import Rows

#: How often they are looked for, at most, and which part of the time that takes.
MISSING_S, MISSING_SHARE = 0.1, 0.05


class MissingRows:
    """The missing rows of one database."""

    def __init__(self, database: Database, rows: Rows, look: Deadline) -> None:
        """`look`: when the known jobs are compared with the table; not set while no missing one was spoken of."""
        self._database = database
        self._rows = rows
        self.look = look
        #: Not before: anybody can speak of jobs that do not exist, as often as he likes.
        self._from_s = 0.0

    def expect(self) -> None:
        """A job without a row was spoken of."""
        self.look.set_if_idle(self._from_s)

    def forget(self, now_s: float) -> None:
        """Forget the jobs that are known here and have no row. Raises DatabaseError."""
        self.look.clear()
        ids = self._rows.backlog.known()
        for job_id in self._database.without_row(ids) if ids else ():
            self._rows.backlog.forget(job_id)
        ended_s = time.monotonic()
        self._from_s = ended_s + max(MISSING_S, (ended_s - now_s) / MISSING_SHARE)
