"""Which jobs that hold a permit without a request of ours are dead: the contract's rule.

They are asked about only while there are any. A job whose request is open is none of them: that one may be slow, but
it was not forgotten.
"""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from ..job import Job
from ..loop import Deadline
from ..postgres.database import Database
from .claiming import Claims
from .jobs import JobRecord, Jobs, State
from .rows import wait_longer

#: Contract: never shorter.
DEAD_AFTER_S = 10.0
#: A job has to look dead twice, this far apart: `started` is committed a moment before its lock row is locked. One
#: whose row does not say since when, for DEAD_AFTER_S.
DEAD_AGAIN_S = 1.0
#: How often they are looked at.
DEAD_CHECK_S = 2.0


class Unattended:
    """The jobs of one database that nobody here waits for."""

    def __init__(
        self, database: Database, claims: Claims, jobs: Jobs, log: FilteringBoundLogger, look: Deadline
    ) -> None:
        """`look`: when they are to be looked at; not set while there are none."""
        self._database = database
        self._claims = claims
        self._jobs = jobs
        self._log = log
        self.look = look
        #: Not before.
        self._from_s = 0.0

    def expect(self) -> None:
        """There is one."""
        self.look.set_if_idle(self._from_s)

    def revive(self, now_s: float) -> list[Job]:
        """Look, and put back those that are dead; these, as they are now. Raises DatabaseError."""
        self._look_at(now_s + DEAD_CHECK_S)
        records = {record.id: record for record in self._jobs.all_in(State.UNATTENDED) if record.until_s <= now_s}
        dead = self._database.look_dead(records, DEAD_AFTER_S) if records else {}
        certain = {}
        for job_id, record in records.items():
            state, dated = dead.get(job_id, ("", False))
            if not state:
                record.dead_since_s = 0.0
            elif self._is_certain(record, now_s, dated=dated):
                certain[job_id] = state
        revived = self._claims.revive(certain, DEAD_AFTER_S) if certain else []
        for job_id in self._claims.refused if certain else ():
            wait_longer(records[job_id], now_s)
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
        """Whether a job that looks dead has done so for long enough; `dated`: its row says since when."""
        if not record.dead_since_s:
            record.dead_since_s = now_s
            self._look_at(now_s + DEAD_AGAIN_S)
        return now_s - record.dead_since_s >= (DEAD_AGAIN_S * 0.9 if dated else DEAD_AFTER_S)
