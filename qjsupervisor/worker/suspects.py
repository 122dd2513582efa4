"""Jobs during whose claim the connection ended, perhaps because of their rows.

One such row would end every connection that claims it together with others. A job that was involved twice is
therefore claimed alone, and deferred if it ends the connection alone too.
"""

from __future__ import annotations

from collections.abc import Iterable

from structlog.typing import FilteringBoundLogger

from ..postgres.database import Database
from .jobs import JobRecord, State
from .rows import Rows

#: A job is claimed alone after this many lost connections during its claim.
BREAKS = 2


class Suspects:
    """The suspects of one worker; what is known of each is in its record (`broke`)."""

    def __init__(self, database: Database, rows: Rows, log: FilteringBoundLogger) -> None:
        self._database = database
        self._rows = rows
        self._log = log
        #: Whether there may be any.
        self.any = False

    def note_broken(self, claiming: Iterable[JobRecord]) -> None:
        """The connection ended during the claim of these jobs."""
        for record in claiming:
            record.broke += 1
            self.any = self.any or record.broke >= BREAKS

    def sift(self, claims: dict[int, int], now_s: float) -> dict[int, int]:
        """Take suspects out of these claims and claim them alone, one per turn. Raises DatabaseError."""
        jobs, backlog = self._rows.jobs, self._rows.backlog
        suspects = {i: jobs.of(i) for i in claims if jobs.of(i).broke >= BREAKS}
        known = [record for state in (State.WAITING, State.DEFERRED) for record in jobs.all_in(state)]
        self.any = any(record.broke >= BREAKS for record in known)
        broken = [job_id for job_id, record in suspects.items() if record.broke > BREAKS]
        if broken:
            self._rows.unclaim(broken)
            for job in self._database.read_ids(broken):
                suspects[job.id].broke = BREAKS
                self._rows.defer(job, now_s)
                self._log.warning("job_refused", job_id=job.id, reason="the connection ends when it is claimed")
        good = {job_id: former for job_id, former in claims.items() if job_id not in suspects}
        alone = [job_id for job_id in suspects if job_id not in broken]
        backlog.taken += alone if good else alone[1:]
        return good or dict.fromkeys(alone[:1], 0)
