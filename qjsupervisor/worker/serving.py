"""Serving one database while its worker leads it: one turn of its loop.

    notifications and ended requests -> one statement that reads their rows and claims what was decided last turn,
                                        or, of a job that is announced alone, what is guessed (guess.py)
    rows -> the backlog; claimed rows -> the dispatcher; ended requests -> judged by their row
    the backlog and the shared table -> what may start next

It holds no connection of its own and makes no decision about leading, reconnecting or stopping (worker.py). A
DatabaseError passes through; whoever catches it calls `lost`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from structlog.typing import FilteringBoundLogger

from ..backlog.backlog import Backlog
from ..errors import DatabaseError
from ..job import Job
from ..odoo.dispatcher import Dispatcher, Ended
from ..odoo.request import End
from ..postgres.database import Database
from ..states import JobState, TargetState
from ..table.slot import WorkerSlot
from .claiming import Claims
from .deferred import Cooling
from .outcomes import GONE, Answers
from .own_notifications import Echoes
from .permits import Permits
from .speculative import Guess
from .unattended import Orphans
from .unsendable import Refusals

#: Rows read in one statement.
READ_BATCH = 400
#: With so many requests open, more of them will have ended in a moment: jobs are claimed in the statement that reads
#: those, one turn later. With fewer a job is claimed at once.
MERGE_FROM = 4

_HOLDS = (JobState.ENQUEUED, JobState.STARTED)


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
        self.backlog = backlog
        self._dispatcher = dispatcher
        self._log = log
        self._open_uuids: dict[str, int] = {}
        #: Ended requests whose row was not looked at yet, by uuid.
        self._unjudged: dict[str, Ended] = {}
        #: Other rows to look at.
        self._look: dict[str, None] = {}
        self._claiming = Claims(database, log)
        self._echoes = Echoes()
        self._orphans = Orphans(database, dispatcher, log)
        self._cooling = Cooling()
        self._answers = Answers(dispatcher.targets, log, lambda: self._cooling.warm_up(self.backlog, math.inf))
        self._refusals = Refusals(log)
        self._permits = Permits(worker_slot, dispatcher)
        self._guess = Guess(database, worker_slot, dispatcher, self._permits)
        self.dispatched = 0
        self.finished = 0

    # -- the turn ----------------------------------------------------------------------------------------

    def turn(self, now_s: float, *, start: bool) -> bool:
        """One turn; `start` False: nothing new is started. True if there is more to do at once."""
        self._dispatcher.tick(now_s)
        self._dispatcher.knock(now_s)
        self._hear()  # before it is forgotten whose requests were open when it was said
        self._collect_ended()
        self._cooling.warm_up(self.backlog, now_s)
        claims = self._claims()
        if start:
            claims |= self._permits.successors(self.backlog, self._unjudged.values(), now_s)
        uuids = self._to_read()
        alone = start and not claims and len(uuids) == 1
        if (claims or uuids) and not (alone and self._claim_announced(uuids[0], now_s)):
            self._read_and_claim(claims, uuids, now_s)
        if self._orphans.is_due(now_s):
            for job in self._orphans.revive(self.backlog, now_s):
                self.apply(job)
        self._permits.exchange(self.backlog, now_s, start=start)
        if self.backlog.taken and self._dispatcher.open < MERGE_FROM:
            self._read_and_claim(self._claims(), [], now_s)
        self._hear()  # a statement brings notifications along, most of them echoes: not worth a turn
        return bool(
            self.backlog.taken or self._look or self._unjudged or self._dispatcher.ended or len(self._database.notified)
        )

    def _claims(self) -> dict[int, int]:
        """The jobs that were given a permit, to be claimed now; see Database.turn."""
        claims, self.backlog.taken = dict.fromkeys(self.backlog.taken, 0), []
        return claims

    def _to_read(self) -> list[str]:
        """Uuids of rows to read: ended requests first, then what notifications said."""
        found = [*self._unjudged, *self._look]
        self._look.clear()
        return found

    def _hear(self) -> None:
        """Take in what notifications said of jobs, without what is known of those that are or were open.

        As long as a target has not proved itself, it is worth knowing too that one of its jobs was started.
        """
        said = self._database.notified.take(max(0, READ_BATCH - len(self._look)))
        if said:
            curious = any(target.breaker.state is not TargetState.UP for target in self._dispatcher.targets)
            self._look.update(dict.fromkeys(self._echoes.news(said, self._open_uuids, curious=curious)))

    def _claim_announced(self, uuid: str, now_s: float) -> bool:
        """Read the rows of a job that is new here, and claim it unseen. False: nothing was done."""
        if uuid in self._unjudged:
            return False
        found = self._guess.claim(self.backlog, uuid, now_s)
        if found is not None:
            self._take_in(*found, claims=(), uuids=[uuid], now_s=now_s)
        return found is not None

    def _read_and_claim(self, claims: dict[int, int], uuids: list[str], now_s: float) -> None:
        claimed, read = self._turn(claims, uuids)
        self._take_in(claimed, read, claims=claims, uuids=uuids, now_s=now_s)

    def _take_in(
        self, claimed: list[Job], read: list[Job], *, claims: Iterable[int], uuids: list[str], now_s: float
    ) -> None:
        """What a statement found: of the `claims` those that were `claimed`, and the rows of the `uuids`."""
        missed = set(claims).difference(job.id for job in claimed)
        self._send_claimed(missed, claimed)
        ended = {}
        for uuid in uuids:
            end = self._unjudged.pop(uuid, None)
            if end is not None:
                ended[end.job_id] = end
        not_run: list[tuple[Ended, Job]] = []
        for job in read:
            its_end = ended.pop(job.id, None)
            if its_end is not None and self._judge(its_end, job):
                not_run.append((its_end, job))
            elif job.id in missed and job.state == JobState.PENDING:
                self._cooling.not_claimed(self.backlog, job, now_s, refused=job.id in self._claiming.refused)
            elif its_end is not None or not self._dispatcher.is_open(job.id):
                self.apply(job)
            elif job.state == JobState.STARTED:
                self._answers.prove(job.id)
        for job_id, its_end in ended.items():  # no row any more
            self.backlog.forget(job_id)
            self._judge(its_end, None)
        self._cooling.forget_gone(self.backlog, missed | ended.keys(), uuids, claimed + read)
        if not_run:
            self._return(not_run, now_s)

    def _turn(self, claims: dict[int, int], uuids: list[str]) -> tuple[list[Job], list[Job]]:
        """Claims.turn. Where it is certain that nothing was claimed, the permits for that are not kept."""
        try:
            return self._claiming.turn(claims, uuids)
        except DatabaseError as error:
            if error.refused:
                for job_id in claims:
                    self.backlog.forget(job_id)
            raise

    # -- rows --------------------------------------------------------------------------------------------

    def apply(self, job: Job) -> None:
        """Put a job where its row says, unless a request of ours is open for it."""
        if job.state == JobState.PENDING:
            self._orphans.discard(job.id)
            if not self._cooling.keeps(self.backlog, job):
                if self._refusals.concern(job):
                    self.backlog.forget(job.id)
                else:
                    self.backlog.put(job.pending)
            return
        self._cooling.readmit(self.backlog, job.id)
        if job.state in _HOLDS:
            self.backlog.hold(job.id, job.channel)
            self._orphans.add(job.id)
            return
        self._orphans.discard(job.id)
        self._cooling.forget_attempts(job.id)
        if job.state == JobState.FAILED:
            self.backlog.fail(job.id, job.channel)
        else:
            self.backlog.forget(job.id)

    def replace(self, backlog: Backlog) -> None:
        """Another tree, which inherited from this one and was read."""
        self.lost(time.monotonic())
        self.backlog = backlog
        self._worker_slot.begin_again()

    def after_load(self, held: list[Job], conflicting: list[int]) -> None:
        """Everything was read: `held` hold permits; of the `conflicting`, held here, the table says otherwise."""
        for job in held:
            if not self._dispatcher.is_open(job.id):
                self._orphans.add(job.id)
        open_ids = set(self._open_uuids.values())
        self.backlog.accept_database(job_id for job_id in conflicting if job_id not in open_ids)

    def settle(self) -> None:
        """Write into the shared table what is held here, and start nothing."""
        self._permits.exchange(self.backlog, time.monotonic(), start=False)

    def look_at(self, uuids: list[str]) -> None:
        """Read these rows in the next turn."""
        self._look.update(dict.fromkeys(uuids))

    # -- requests ----------------------------------------------------------------------------------------

    def _send_claimed(self, missed: set[int], claimed: list[Job]) -> None:
        doubles = []
        for job in claimed:
            if job.uuid in self._open_uuids:
                doubles.append(job)
                continue
            self._open_uuids[job.uuid] = job.id
            self.dispatched += 1
            self._dispatcher.send(job.id, job.uuid)
            self._guess.note_started(job.channel)
            self._log.info("job_dispatched", job_uuid=job.uuid, channel=job.channel)
        for job in self._give_back(doubles) if doubles else ():
            self._cooling.not_run(self.backlog, job, time.monotonic())
            self._log.warning("job_postponed", job_uuid=job.uuid, job_id=job.id, reason="a job of the same uuid is run")
        for job_id in missed:
            self.backlog.forget(job_id)  # its row, if any, is among those read

    def _collect_ended(self) -> None:
        for ended in self._dispatcher.ended:
            self._open_uuids.pop(ended.uuid, None)
            self._unjudged[ended.uuid] = ended
        self._dispatcher.ended.clear()

    def _judge(self, ended: Ended, job: Job | None) -> bool:
        """Learn from a request's end and its job's row, if it has one. True: nobody ran it, it is to be given back."""
        state = GONE if job is None else job.state
        self._echoes.expect(ended.uuid, state)
        not_run = self._answers.judge(ended, state)
        if not not_run:
            self.finished += 1
        return not_run

    def _return(self, not_run: list[tuple[Ended, Job]], now_s: float) -> None:
        """Give back jobs that nobody ran, and set them aside for a while."""
        unasked = {ended.job_id for ended, _job in not_run if ended.outcome.end is End.UNASKED}
        for job in self._give_back([job for _ended, job in not_run]):
            if job.id in unasked:
                self.backlog.put(job.pending)
            else:
                self._cooling.not_run(self.backlog, job, now_s)

    def _give_back(self, jobs: list[Job]) -> list[Job]:
        """Put enqueued jobs back to `pending`; those that are, without their permits.

        A row that could not be put back still counts: Odoo took it meanwhile, or somebody has it locked. So its job
        keeps its permit, and the row is looked at again.
        """
        given = set(self._database.give_back([job.id for job in jobs])) if jobs else set()
        self.look_at([job.uuid for job in jobs if job.id not in given])
        back = [job for job in jobs if job.id in given]
        for job in back:
            self.backlog.forget(job.id)
        return back

    # -- for the worker --------------------------------------------------------------------------------------

    def next_deadline_s(self, now_s: float) -> float | None:
        """When, if nothing happens before, the next turn is due (monotonic)."""
        moments = [self._dispatcher.next_deadline_s(), self._orphans.due_s, *self._cooling.ends_s()]
        wall_us = self.backlog.next_deadline_us()
        if wall_us is not None:
            moments.append(now_s + max(0.0, wall_us / 1e6 - time.time()))
        look_again_ns = self._worker_slot.look_again_ns(self.backlog.wanted_channels)
        if look_again_ns is not None:
            moments.append(look_again_ns / 1e9)
        return min([moment for moment in moments if moment is not None], default=None)

    def lost(self, now_s: float) -> None:
        """The connection is gone: what was decided and not claimed yet is undone; open requests go on."""
        self._drop_taken()
        self._orphans.clear()
        self._permits.exchange(self.backlog, now_s, start=False)

    def _drop_taken(self) -> None:
        for job_id in self.backlog.taken:
            self.backlog.forget(job_id)
        self.backlog.taken = []

    def settle_unread(self, now_s: float) -> None:
        """The database cannot be asked now: where Odoo says that all went well, the permit goes back.

        Its row is looked at when the database is read again. Any other answer, or none, leaves open what the row says:
        a job that PostgreSQL went away under ends with a 500, and its row stays `started`, which counts.
        """
        if not self._dispatcher.ended:
            return
        for ended in self._dispatcher.ended:
            if ended.outcome.status == 200:
                self.backlog.forget(ended.job_id)
        self._collect_ended()
        self._permits.exchange(self.backlog, now_s, start=False)

    def let_go(self, now_s: float) -> None:
        """Hold no permit any more: another runner leads, or the database could not be read for too long."""
        for job_id in self.backlog.holding():
            self.backlog.forget(job_id)
        self.lost(now_s)

    def drain(self, now_s: float, *, connected: bool) -> None:
        """The end: start nothing more, judge what ended, give back what nobody was asked to run.

        What runs in Odoo runs on, and is counted again by the next worker.
        """
        self._drop_taken()
        if connected:
            self.turn(now_s, start=False)
            unsent = self._dispatcher.unsent()
            if unsent:
                self._database.give_back(unsent)
        self._permits.exchange(self.backlog, now_s, start=False)
