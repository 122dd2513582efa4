"""Pending jobs that are left alone for a while: nobody ran them when asked, or somebody has their rows locked.

The backlog keeps their places (`set_aside`, `readmit`) and is handed in, as a worker's changes; here is until when. No
row is read or written here. A job whose row is deleted is heard of by its uuid, and told from others by its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..backlog.backlog import Backlog
from ..job import Job

#: A job that nobody would run is set aside for so long, doubled each time.
COOLING_S, COOLING_LIMIT_S = 1.0, 60.0
#: A job whose row somebody else has locked is tried again after so long; or it would take the only permit each time.
LOCKED_S = 1.0
#: Jobs whose attempts are remembered.
MAX_ATTEMPTS = 10_000


@dataclass(slots=True)
class _Aside:
    """A job that is not tried again before `until_s`."""

    job: Job
    until_s: float


class Cooling:
    """The jobs that are set aside."""

    def __init__(self) -> None:
        self._aside: dict[int, _Aside] = {}
        #: How often each job was asked for in vain since it was last run; what was asked for last stands last.
        self._attempts: dict[int, int] = {}

    def not_run(self, backlog: Backlog, job: Job, now_s: float) -> None:
        """Nobody ran a job: each time it waits longer."""
        attempts = self._attempts[job.id] = self._attempts.pop(job.id, 0) + 1
        if len(self._attempts) > MAX_ATTEMPTS:  # of rows that were deleted unheard, probably
            del self._attempts[next(iter(self._attempts))]
        self._set_aside(backlog, job, now_s + min(COOLING_LIMIT_S, COOLING_S * 2 ** min(attempts - 1, 10)))

    def not_claimed(self, backlog: Backlog, job: Job, now_s: float, *, refused: bool) -> None:
        """A job could not be claimed: the server `refused`, or somebody has its row locked."""
        if refused:
            self.not_run(backlog, job, now_s)
        else:
            self._set_aside(backlog, job, now_s + LOCKED_S)

    def _set_aside(self, backlog: Backlog, job: Job, until_s: float) -> None:
        self._aside[job.id] = _Aside(job, until_s)
        backlog.set_aside(job.pending)

    def keeps(self, backlog: Backlog, job: Job) -> bool:
        """Whether a pending job has to wait still; it may have changed meanwhile."""
        aside = self._aside.get(job.id)
        if aside is None:
            return False
        aside.job = job
        backlog.set_aside(job.pending)
        return True

    def readmit(self, backlog: Backlog, job_id: int) -> None:
        """A job is not pending any more."""
        if self._aside.pop(job_id, None) is not None:
            backlog.readmit(job_id)

    def forget_attempts(self, job_id: int) -> None:
        """A job was run, or will never be."""
        self._attempts.pop(job_id, None)

    def forget_gone(self, backlog: Backlog, ids: Iterable[int], uuids: Iterable[str], rows: Iterable[Job]) -> None:
        """The rows of jobs of these ids and uuids were asked for, and `rows` are all there are."""
        if not self._attempts and not self._aside:
            return
        said = set(uuids)
        gone = {*ids, *(job_id for job_id, aside in self._aside.items() if aside.job.uuid in said)}
        for job_id in gone.difference(job.id for job in rows):
            self.readmit(backlog, job_id)
            self.forget_attempts(job_id)

    def warm_up(self, backlog: Backlog, now_s: float) -> None:
        """Let the jobs whose time aside is over compete again."""
        if not self._aside:
            return
        for job_id in [job_id for job_id, aside in self._aside.items() if aside.until_s <= now_s]:
            backlog.readmit(job_id)
            backlog.put(self._aside.pop(job_id).job.pending)

    def ends_s(self) -> Iterator[float]:
        """When each job's time is over."""
        return (aside.until_s for aside in self._aside.values())
