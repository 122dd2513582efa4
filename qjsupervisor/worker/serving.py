"""Serving one database while its worker leads it: the turn of the loop.

    hear       requests that ended; what notifications said meanwhile is in Database.notified
    read       one statement reads the rows of both, and claims the jobs that were given a permit
    take in    claimed jobs are sent; each request that ended is judged by its job's row; other rows are put in place
    exchange   the backlog and the shared table settle what may start next
    send       with few requests open, that is claimed and sent at once, else with the next turn's statement

It holds no connection of its own and makes no decision about leading, reconnecting or stopping (worker.py). A
DatabaseError passes through; whoever catches it calls `lost`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping

from structlog.typing import FilteringBoundLogger

from .. import logs
from ..backlog.backlog import Backlog
from ..backoff import Backoff
from ..errors import DatabaseError
from ..job import Job, Pending
from ..odoo.dispatcher import Dispatcher
from ..odoo.request import End
from ..postgres.database import Database
from ..postgres.waiter import LATE_S
from ..states import JobState, TargetState
from ..table.slot import WorkerSlot
from .claiming import Claims
from .jobs import OVER_S, JobRecord, Jobs, State
from .outcomes import GONE, RequestOutcomes, outcome_of
from .permits import Permits
from .rows import Rows, wait_longer
from .unattended import Unattended

#: Rows read in one statement.
READ_BATCH = 400
#: With so many requests open, more of them will have ended in a moment: jobs are claimed in the statement that reads
#: those, one turn later. With fewer a job is claimed at once.
MERGE_FROM = 4
#: A job under whose claim the connection ended so often is claimed alone.
BREAKS = 2
#: How often jobs without a row are looked for, at most, and which part of the time that takes.
MISSING_S, MISSING_SHARE = 0.1, 0.05
#: With so many jobs deferred, and others refused, nothing is tried for a while.
MANY_DEFERRED = 1000


class Serving:
    """What one worker knows and does while it leads its database."""

    def __init__(
        self,
        database: Database,
        worker_slot: WorkerSlot,
        backlog: Backlog,
        dispatcher: Dispatcher,
        log: FilteringBoundLogger,
    ) -> None:
        self._database = database
        self._worker_slot = worker_slot
        self._dispatcher = dispatcher
        self._log = log
        #: The jobs that wait, and the permits that are held.
        self.backlog = backlog
        self.jobs = Jobs()
        self._rows = Rows(self.jobs, backlog, log, self._tell_late_end)
        self._claiming = Claims(database, log)
        self._permits = Permits(database, worker_slot, dispatcher)
        self._outcomes = RequestOutcomes(
            dispatcher, log, logs.bound_logger(), self._rows.release_all, can_tell_dead=lambda: database.can_tell_dead
        )
        self._unattended = Unattended(database, self._claiming, self.jobs, log)
        #: Permits went back in the middle of a statement; what became of their jobs is to be read.
        self._was_late = False
        #: A job without a row was spoken of; when that is looked into at the earliest.
        self._was_missing = False
        self._missing_due_s = 0.0
        #: When jobs were claimed last.
        self._claimed_s = 0.0
        self._oid = database.about.oid if database.about is not None else 0
        #: Whether there are jobs under whose claim the connection ended.
        self._is_suspicious = False
        #: Jobs were claimed since somebody cleared it.
        self.has_claimed = False
        #: Nothing is started before: too many rows were refused.
        self._refusing = Backoff(first_s=1, limit_s=60)
        self._start_at_s = 0.0
        self.dispatched = 0
        self.finished = 0
        database.notified.is_news = self.jobs.is_news
        database.waiter.on_late = self._release_late
        self._attend_to_targets()

    # -- the turn ----------------------------------------------------------------------------------------

    def turn(self, now_s: float, *, start: bool) -> bool:
        """One turn; `start` False: nothing new is started. True if there is more to do at once."""
        start = start and now_s >= self._start_at_s
        self._dispatcher.tick(now_s)
        self._outcomes.look()
        if self._dispatcher.ended:
            self._note_ended()
        if self.jobs.has(State.DEFERRED):
            self._rows.release_due(now_s)
        if now_s >= self.jobs.look_s:
            self._look_at_open(now_s)
        if self._was_late:
            self._read_late()
        if self._was_missing and now_s >= self._missing_due_s:
            self._forget_missing(now_s)
        ended = self.jobs.all_in(State.ENDED)
        claims = self._taken()
        if start and ended:
            claims |= self._permits.hand_over(self.backlog, ended, now_s)
        self._read_and_claim(claims, ended, now_s)
        if self._unattended.is_due(now_s):
            for job in self._unattended.revive(now_s):
                self._rows.apply(job)
        self._permits.exchange(self.backlog, now_s, start=start)
        if self.backlog.taken and self._dispatcher.open < MERGE_FROM:
            self._read_and_claim(self._taken(), [], now_s)
        self._attend_to_targets()
        # Changed: a job that was not to be had leaves its permit to the next one.
        more = self.backlog.taken or self.backlog.changed or self._dispatcher.ended or len(self._database.notified)
        return bool(more) or self._was_late or self.jobs.has(State.ENDED)

    def _attend_to_targets(self) -> None:
        """As long as a target has not proved itself, it is worth knowing that one of its jobs was started."""
        targets = self._dispatcher.targets
        self.jobs.include_running = any(target.breaker.state is not TargetState.UP for target in targets)

    def _note_ended(self) -> None:
        for ended in self._dispatcher.ended:
            record = self.jobs.end(ended)
            if record.permit < 0:  # of a database that is no more
                self._record_result(record, None)
        self._dispatcher.ended.clear()

    def _look_at_open(self, now_s: float) -> None:
        """Jobs whose requests are open may be over: their rows are read; after a while their requests are let go."""
        too_long, perhaps = self.jobs.over_unanswered(now_s)
        for record in perhaps:
            self._database.notified.add(record.uuid)
        for record in too_long:
            reason = f"its row was over for {OVER_S:g} s, and no answer came"
            self._log.warning("request_let_go", job_uuid=record.uuid, channel=record.channel, reason=reason)
            self._dispatcher.let_go(record.uuid, reason)
        self._note_ended()

    def _taken(self) -> dict[int, int]:
        """The jobs that were given a permit, to be claimed now; see Database.turn."""
        claims, self.backlog.taken = dict.fromkeys(self.backlog.taken, 0), []
        return claims

    def _read_and_claim(self, claims: dict[int, int], ended: list[JobRecord], now_s: float) -> None:
        """One statement, if there is anything to claim or to read."""
        uuids = [record.uuid for record in ended]
        if len(self._database.notified):
            said = self._database.notified.take(max(0, READ_BATCH - len(uuids)))
            uuids = [*dict.fromkeys(uuids + said)] if uuids else said
        if self._is_suspicious and claims:
            claims = self._sift(claims, now_s)
        if not claims and not uuids:
            return
        self._claimed_s = now_s
        claiming = [self.jobs.enter(self.jobs.of(job_id), State.CLAIMING) for job_id in claims]
        claimed, read = self._claim(claims, claiming, uuids)
        if claims:
            self._note_refusals(claimed, now_s)
        if claimed:
            self._take_claimed(claimed, now_s)
        missed = {record.id for record in claiming if record.state is State.CLAIMING}
        if missed:
            self._undo(missed)
        self._take_in(read, {record.id: record for record in ended}, missed, now_s)
        if len(read) < len(uuids) or missed or self.jobs.any_at_rest:
            self._rows.forget_gone(uuids, missed, read)
        self._was_missing = self._was_missing or len(read) < len(uuids)

    def _claim(
        self, claims: dict[int, int], claiming: list[JobRecord], uuids: list[str]
    ) -> tuple[list[Job], list[Job]]:
        """As Database.turn. Raises DatabaseError."""
        try:
            return self._claiming.turn(claims, uuids)
        except DatabaseError as error:
            if not self._database.connected:
                self._note_broken(claiming)
            if error.refused:  # certainly nothing was claimed
                self._undo(claims)
            raise

    def _note_broken(self, claiming: list[JobRecord]) -> None:
        """The connection ended under a claim. By one of its rows?"""
        for record in claiming:
            record.broke += 1
            self._is_suspicious = self._is_suspicious or record.broke >= BREAKS

    def _sift(self, claims: dict[int, int], now_s: float) -> dict[int, int]:
        """Leave out jobs under whose claim the connection ended again and again: they are claimed alone, one a turn."""
        suspects = {i: self.jobs.of(i) for i in claims if self.jobs.of(i).broke >= BREAKS}
        known = [record for state in (State.WAITING, State.DEFERRED) for record in self.jobs.all_in(state)]
        self._is_suspicious = any(record.broke >= BREAKS for record in known)
        broken = [job_id for job_id, record in suspects.items() if record.broke > BREAKS]
        if broken:
            self._undo(broken)
            for job in self._database.read_ids(broken):
                suspects[job.id].broke = BREAKS
                self._rows.defer(job, now_s)
                self._log.warning("job_refused", job_id=job.id, reason="the connection ends when it is claimed")
        good = {job_id: former for job_id, former in claims.items() if job_id not in suspects}
        alone = [job_id for job_id in suspects if job_id not in broken]
        self.backlog.taken += alone if good else alone[1:]
        return good or dict.fromkeys(alone[:1], 0)

    def _note_refusals(self, claimed: list[Job], now_s: float) -> None:
        """A database that refuses so many rows, a full disk's for one, is left alone for a while."""
        if claimed:
            self.has_claimed = True
            self._refusing.reset()
        elif self._claiming.refused and len(self.jobs.all_in(State.DEFERRED)) >= MANY_DEFERRED:
            self._start_at_s = now_s + self._refusing.next_s()

    def _take_claimed(self, claimed: list[Job], now_s: float) -> None:
        late, doubles = [], []
        for job in claimed:
            record = self.jobs.of(job.id)
            if record.state is State.LATE:
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
            self._log.info("job_dispatched", job_uuid=job.uuid, channel=job.channel)
        for job in self._give_back(late, now_s) if late else ():
            self._rows.apply(job)
        for job in self._give_back(doubles, now_s) if doubles else ():
            self._rows.defer(job, now_s)
            self._log.warning("job_postponed", job_uuid=job.uuid, job_id=job.id, reason="a job of the same uuid is run")

    def _release_late(self) -> None:
        """The database does not answer: jobs that wait for their claims keep no permit from the other databases.

        Called in the middle of a statement. Nobody was sent; what was claimed nevertheless is given back.
        """
        for record in [*self.jobs.all_in(State.CLAIMING), *map(self.jobs.of, self.backlog.taken)]:
            self.backlog.forget(record.permit)
            self.jobs.enter(record, State.LATE)
        self.backlog.taken = []
        self._was_late = True
        self._permits.exchange(self.backlog, time.monotonic(), start=False)

    def _read_late(self) -> None:
        """Put in their places the jobs that were not claimed in time."""
        self._was_late = False
        late = self.jobs.all_in(State.LATE)
        rows = self._database.read_ids([record.id for record in late]) if late else []
        for job in rows:
            self._rows.apply(job)
        self._rows.forget_gone((), [record.id for record in late], rows)

    def _undo(self, claims: Iterable[int]) -> None:
        """These jobs were not claimed: their permits go back."""
        for job_id in claims:
            self.backlog.forget(job_id)
            self.jobs.wait(self.jobs.of(job_id))

    def _take_in(self, read: list[Job], ended: dict[int, JobRecord], missed: set[int], now_s: float) -> None:
        """Put the rows that were `read` in their places, and settle what is to be settled by them (by job id)."""
        not_run: list[tuple[JobRecord, Job]] = []
        for job in read:
            record = ended.pop(job.id, None)
            if record is not None:
                if self._record_result(record, job):
                    not_run.append((record, job))
            elif job.id in missed and job.state == JobState.PENDING:
                self._not_claimed(job, now_s)
            else:
                if job.state == JobState.STARTED and self.jobs.sent(job.uuid) is not None:
                    self._outcomes.record_success(job.uuid)
                self._rows.apply(job)
        for gone in ended.values():
            self._record_result(gone, None)
        if not_run:
            self._return(not_run, now_s)

    def _not_claimed(self, job: Job, now_s: float) -> None:
        """A pending job was not to be had: the server refused it, somebody has its row locked, or it is not due."""
        refused = job.id in self._claiming.refused
        # By our clock it was due; the server's decides.
        if job.eta_us is not None and not refused and self._database.look().clock_s * 1e6 < job.eta_us:
            self._permits.exchange(self.backlog, now_s, start=False)
            self._rows.apply(job)
            return
        self._rows.defer(job, now_s, locked=not refused)

    def _forget_missing(self, now_s: float) -> None:
        """A job without a row was spoken of: which of those that are known is it? Anybody can ask for that."""
        self._was_missing = False
        ids = self.backlog.known()
        for job_id in self._database.without_row(ids) if ids else ():
            self.backlog.forget(job_id)
        ended_s = time.monotonic()
        self._missing_due_s = ended_s + max(MISSING_S, (ended_s - now_s) / MISSING_SHARE)

    # -- requests ----------------------------------------------------------------------------------------

    def _record_result(self, record: JobRecord, job: Job | None) -> bool:
        """Learn from a request's end and its job's row, if it has one. True: nobody ran it, it is to be given back."""
        assert record.ended is not None
        state, ended = GONE if job is None else job.state, record.ended
        self._worker_slot.statistics.ended(outcome_of(state), ended.outcome.status, ended.duration_s)
        if self._outcomes.record_result(record.ended, state, record.channel, record.waited_s):
            return True
        self.finished += state != JobState.STARTED
        if job is None:
            self._rows.forget(record)
        else:
            self._rows.settle(record, job)
        return False

    def _tell_late_end(self, record: JobRecord, state: str) -> None:
        """A job is over, long after its request."""
        if record.ended is not None:
            self.finished += 1
            self._outcomes.tell(record.ended, state, record.channel, record.waited_s)

    def _return(self, not_run: list[tuple[JobRecord, Job]], now_s: float) -> None:
        """Give back jobs that nobody ran, and leave them alone for a while, unless nobody was asked."""
        unasked = {r.id for r, _job in not_run if r.ended is not None and r.ended.outcome.end is End.UNASKED}
        for job in self._give_back([job for _record, job in not_run], now_s):
            if job.id in unasked:
                self._rows.apply(job)
            else:
                self._rows.defer(job, now_s)

    def _give_back(self, jobs: list[Job], now_s: float) -> list[Job]:
        """Put enqueued jobs back to `pending`; those that are, as they are now.

        A row that could not be put back still counts: Odoo took it meanwhile, or somebody has it locked. So its job
        keeps its permit, and the row is looked at again.
        """
        for job in jobs:
            self._rows.attend(self.jobs.of(job.id), job)
        given = set(self._claiming.give_back([job.id for job in jobs]))
        for job in jobs:
            if job.id in given:
                continue
            self.backlog.hold(job.id, job.channel)
            if job.id in self._claiming.refused:
                wait_longer(self.jobs.of(job.id), now_s)
            else:
                self._database.notified.add(job.uuid)
        back = [job._replace(state=JobState.PENDING) for job in jobs if job.id in given]
        for job in back:
            self.backlog.forget(job.id)
        return back

    # -- for the worker --------------------------------------------------------------------------------------

    def recognise(self, oid: int) -> None:
        """Whether the database is still the same one, or was dropped and made again."""
        if oid != self._oid:
            self._log.warning("database_replaced", reason="it is another database of the same name: read afresh")
            self._oid = oid
            self._rows.disown(time.monotonic())

    def replace(self, backlog: Backlog) -> None:
        """Another tree, which inherited from this one and was read."""
        self.lost(time.monotonic())
        self._rows.replace(backlog)
        self.backlog = backlog
        self._worker_slot.begin_again()

    def apply(self, job: Job) -> None:
        """Put a job where its row says, unless a request of ours is open for it."""
        self._rows.apply(job)

    def after_load(self, held: list[Job], conflicting: Mapping[int, Pending | None]) -> None:
        """Everything was read: `held` hold permits; of the `conflicting`, held here, the table says otherwise."""
        for uuid in self._rows.after_load(held, conflicting):
            self._database.notified.add(uuid)

    def settle(self) -> None:
        """Write into the shared table what is held here, and start nothing."""
        self._permits.exchange(self.backlog, time.monotonic(), start=False)

    def next_deadline_s(self, now_s: float) -> float | None:
        """When, if nothing happens before, the next turn is due (monotonic)."""
        moments = [self._dispatcher.next_deadline_s(), self._unattended.due_s, *self._rows.release_times_s()]
        if self._was_missing:
            moments.append(self._missing_due_s)
        if self._start_at_s > now_s:
            moments.append(self._start_at_s)
        if self.jobs.has(State.REQUESTED):
            moments.append(self.jobs.look_s)
        wall_us = self.backlog.next_deadline_us()
        if wall_us is not None:
            moments.append(now_s + max(0.0, (wall_us - self._database.clock_us) / 1e6 - time.time()))
        look_again_ns = self._worker_slot.look_again_ns(self.backlog.wanted_channels)
        if look_again_ns is not None:
            moments.append(look_again_ns / 1e9)
        return min([moment for moment in moments if moment is not None], default=None)

    def lost(self, now_s: float) -> None:
        """The connection is gone: what was decided and not claimed yet is undone; open requests go on."""
        self._drop_taken()
        self._permits.exchange(self.backlog, now_s, start=False)

    def _drop_taken(self) -> None:
        for job_id in self.backlog.taken:
            self.backlog.forget(job_id)
        self.backlog.taken = []

    @property
    def unread_due_s(self) -> float:
        """While the database is away: when `settle_unread` is to be called."""
        return self._claimed_s + LATE_S if self.jobs.has(State.CLAIMING) else math.inf

    def settle_unread(self, now_s: float, *, gave_up: bool) -> None:
        """The database cannot be asked now: where Odoo says that all went well, the permit goes back.

        Its row is looked at when the database is read again. Any other answer, or none, leaves open what the row says:
        a job that PostgreSQL went away under ends with a 500, and its row stays `started`, which counts, unless it is
        given up (`gave_up`). A claim whose answer is late was sent to nobody.
        """
        self._outcomes.look()
        if now_s >= self.unread_due_s:
            self._release_late()
        if self._dispatcher.ended:
            self._note_ended()
            for record in self.jobs.all_in(State.ENDED):
                if gave_up or (record.ended is not None and record.ended.outcome.status == 200):
                    self.backlog.forget(record.permit)
            self._permits.exchange(self.backlog, now_s, start=False)

    def give_up(self, now_s: float) -> int:
        """The database could not be read for too long: only open requests count any more. How many jobs do not."""
        given_up = self.backlog.holding().difference(record.permit for record in self.jobs.all_in(State.REQUESTED))
        self._let_go_of(given_up, now_s)
        return len(given_up)

    def let_go(self, now_s: float) -> None:
        """Hold no permit any more: another runner leads."""
        self._let_go_of(self.backlog.holding(), now_s)

    def _let_go_of(self, job_ids: Iterable[int], now_s: float) -> None:
        for job_id in job_ids:
            self.backlog.forget(job_id)
        for state in (State.UNATTENDED, State.CLAIMING):
            for record in self.jobs.all_in(state):
                self.jobs.wait(record)
        self.lost(now_s)

    def drain(self, now_s: float, *, connected: bool) -> None:
        """The end: start nothing more, judge what ended, give back what nobody was asked to run.

        What runs in Odoo runs on, and is counted again by the next worker.
        """
        self._drop_taken()
        if connected:
            self.turn(now_s, start=False)
            unsent = set(self._dispatcher.unsent())
            ids = [record.id for record in self.jobs.all_in(State.REQUESTED) if record.uuid in unsent]
            if ids:
                self._claiming.give_back(ids)
        self._permits.exchange(self.backlog, now_s, start=False)
