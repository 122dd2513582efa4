"""Returns claimed jobs that were not run to `pending`."""

from __future__ import annotations

from collections.abc import Sequence

from ..job import Job
from ..odoo.request import End
from ..postgres.database import Database
from ..states import JobState
from .claiming import Claims
from .jobs import JobRecord
from .rows import Rows, wait_longer


class GivingBack:
    """Give-backs of one worker."""

    def __init__(self, database: Database, rows: Rows, claims: Claims) -> None:
        self._database = database
        self._rows = rows
        self._claims = claims

    def give_back_unrun(self, not_run: Sequence[tuple[JobRecord, Job]], now_s: float) -> None:
        """Give back jobs whose requests failed, and defer them unless no Odoo was asked.

        Raises DatabaseError.
        """
        unasked = {r.id for r, _job in not_run if r.ended is not None and r.ended.outcome.end is End.UNASKED}
        for job in self.give_back([job for _record, job in not_run], now_s):
            if job.id in unasked:
                self._rows.apply(job)
            else:
                self._rows.defer(job, now_s)

    def give_back(self, jobs: Sequence[Job], now_s: float) -> list[Job]:
        """Set enqueued jobs back to `pending`; returns those that were, as they are now. Raises DatabaseError.

        A row that could not be changed was taken by Odoo meanwhile or is locked, so its job still counts: it keeps its
        permit, and its row is read again.
        """
        records, backlog = self._rows.jobs, self._rows.backlog
        for job in jobs:
            self._rows.attend(records.of(job.id), job)
        ids, refused = self._claims.give_back([job.id for job in jobs])
        given = set(ids)
        for job in jobs:
            if job.id in given:
                continue
            backlog.hold(job.id, job.channel)
            if job.id in refused:
                wait_longer(records.of(job.id), now_s)
            else:
                self._database.notified.add(job.uuid)
        back = [job._replace(state=JobState.PENDING) for job in jobs if job.id in given]
        for job in back:
            backlog.forget(job.id)
        return back
