"""Finds dead jobs among those that hold a permit without a request of ours, by the contract's rule.

Queries only while there are such jobs. A job with an open request may be slow, but is not one of them.
"""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from ..job import Job
from ..loop import Deadline
from ..postgres.database import Database
from .claiming import Claims
from .jobs import JobRecord, State
from .rows import Rows, wait_longer

#: Lower bound set by the contract.
DEAD_AFTER_S = 10.0
#: A job must look dead twice, this far apart, because `started` is committed a moment before its lock row is locked;
#: if its row does not say when it started, for DEAD_AFTER_S.
DEAD_AGAIN_S = 1.0
#: Interval of checks.
DEAD_CHECK_S = 2.0


class Unattended:
    """The unattended jobs of one database."""

    def __init__(
        self, database: Database, claims: Claims, rows: Rows, log: FilteringBoundLogger, look: Deadline
    ) -> None:
        """`look`: when to check; not set while there are none."""
        self._database = database
        self._claims = claims
        self._rows = rows
        self._jobs = rows.jobs
        self._log = log
        self.look = look
        #: Earliest time of the next check.
        self._from_s = 0.0

    def expect(self) -> None:
        """There is an unattended job."""
        self.look.set_if_idle(self._from_s)

    def revive(self, now_s: float) -> list[Job]:
        """Check, and set dead jobs back to pending; returns those, as they are now. Raises DatabaseError."""
        self._look_at(now_s + DEAD_CHECK_S)
        records = {record.id: record for record in self._jobs.all_in(State.UNATTENDED) if record.until_s <= now_s}
        dead = self._database.look_dead(records, DEAD_AFTER_S) if records else {}
        certain = {}
        for job_id, record in records.items():
            state, dated = dead.get(job_id, ("", False))
            if not state:
                record.dead_since_s = 0.0
                if record.is_stuck:
                    self._rows.unstick(record)
            elif self._is_certain(record, now_s, dated=dated):
                certain[job_id] = state
        if not certain:
            return []
        revived, refused = self._claims.revive(certain, DEAD_AFTER_S)
        for job_id in refused:
            wait_longer(records[job_id], now_s)
            self._rows.stick(records[job_id])
        for job in revived:
            self._log.warning("job_found_dead", job_uuid=job.uuid, channel=job.channel, state=job.state)
        return revived

    def _look_at(self, at_s: float) -> None:
        self._from_s = at_s
        if self._jobs.has(State.UNATTENDED):
            self.look.set(at_s)
        else:
            self.look.clear()

    def _is_certain(self, record: JobRecord, now_s: float, *, dated: bool) -> bool:
        """Whether a job has looked dead for long enough; `dated`: its row says when it started."""
        if not record.dead_since_s:
            record.dead_since_s = now_s
            self._look_at(now_s + DEAD_AGAIN_S)
        return now_s - record.dead_since_s >= (DEAD_AGAIN_S * 0.9 if dated else DEAD_AFTER_S)
