"""Puts each job where its row says: into the backlog, and its record into a state.

Reads and writes no row. A job with an open request of ours is left alone until the request ends (serving.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from structlog.typing import FilteringBoundLogger

from ..backlog.backlog import Backlog
from ..backlog.tree import Change
from ..job import Job, why_unsendable
from ..loop import Deadline
from ..states import JobState
from .jobs import (
    CLAIMING,
    DEFERRED,
    ENDED,
    LATE,
    OVER,
    OWN_NOTIFICATIONS,
    REQUESTED,
    UNATTENDED,
    UNSENDABLE,
    JobRecord,
    Jobs,
)

#: First and longest deferral of a job that was not run; doubled each time.
DEFER_S, DEFER_LIMIT_S = 1.0, 60.0
#: Deferral of a job whose row is locked; otherwise it might take the only permit again and again.
LOCKED_S = 1.0

_PENDING, _DONE, _FAILED = JobState.PENDING.value, JobState.DONE.value, JobState.FAILED.value
_HOLDS = (JobState.ENQUEUED.value, JobState.STARTED.value)
_SENT = (REQUESTED, ENDED)


def wait_longer(record: JobRecord, now_s: float) -> None:
    """A job was not run: increase its deferral."""
    record.attempts += 1
    record.until_s = now_s + min(DEFER_LIMIT_S, DEFER_S * 2 ** min(record.attempts - 1, 10))


class Rows:
    """Applies the rows of one database."""

    def __init__(
        self,
        jobs: Jobs,
        backlog: Backlog,
        log: FilteringBoundLogger,
        on_late_end: Callable[[JobRecord, str], None],
        on_unattended: Callable[[], None],
        release: Deadline,
    ) -> None:
        """`on_late_end`: called with an unattended job and its row's state when it is over.

        `on_unattended`: called when a job becomes unattended. `release`: when the first deferred job may run.
        """
        self.release = release
        self._on_unattended = on_unattended
        self._on_late_end = on_late_end
        self.jobs = jobs
        self.backlog = backlog
        self._log = log

    def apply(self, job: Job) -> None:
        """Put a job where its row says, unless its request is open."""
        record = self.jobs.get(job.id)
        if record is not None and record.state in _SENT:
            self._note_sent(record, job)
            return
        if job.state == _PENDING:
            self._wait(job, record)
            return
        if record is not None and record.state is DEFERRED:
            self.backlog.release(job.id)
        if job.state in _HOLDS:
            self.backlog.hold(job.id, job.channel)
            self.attend(record or self.jobs.of(job.id), job)
            return
        if record is not None and record.state is not OVER:
            if record.state is UNATTENDED:
                self._on_late_end(record, job.state)
            self.jobs.forget(record)
        if job.state == _FAILED:
            self.backlog.fail(job.id, job.channel)
        else:
            self.backlog.forget(job.id)

    def _note_sent(self, record: JobRecord, job: Job) -> None:
        """Handle the row of a job whose request is open, or ended and awaits another read.

        A pending row may not know of its claim, since a promoted standby can lag. The job is over only if it has sent
        as many notifications since as a run takes.
        """
        if record.state is REQUESTED:
            again = job.state == _PENDING and record.heard >= OWN_NOTIFICATIONS
            over = again or job.state not in (*_HOLDS, _PENDING)
            self.jobs.note_row(record, over=over, now_s=time.monotonic())

    def _wait(self, job: Job, record: JobRecord | None) -> None:
        if record is not None and record.state is DEFERRED:
            record.pending = job.pending
            self.backlog.defer(job.pending)
            return
        reason = why_unsendable(job.uuid)
        if reason is not None:
            self._refuse(record or self.jobs.of(job.id), job, reason)
            return
        if record is not None:
            self.jobs.wait(record)
        self.backlog.put(job.pending)

    def _refuse(self, record: JobRecord, job: Job, reason: str) -> None:
        """No request can name the job: log that once."""
        if record.state is not UNSENDABLE:
            self._log.warning("job_refused", job_uuid=job.uuid[:64], job_id=job.id, reason=reason)
        record.uuid = job.uuid
        self.jobs.enter(record, UNSENDABLE)
        self.backlog.forget(job.id)

    def settle(self, record: JobRecord, job: Job) -> None:
        """Handle the row of a job whose request ended, and that ran or may compete again."""
        if job.state in _HOLDS:
            self.attend(record, job)
            self.backlog.hold(job.id, job.channel)
        elif job.state == _PENDING:
            record.attempts = 0
            self.jobs.wait(record)
            self.apply(job)
        else:
            self.jobs.finish(record, done=job.state == _DONE)
            self.apply(job)

    def attend(self, record: JobRecord, job: Job) -> None:
        """A job holds a permit without an open request of ours."""
        record.uuid, record.channel = job.uuid, job.channel
        if record.state is not UNATTENDED or record.is_stuck:
            record.until_s = record.dead_since_s = 0.0
            record.is_stuck = False
        self.jobs.enter(record, UNATTENDED)
        self._on_unattended()

    def stick(self, record: JobRecord) -> None:
        """A dead job cannot be put back: nothing runs, so its permit must not wait for its row.

        It counts as failed, because a sequential channel must not pass it.
        """
        record.is_stuck = True
        self.backlog.fail(record.id, record.channel)

    def unstick(self, record: JobRecord) -> None:
        """A stuck job is not dead, or no longer."""
        record.is_stuck = False
        self.backlog.hold(record.id, record.channel)

    def unclaim(self, job_ids: Iterable[int]) -> None:
        """These jobs were not claimed: return their permits."""
        for job_id in job_ids:
            self.backlog.forget(job_id)
            self.jobs.wait(self.jobs.of(job_id))

    def recognise(self, unseen: JobRecord, job_id: int) -> None:
        """The claim of an unseen job returned its id: that job now holds the permit, unless the claim was late."""
        if unseen.state is CLAIMING:
            self.backlog.rename(unseen.permit, job_id)
        self.jobs.recognise(unseen, job_id)

    # -- deferred jobs -----------------------------------------------------------------------------------

    def defer(self, job: Job, now_s: float, *, locked: bool = False) -> None:
        """Defer a pending job: briefly if its row is `locked`, otherwise longer each time."""
        record = self.jobs.of(job.id)
        record.uuid, record.channel, record.pending = job.uuid, job.channel, job.pending
        if locked:
            record.until_s = now_s + LOCKED_S
        else:
            wait_longer(record, now_s)
        self.jobs.enter(record, DEFERRED)
        self.release.set_earlier(record.until_s)
        self.backlog.defer(job.pending)

    def release_due(self, now_s: float) -> None:
        """Let jobs whose deferral is over compete again."""
        self.release.clear()
        for record in self.jobs.all_in(DEFERRED):
            if record.until_s > now_s:
                self.release.set_earlier(record.until_s)
            elif record.pending is not None:
                self.backlog.release(record.id)
                self.jobs.wait(record)
                self.backlog.put(record.pending)

    def release_all(self) -> None:
        """Let all deferred jobs compete again, since the obstacle may be gone."""
        self.release_due(math.inf)

    # -- rows that are gone --------------------------------------------------------------------------------

    def forget(self, record: JobRecord) -> None:
        """A job has no row any more."""
        if record.state is DEFERRED:
            self.backlog.release(record.id)
        self.backlog.forget(record.permit)
        self.jobs.forget(record)

    def forget_gone(self, uuids: Sequence[str], ids: Iterable[int], rows: Iterable[Job]) -> None:
        """Forget the jobs among these uuids and ids that are not in `rows`, the result of reading them."""
        found = {job.id for job in rows}
        for record in self.jobs.at_rest(uuids, ids):
            if record.id not in found:
                self.forget(record)
        for uuid in uuids if len(found) < len(uuids) else ():
            sent = self.jobs.sent(uuid)
            if sent is not None and sent.id not in found and not sent.over_since_s:
                self.jobs.note_row(sent, over=True, now_s=time.monotonic())

    # -- everything was read -------------------------------------------------------------------------------

    def disown(self, now_s: float) -> None:
        """The database was replaced by another of the same name: keep permits only for open requests."""
        for record in self.jobs.all_in(DEFERRED):
            self.backlog.release(record.id)
        sent = [record for state in _SENT for record in self.jobs.all_in(state)]
        for record in sent:
            self.backlog.forget(record.permit)
        self.jobs.disown(now_s)
        for record in sent:
            self.backlog.hold(record.permit, record.channel)

    def replace(self, backlog: Backlog) -> None:
        """Adopt a new tree that was read: sent jobs hold their permits in it, whatever their rows say."""
        self.backlog = backlog
        for state in _SENT:
            for record in self.jobs.all_in(state):
                backlog.hold(record.permit, record.channel)

    def after_load(self, held: Iterable[Job], conflicting: Mapping[int, Change]) -> list[str]:
        """Everything was read. `held` hold a permit; `conflicting` are held here, but not according to the table.

        Returns the uuids of jobs with an open request whose rows must be read, as they may be over.
        """
        seen = set()
        for job in held:
            seen.add(job.id)
            record = self.jobs.of(job.id)
            if record.is_stuck:
                self.backlog.fail(job.id, job.channel)
            elif record.state not in _SENT:
                self.attend(record, job)
        sent = {record.permit for state in _SENT for record in self.jobs.all_in(state)}
        self.backlog.accept_database({i: what for i, what in conflicting.items() if i not in sent})
        # A late or lost claim either did not happen or is among the held.
        for state in (CLAIMING, LATE, UNATTENDED):
            for record in self.jobs.all_in(state):
                if not (self.backlog.is_held(record.permit) or (record.is_stuck and record.id in seen)):
                    self.jobs.wait(record)
        return [r.uuid for r in self.jobs.all_in(REQUESTED) if r.permit > 0 and r.id not in seen]
