"""Serves one database while its worker leads it: one turn of the loop.

    hear       collect ended requests; notifications are in Database.notified
    read       one statement reads the rows of both, and claims the jobs that have a permit
    take in    send claimed jobs; judge each ended request by its job's row; put other rows in place
    exchange   the backlog and the shared table decide what may start next
    send       with few open requests, claim and send that at once, else with the next turn's statement
Opens no connection and does not decide about leading, reconnecting or stopping (worker.py). DatabaseErrors pass
through; whoever catches one calls `offline.lost`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from structlog.typing import FilteringBoundLogger

from .. import logs
from ..backlog.backlog import Backlog
from ..backlog.tree import Change
from ..errors import DatabaseError
from ..job import Job
from ..logs import EventLog
from ..loop import Deadline
from ..odoo.dispatcher import Dispatcher
from ..postgres.database import Database
from ..states import JobState, TargetState
from ..table.slot import WorkerSlot
from .claiming import Claims, Refused
from .giving_back import GivingBack
from .jobs import CLAIMING, DEFERRED, ENDED, LATE, REQUESTED, JobRecord, Jobs
from .late_claims import LateClaims
from .missing import MissingRows
from .offline import Offline
from .outcomes import GONE, RequestOutcomes, outcome_of
from .permits import Permits
from .rows import Rows
from .suspects import Suspects
from .unanswered import Unanswered
from .unattended import Unattended

_PENDING, _STARTED, _UP = JobState.PENDING.value, JobState.STARTED.value, TargetState.UP
#: Rows read in one statement.
READ_BATCH = 400
#: With at least this many open requests, others will end in a moment, so jobs are claimed by the statement that reads
#: those, one turn later. With fewer, a job is claimed at once.
MERGE_FROM = 4
#: The timer of the next start is not reset for smaller differences: an eta's differs by microseconds each turn.
NEXT_START_SLACK_S = 0.0005


class Serving:
    """One worker while it leads its database."""

    def __init__(
        self,
        database: Database,
        worker_slot: WorkerSlot,
        backlog: Backlog,
        dispatcher: Dispatcher,
        log: FilteringBoundLogger,
        database_log: EventLog,
        deadline: Callable[[], Deadline],
    ) -> None:
        """`database_log`: for events of the database, not of a job. `deadline` creates one that wakes the loop."""
        self._database = database
        self._worker_slot = worker_slot
        self._dispatcher = dispatcher
        self._log = log
        self._database_log = database_log
        #: Waiting jobs and held permits.
        self.backlog = backlog
        self.jobs = Jobs(deadline())
        self._rows = Rows(self.jobs, backlog, log, self._tell_late_end, lambda: self._unattended.expect(), deadline())
        self._claiming = Claims(database, log, deadline())
        self.permits = Permits(database, worker_slot, dispatcher)
        release, can_tell_dead = self._rows.release_all, lambda: database.can_tell_dead
        self._outcomes = RequestOutcomes(
            dispatcher, log, database_log, logs.bound_logger(), release, can_tell_dead=can_tell_dead
        )
        self._unattended = Unattended(database, self._claiming, self._rows, log, deadline())
        self._suspects = Suspects(database, self._rows, log)
        self._giving_back = GivingBack(database, self._rows, self._claiming)
        self._late_claims = LateClaims(database, self._rows, self.permits, deadline())
        #: Handles permits while the database cannot be queried.
        self.offline = Offline(
            self._rows, self.permits, dispatcher, self._outcomes, self._late_claims, self._note_ended
        )
        self._missing = MissingRows(database, self._rows, deadline())
        self._unanswered = Unanswered(database, dispatcher, self.jobs, log)
        self._oid = database.about.oid if database.about is not None else 0
        #: Jobs were claimed since this was last cleared.
        self.has_claimed = False
        #: When something may become startable if nothing happens earlier.
        self._next_start = deadline()
        self.dispatched = 0
        self.finished = 0
        database.notified.is_news = self.jobs.is_news
        self._attend_to_targets()

    # -- the turn ----------------------------------------------------------------------------------------

    def turn(self, now_s: float, *, start: bool) -> bool:
        """Take one turn; `start` False: start nothing. Returns True if there is more to do at once."""
        start = start and self._claiming.pause.at_s == math.inf
        self._hear(now_s)
        ended = self.jobs.all_in(ENDED)
        claims = self._taken()
        if start and ended:
            claims |= self.permits.hand_over(self.backlog, ended, now_s)
        self._read_and_claim(claims, ended, now_s, start=start)
        if self._unattended.look.is_due:
            for job in self._unattended.revive(now_s):
                self._rows.apply(job)
        self.permits.exchange(self.backlog, now_s, start=start)
        if self.backlog.taken and self._dispatcher.open < MERGE_FROM:
            self._read_and_claim(self._taken(), [], now_s, start=start)
        self._attend_to_targets()
        # Changed: a job that could not be claimed leaves its permit to the next one.
        more = self.backlog.taken or self.backlog.changed or self._dispatcher.ended or len(self._database.notified)
        if more or self._late_claims.any or self.jobs.has(ENDED):
            return True
        next_s = self.permits.next_start_s(self.backlog, now_s)
        if abs(next_s - self._next_start.at_s) > NEXT_START_SLACK_S:  # false if both are infinite
            self._next_start.set(next_s)
        return False

    def _hear(self, now_s: float) -> None:
        """Note ended requests and due times."""
        self._dispatcher.tick(now_s)
        self._outcomes.look()
        if self._dispatcher.ended:
            self._note_ended()
        if self._rows.release.is_due:
            self._rows.release_due(now_s)
        if self.jobs.look.is_due:
            self._unanswered.look(now_s)
            self._note_ended()
        if self._late_claims.any:
            self._late_claims.read()
        if self._missing.look.is_due:
            self._missing.forget(now_s)

    def _attend_to_targets(self) -> None:
        """Have started jobs noted while a target has yet to prove that it runs jobs."""
        self.jobs.include_running = False
        for target in self._dispatcher.targets:
            if target.breaker.state is not _UP:
                self.jobs.include_running = True

    def _note_ended(self) -> None:
        for ended in self._dispatcher.ended:
            record = self.jobs.end(ended)
            if record.permit < 0:  # of a former database
                self._record_result(record, None)
        self._dispatcher.ended.clear()

    def _taken(self) -> dict[int, int]:
        """The jobs that were given a permit, to be claimed now; see Database.turn."""
        claims, self.backlog.taken = dict.fromkeys(self.backlog.taken, 0), []
        return claims

    def _read_and_claim(self, claims: dict[int, int], ended: list[JobRecord], now_s: float, *, start: bool) -> None:
        """One statement, if there is anything to claim or to read. Twice for each job: nothing is done in vain."""
        uuids = self._to_read(ended)
        if self._suspects.any and claims:
            claims = self._suspects.sift(claims, now_s)
        if not claims and not uuids:
            return
        self._late_claims.claimed_s = now_s
        unseen = None
        if start and not claims and not ended and len(uuids) == 1:
            unseen = self.permits.take_unseen(self.backlog, self.jobs, uuids[0], now_s)
        claiming = [self.jobs.of(job_id) for job_id in claims] if unseen is None else [unseen]
        claimed, read, refused = self._claim(claims, claiming, uuids, None if unseen is None else unseen.channel)
        if unseen is not None and claimed:
            claimed, uuids = self._recognise(unseen, claimed[0]), []
        if claimed:
            self._take_claimed(claimed, now_s, start=start)
        elif refused:
            self._claiming.note_refusals(len(self.jobs.all_in(DEFERRED)), now_s)
        missed = {record.id for record in claiming if record.state is CLAIMING} if claiming else set()
        if missed:
            self._rows.unclaim(missed)
        self._take_in(read, ended, missed, refused, now_s)
        if len(read) < len(uuids) or missed or self.jobs.any_at_rest:
            self._rows.forget_gone(uuids, missed, read)
        if len(read) < len(uuids):
            self._missing.expect()

    def _to_read(self, ended: list[JobRecord]) -> list[str]:
        """The uuids of ended requests and of notifications."""
        uuids = [record.uuid for record in ended] if ended else []
        if len(self._database.notified):
            said = self._database.notified.take(max(0, READ_BATCH - len(uuids)))
            uuids = [*dict.fromkeys(uuids + said)] if uuids else said
        return uuids

    def _claim(
        self, claims: dict[int, int], claiming: list[JobRecord], uuids: list[str], unseen_in: str | None
    ) -> tuple[list[Job], list[Job], Refused]:
        """As Claims.turn. Raises DatabaseError."""
        for record in claiming:
            self.jobs.enter(record, CLAIMING)
        try:
            return self._claiming.turn(claims, uuids, unseen_in)
        except DatabaseError as error:
            if not self._database.connected:
                self._suspects.note_broken(claiming)
            if error.refused:  # nothing was claimed, for certain
                self._rows.unclaim([record.id for record in claiming])
            raise

    def _recognise(self, unseen: JobRecord, job: Job) -> list[Job]:
        """An unseen job was claimed. Returns the jobs to send."""
        if self.jobs.state(job.id) is REQUESTED:  # its uuid was changed while its request was open
            self._rows.unclaim([unseen.id])
            self._claiming.give_back([job.id])
            return []
        self._rows.recognise(unseen, job.id)
        return [job]

    def _take_claimed(self, claimed: list[Job], now_s: float, *, start: bool) -> None:
        self.has_claimed = True
        late, doubles = [], []
        if self._late_claims.any and start:
            self._late_claims.permit_again(claimed, now_s)
        if self.backlog.counted:
            in_time = [job.id for job in claimed if self.jobs.of(job.id).state is not LATE]
            self.permits.note_sent(self.backlog, in_time)
        for job in claimed:
            record = self.jobs.of(job.id)
            if record.state is LATE:
                late.append(job)
                continue
            if self.jobs.sent(job.uuid) is not None:
                doubles.append(job)
                continue
            self.jobs.request(record, job.uuid, job.channel)
            self.dispatched += 1
            record.waited_s = time.time() - job.due_us / 1e6
            self._worker_slot.statistics.dispatched(record.waited_s)
            self._dispatcher.send(job.uuid)
            if logs.jobs_wanted:
                self._log.info("job_dispatched", job_uuid=job.uuid, channel=job.channel)
        for job in self._giving_back.give_back(late, now_s) if late else ():
            self._rows.apply(job)
        for job in self._giving_back.give_back(doubles, now_s) if doubles else ():
            self._rows.defer(job, now_s)
            self._log.warning("job_postponed", job_uuid=job.uuid, job_id=job.id, reason="a job of the same uuid is run")

    def _take_in(
        self, read: list[Job], ended: list[JobRecord], missed: set[int], refused: Refused, now_s: float
    ) -> None:
        """Put the rows `read` in place, and settle ended requests and claims by them."""
        not_run: list[tuple[JobRecord, Job]] = []
        unread = {record.id: record for record in ended} if ended else {}
        for job in read:
            record = unread.pop(job.id, None)
            if record is not None:
                if self._record_result(record, job):
                    not_run.append((record, job))
            elif job.id in missed and job.state == _PENDING:
                self._not_claimed(job, now_s, refused=job.id in refused)
            else:
                if job.state == _STARTED and self.jobs.sent(job.uuid) is not None:
                    self._outcomes.record_success(job.uuid)
                self._rows.apply(job)
        for gone in unread.values():
            self._record_result(gone, None)
        if not_run:
            self._giving_back.give_back_unrun(not_run, now_s)

    def _not_claimed(self, job: Job, now_s: float, *, refused: bool) -> None:
        """A pending job could not be claimed: the server refused it, its row is locked, or it is not due."""
        # It was due by our clock, but the server's decides.
        if job.eta_us is not None and not refused and self._database.look().clock_s * 1e6 < job.eta_us:
            self.permits.exchange(self.backlog, now_s, start=False)
            self._rows.apply(job)
            return
        self._rows.defer(job, now_s, locked=not refused)

    # -- requests ----------------------------------------------------------------------------------------

    def _record_result(self, record: JobRecord, job: Job | None) -> bool:
        """Record a request's end with its job's row, if any. True: the job was not run and must be given back."""
        assert record.ended is not None
        state, ended = GONE if job is None else job.state, record.ended
        self._worker_slot.statistics.ended(outcome_of(state), ended.outcome.status, ended.duration_s)
        if self._outcomes.record_result(record.ended, state, record.channel, record.waited_s):
            return True
        self.finished += state != _STARTED
        if job is None:
            self._rows.forget(record)
        else:
            self._rows.settle(record, job)
        return False

    def _tell_late_end(self, record: JobRecord, state: str) -> None:
        """Log a job that ended after its request had."""
        if record.ended is not None:
            self.finished += 1
            self._outcomes.tell(record.ended, state, record.channel, record.waited_s)

    # -- for the worker --------------------------------------------------------------------------------------

    def recognise(self, oid: int) -> None:
        """Detect whether the database was dropped and recreated."""
        if oid != self._oid:
            self._database_log.warning(
                "database_replaced", reason="it is another database of the same name: read afresh"
            )
            self._oid = oid
            self._rows.disown(time.monotonic())

    def replace(self, backlog: Backlog) -> None:
        """Adopt another tree, which inherited from this one and was read."""
        self.offline.lost(time.monotonic())
        self._rows.replace(backlog)
        self.backlog = backlog
        self._worker_slot.begin_again()

    def apply(self, job: Job) -> None:
        """Put a job where its row says, unless its request is open."""
        self._rows.apply(job)

    def after_load(self, held: list[Job], conflicting: Mapping[int, Change]) -> None:
        """Everything was read: `held` hold permits; `conflicting` are held here, but not according to the table."""
        for uuid in self._rows.after_load(held, conflicting):
            self._database.notified.add(uuid)

    def settle(self) -> None:
        """Write what is held into the shared table without starting anything."""
        self.permits.exchange(self.backlog, time.monotonic(), start=False)

    def drain(self, now_s: float, *, connected: bool) -> None:
        """Stop: start nothing more, settle ended requests, give back jobs that were not sent.

        Jobs running in Odoo continue, and the next worker counts them again.
        """
        self.offline.drop_taken()
        if connected:
            self.turn(now_s, start=False)
            unsent = set(self._dispatcher.unsent())
            ids = [record.id for record in self.jobs.all_in(REQUESTED) if record.uuid in unsent]
            if ids:
                self._claiming.give_back(ids)
        self.permits.exchange(self.backlog, now_s, start=False)
