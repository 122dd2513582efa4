"""Claims the database does not answer in time: their permits go back, so that other databases can use them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from ..job import Job
from ..loop import Deadline
from ..postgres.database import Database
from ..postgres.waiter import LATE_S
from .jobs import State
from .permits import Permits
from .rows import Rows

#: A claim that is late so soon after another one is not a hiccup: this database is slow.
AGAIN_S = 60.0


class LateClaims:
    """The late claims of one worker."""

    def __init__(self, database: Database, rows: Rows, permits: Permits, due: Deadline) -> None:
        """`due`: when an unanswered claim is late, while the database is away."""
        self._database = database
        self._rows = rows
        self._permits = permits
        #: Time of the last claim.
        self.claimed_s = 0.0
        self.due = due
        #: Permits were returned during a statement, so the rows of their jobs must be read.
        self.any = False
        self._last_s = -math.inf
        #: The last claim and one shortly before it were late.
        self._again = False
        database.waiter.on_late = self.release

    def lost(self) -> None:
        """The database went away, perhaps during a claim."""
        self.due.set(self.claimed_s + LATE_S if self._rows.jobs.has(State.CLAIMING) else math.inf)

    def release(self) -> None:
        """Return the permits. Called during a statement, or while the database is away.

        No job was sent; those claimed nevertheless are given back when their rows are read.
        """
        jobs, backlog = self._rows.jobs, self._rows.backlog
        for record in [*jobs.all_in(State.CLAIMING), *map(jobs.of, backlog.taken)]:
            backlog.forget(record.permit)
            jobs.enter(record, State.LATE)
        backlog.taken = []
        self.due.clear()
        self.any = True
        now_s = time.monotonic()
        self._again, self._last_s = now_s < self._last_s + AGAIN_S, now_s
        self._permits.exchange(backlog, now_s, start=False)

    def permit_again(self, claimed: Iterable[Job], now_s: float) -> None:
        """The answer came after all: claims late again are not given back if there are permits for them now.

        Where every claim takes this long, jobs would otherwise be claimed and given back for ever.
        """
        if not self._again:
            return
        jobs, backlog = self._rows.jobs, self._rows.backlog
        late = [job.id for job in claimed if jobs.state(job.id) is State.LATE]
        for job in claimed:
            if job.id in late:
                backlog.put(job.pending)
        self._permits.exchange(backlog, now_s, start=True)
        for job_id in late:
            if job_id in backlog.taken:
                backlog.taken.remove(job_id)
                jobs.wait(jobs.of(job_id))
                jobs.enter(jobs.of(job_id), State.CLAIMING)

    def read(self) -> None:
        """Read the rows of jobs not claimed in time. Raises DatabaseError."""
        self.any = False
        late = self._rows.jobs.all_in(State.LATE)
        rows = self._database.read_ids([record.id for record in late]) if late else []
        for job in rows:
            self._rows.apply(job)
        for gone in self._rows.jobs.all_in(State.LATE):
            self._rows.forget(gone)
