"""Serving one database while its worker leads it: the turn of the loop of design section 4.

    notifications and ended requests -> one statement that reads their rows and claims what was decided last turn
    rows -> the backlog; claimed rows -> the dispatcher; ended requests -> judged by their row
    the backlog and the shared table -> what may start next

It holds no connection of its own and makes no decision about leading, reconnecting or stopping (worker.py). A
DatabaseError passes through; whoever catches it calls `lost`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from .backlog import Backlog
from .database import Database, Job
from .dispatch import Dispatcher, Ended
from .errors import DatabaseError
from .nodes import Pending
from .queries import MAX_UUID_BYTES
from .request import End
from .seat import Seat
from .states import JobState, TargetState

#: Rows read in one statement.
READ_BATCH = 400
#: Jobs started in one turn: the table's lock is held while they are chosen.
START_BATCH = 50
#: With so many requests open, more of them will have ended in a moment: jobs are claimed in the statement that reads
#: those, one turn later. With fewer a job is claimed at once.
MERGE_FROM = 4
#: Odoo's own notifications of a job from its start to `done`. Those that arrive after its row was seen `done` would
#: each cost a statement; for a moment they are expected, and let pass. One more than that is news.
FOREIGN_NOTIFICATIONS = 2
ECHO_S = 1.0
MAX_ECHOES = 1000
#: Contract: never shorter.
DEAD_AFTER_S = 10.0
#: A job has to look dead twice, this far apart: `started` is committed a moment before its lock row is locked.
DEAD_AGAIN_S = 1.0
#: How often jobs that hold a permit without a request of ours are looked at.
DEAD_CHECK_S = 2.0
#: A job that nobody would run is set aside for so long, doubled each time.
COOLING_S, COOLING_LIMIT_S = 1.0, 60.0
#: A job whose row somebody else has locked is tried again after so long; or it would take the only permit each time.
LOCKED_S = 1.0
#: Jobs whose refusal is remembered.
MAX_REFUSED = 10_000

_HOLDS = (JobState.ENQUEUED, JobState.STARTED)


@dataclass(slots=True)
class Cooling:
    """A pending job that nobody ran when asked; it is not tried again before `until_s`."""

    job: Pending
    until_s: float


class Serving:
    """What one worker knows and does while it leads its database."""

    def __init__(
        self, database: Database, seat: Seat, backlog: Backlog, dispatcher: Dispatcher, log: FilteringBoundLogger
    ) -> None:
        self._database = database
        self._seat = seat
        self.backlog = backlog
        self._dispatcher = dispatcher
        self._log = log
        self._open_uuids: dict[str, int] = {}
        #: Ended requests whose row was not looked at yet, by uuid.
        self._unjudged: dict[str, Ended] = {}
        #: Rows to look at though nobody said anything about them.
        self._look: dict[str, None] = {}
        #: Jobs that hold a permit without a request of ours, and when they first looked dead (0: not yet).
        self._orphans: dict[int, float] = {}
        self._orphans_due_s = 0.0
        #: How often each open request's job was spoken of, and how often those just done are still to be.
        self._heard: dict[str, int] = {}
        self._echoes: dict[str, tuple[int, float]] = {}
        self._cooling: dict[int, Cooling] = {}
        self._attempts: dict[int, int] = {}
        self._refused: set[int] = set()
        self.dispatched = 0
        self.finished = 0

    # -- the turn ----------------------------------------------------------------------------------------

    def turn(self, now_s: float, *, start: bool) -> bool:
        """One turn; `start` False: nothing new is started. True if there is more to do at once."""
        self._dispatcher.tick(now_s)
        self._dispatcher.knock(now_s)
        self._collect_ended()
        self._warm_up(now_s)
        claims = self._claims()
        if start:
            claims |= self._successors(now_s)
        uuids = self._to_read()
        if claims or uuids:
            self._read_and_claim(claims, uuids, now_s)
        if self._orphans and now_s >= self._orphans_due_s:
            self._check_orphans(now_s)
        self._exchange(now_s, start=start)
        if self.backlog.taken and self._dispatcher.open < MERGE_FROM:
            self._read_and_claim(self._claims(), [], now_s)
        return bool(
            self.backlog.taken or self._look or self._unjudged or self._dispatcher.ended or len(self._database.notified)
        )

    def _claims(self) -> dict[int, int]:
        """The jobs that were given a permit, to be claimed now; see Database.turn."""
        claims, self.backlog.taken = dict.fromkeys(self.backlog.taken, 0), []
        return claims

    def _successors(self, now_s: float) -> dict[int, int]:
        """Jobs that take over the permits of requests that just ended well, if nobody else has a right to those.

        They are claimed in the statement that looks at the ended jobs' rows, which lets a claim through only if its
        predecessor is over.
        """
        claims: dict[int, int] = {}
        for ended in self._unjudged.values():
            status = ended.outcome.status
            if status is None or not 200 <= status < 300 or ended.target.breaker.state is not TargetState.UP:
                continue
            if not claims:
                self._prepare(now_s, start=True)
            channel = self.backlog.line_is_for(ended.job_id)
            if channel is not None and self._seat.may_keep(channel):
                claims[self.backlog.succeed(ended.job_id)] = ended.job_id
        return claims

    def _prepare(self, now_s: float, *, start: bool) -> None:
        allowed = min(START_BATCH, self._dispatcher.allowance(now_s)) if start else 0
        self.backlog.prepare(time.time_ns() // 1000, max(0, allowed))

    def _exchange(self, now_s: float, *, start: bool) -> None:
        self._prepare(now_s, start=start)
        if self._seat.is_due(self.backlog):
            self._seat.exchange(self.backlog)

    def _to_read(self) -> list[str]:
        """Uuids of rows to read: ended requests first, then what notifications said, without what is still open.

        A notification about an open request tells nothing that its end will not; but as long as the target has not
        proved itself, that a job was started is worth knowing.
        """
        found = [*self._unjudged, *self._look]
        self._look.clear()
        curious = any(target.breaker.state is not TargetState.UP for target in self._dispatcher.targets)
        said = self._database.notified.take(max(0, READ_BATCH - len(found)))
        for uuid, times in said.items():
            if uuid in self._open_uuids:
                self._heard[uuid] = self._heard.get(uuid, 0) + times
                if curious:
                    found.append(uuid)
            elif uuid not in self._echoes or not self._is_echo(uuid, times):
                found.append(uuid)
        return found

    def _is_echo(self, uuid: str, times: int) -> bool:
        """Whether a notification is one that a job that was just seen `done` still owed us, and says nothing new."""
        owed, until_s = self._echoes.pop(uuid)
        if times < owed:
            self._echoes[uuid] = (owed - times, until_s)
        return times <= owed and time.monotonic() < until_s

    def _expect_echoes(self, uuid: str, state: str) -> None:
        """A job is over: how many of the notifications of its life are still to come."""
        owed = FOREIGN_NOTIFICATIONS - self._heard.pop(uuid, 0)
        if state == JobState.DONE and owed > 0:
            now_s = time.monotonic()
            if len(self._echoes) >= MAX_ECHOES:
                self._echoes = {u: echo for u, echo in self._echoes.items() if echo[1] > now_s}
            self._echoes[uuid] = (owed, now_s + ECHO_S)

    def _read_and_claim(self, claims: dict[int, int], uuids: list[str], now_s: float) -> None:
        claimed, read = self._turn(claims, uuids)
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
                self._postpone(job, now_s + LOCKED_S)
            elif its_end is not None or not self._dispatcher.is_open(job.id):
                self.apply(job)
            elif job.state == JobState.STARTED:
                self._prove(job.id)
        for job_id, its_end in ended.items():  # no row any more
            self.backlog.forget(job_id)
            self._judge(its_end, None)
        if not_run:
            self._return(not_run, now_s)

    def _turn(self, claims: dict[int, int], uuids: list[str]) -> tuple[list[Job], list[Job]]:
        """Database.turn. Where it is certain that nothing was claimed, the permits for that are not kept."""
        try:
            return self._database.turn(claims, uuids)
        except DatabaseError as error:
            if error.refused:
                for job_id in claims:
                    self.backlog.forget(job_id)
            raise

    # -- rows --------------------------------------------------------------------------------------------

    def apply(self, job: Job) -> None:
        """Put a job where its row says, unless a request of ours is open for it."""
        if job.state == JobState.PENDING:
            self._orphans.pop(job.id, None)
            cooling = self._cooling.get(job.id)
            if cooling is not None:
                cooling.job = job.pending
                self.backlog.set_aside(job.pending)
            elif not self._refuses(job):
                self.backlog.put(job.pending)
            return
        if self._cooling.pop(job.id, None) is not None:
            self.backlog.readmit(job.id)
        if job.state in _HOLDS:
            self.backlog.hold(job.id, job.channel)
            self._orphans.setdefault(job.id, 0.0)
            return
        self._orphans.pop(job.id, None)
        self._attempts.pop(job.id, None)
        if job.state == JobState.FAILED:
            self.backlog.fail(job.id, job.channel)
        else:
            self.backlog.forget(job.id)

    def replace(self, backlog: Backlog) -> None:
        """Another tree, which inherited from this one and was read."""
        self.lost(time.monotonic())
        self.backlog = backlog
        self._seat.begin_again()

    def after_load(self, held: list[Job], doubtful: list[int]) -> None:
        """Everything was read: `held` hold permits; of the `doubtful`, held here, the table says otherwise."""
        for job in held:
            if not self._dispatcher.is_open(job.id):
                self._orphans.setdefault(job.id, 0.0)
        open_ids = {job_id: uuid for uuid, job_id in self._open_uuids.items()}
        self.backlog.believe(job_id for job_id in doubtful if job_id not in open_ids)

    def settle(self) -> None:
        """Write into the shared table what is held here, and start nothing."""
        self._exchange(time.monotonic(), start=False)

    def look_at(self, uuids: list[str]) -> None:
        """Read these rows in the next turn."""
        self._look.update(dict.fromkeys(uuids))

    # -- requests ----------------------------------------------------------------------------------------

    def _send_claimed(self, missed: set[int], claimed: list[Job]) -> None:
        doubles = []
        for job in claimed:
            if job.uuid in self._open_uuids:
                doubles.append(job)
            else:
                self._send(job)
        for job in self._give_back(doubles):
            self._cool(job, time.monotonic())
            self._log.warning("job_postponed", job_uuid=job.uuid, job_id=job.id, reason="a job of the same uuid is run")
        for job_id in missed:
            self.backlog.forget(job_id)  # its row, if any, is among those read

    def _refuses(self, job: Job) -> bool:
        """Whether a job can never be asked for; said once."""
        size = len(job.uuid.encode("utf-8", "surrogateescape"))
        if 0 < size <= MAX_UUID_BYTES:
            return False
        self.backlog.forget(job.id)
        if job.id not in self._refused and len(self._refused) < MAX_REFUSED:
            self._refused.add(job.id)
            why = f"its uuid has {size} bytes, not 1 to {MAX_UUID_BYTES}"
            self._log.warning("job_refused", job_uuid=job.uuid[:64], job_id=job.id, reason=why)
        return True

    def _send(self, job: Job) -> None:
        self._open_uuids[job.uuid] = job.id
        self.dispatched += 1
        self._log.info("job_dispatched", job_uuid=job.uuid, channel=job.channel)
        self._dispatcher.send(job.id, job.uuid)

    def _collect_ended(self) -> None:
        for ended in self._dispatcher.ended:
            self._open_uuids.pop(ended.uuid, None)
            self._unjudged[ended.uuid] = ended
        self._dispatcher.ended.clear()

    def _judge(self, ended: Ended, job: Job | None) -> bool:
        """Log the end of a request and learn about its target. True: nobody ran the job, it is to be given back.

        `job` None: it has no row any more.
        """
        outcome = ended.outcome
        state = "gone" if job is None else job.state
        not_run = state == JobState.ENQUEUED
        self._expect_echoes(ended.uuid, state)
        if not not_run:
            self.finished += 1
        if not_run or outcome.end is End.UNASKED:
            self._count_failure(ended)
        elif state in ("gone", JobState.CANCELLED):
            ended.target.breaker.undecided()
        elif ended.target.breaker.proved():
            self._target_is_back(ended)
        self._log.info(
            "job_finished" if not not_run else "job_not_run",
            job_uuid=ended.uuid,
            state=state,
            status=outcome.status,
            reason=outcome.reason,
            duration_s=round(ended.duration_s, 3),
        )
        return not_run

    def _prove(self, job_id: int) -> None:
        """A job that a request is open for was started: the target runs jobs."""
        for target in self._dispatcher.targets:
            if job_id in target.sent_s and target.breaker.proved():
                self._log.info("target_recovered", url=target.url)
                self._warm_up(math.inf)

    def _return(self, not_run: list[tuple[Ended, Job]], now_s: float) -> None:
        """Give back jobs that nobody ran, and set them aside for a while."""
        unasked = {ended.job_id for ended, _job in not_run if ended.outcome.end is End.UNASKED}
        for job in self._give_back([job for _ended, job in not_run]):
            if job.id in unasked:
                self.backlog.put(job.pending)
            else:
                self._cool(job, now_s)

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

    def _cool(self, job: Job, now_s: float) -> None:
        attempts = self._attempts[job.id] = self._attempts.get(job.id, 0) + 1
        pause_s = min(COOLING_LIMIT_S, COOLING_S * 2 ** min(attempts - 1, 10))
        self._postpone(job, now_s + pause_s)

    def _postpone(self, job: Job, until_s: float) -> None:
        self._cooling[job.id] = Cooling(job.pending, until_s)
        self.backlog.set_aside(job.pending)

    def _warm_up(self, now_s: float) -> None:
        """Let the jobs whose time aside is over compete again."""
        for job_id in [job_id for job_id, cooling in self._cooling.items() if cooling.until_s <= now_s]:
            self.backlog.readmit(job_id)
            self.backlog.put(self._cooling.pop(job_id).job)

    def _count_failure(self, ended: Ended) -> None:
        """A request came to nothing: that counts against its target."""
        now_s, breaker, outcome = time.monotonic(), ended.target.breaker, ended.outcome
        reason = explain(outcome.status, outcome.reason)
        if not breaker.failed(now_s, reason, ended.job_id, connecting=outcome.end is End.UNASKED):
            return
        self._log.warning(
            "target_down",
            url=ended.target.url,
            reason=breaker.reason,
            retry_in_s=round(breaker.retry_at_s - now_s, 1),
        )

    def _target_is_back(self, ended: Ended) -> None:
        self._log.info("target_recovered", url=ended.target.url)
        self._warm_up(math.inf)

    # -- jobs that look dead -------------------------------------------------------------------------------

    def _check_orphans(self, now_s: float) -> None:
        self._orphans_due_s = now_s + DEAD_CHECK_S
        for job_id in [j for j in self._orphans if self._dispatcher.is_open(j) or not self.backlog.is_held(j)]:
            del self._orphans[job_id]
        dead = self._database.look_dead(self._orphans, DEAD_AFTER_S) if self._orphans else {}
        for job_id in self._orphans:
            if job_id not in dead:
                self._orphans[job_id] = 0.0
            elif not self._orphans[job_id]:
                self._orphans[job_id] = now_s
                self._orphans_due_s = now_s + DEAD_AGAIN_S
        certain = {j: state for j, state in dead.items() if now_s - self._orphans[j] >= DEAD_AGAIN_S * 0.9}
        if certain:
            for job in self._database.revive(certain, DEAD_AFTER_S):
                self._log.warning("job_found_dead", job_uuid=job.uuid, channel=job.channel, state=job.state)
                self.apply(job)

    # -- for the worker --------------------------------------------------------------------------------------

    def next_deadline_s(self, now_s: float) -> float | None:
        """When, if nothing happens before, the next turn is due (monotonic)."""
        moments = [self._dispatcher.next_deadline_s(now_s)]
        if self._orphans:
            moments.append(self._orphans_due_s)
        moments.extend(cooling.until_s for cooling in self._cooling.values())
        wall_us = self.backlog.next_deadline_us()
        if wall_us is not None:
            moments.append(now_s + max(0.0, wall_us / 1e6 - time.time()))
        look_again_ns = self._seat.look_again_ns(self.backlog.mask)
        if look_again_ns is not None:
            moments.append(look_again_ns / 1e9)
        return min((moment for moment in moments if moment is not None), default=None)

    def lost(self, now_s: float) -> None:
        """The connection is gone: what was decided and not claimed yet is undone; open requests go on."""
        for job_id in self.backlog.taken:
            self.backlog.forget(job_id)
        self.backlog.taken = []
        self._orphans.clear()
        self._exchange(now_s, start=False)

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
        self._exchange(now_s, start=False)

    def let_go(self, now_s: float) -> None:
        """Hold no permit any more: another runner leads, or the database could not be read for too long."""
        for job_id in self.backlog.holding():
            self.backlog.forget(job_id)
        self.lost(now_s)

    def drain(self, now_s: float, *, connected: bool) -> None:
        """The end: start nothing more, judge what ended, give back what nobody was asked to run.

        What runs in Odoo runs on, and is counted again by the next worker.
        """
        for job_id in self.backlog.taken:
            self.backlog.forget(job_id)
        self.backlog.taken = []
        if connected:
            self.turn(now_s, start=False)
            unsent = self._dispatcher.unsent()
            if unsent:
                self._database.give_back(unsent)
        self._exchange(now_s, start=False)


def explain(status: int | None, reason: str) -> str:
    """What an answer that ran no job means, and what to do."""
    if status is None:
        return reason
    if status == 404:
        return "HTTP 404: add queue_job to server_wide_modules of this Odoo, or check that the URL is an Odoo"
    if status == 303 or 300 <= status < 400:
        return f"HTTP {status}: Odoo redirects, probably to its database selector: check dbfilter and db_name there"
    if status in (401, 403):
        return f"HTTP {status}: set http_auth_user and http_auth_password for the proxy in front of Odoo"
    if 200 <= status < 300:
        return f"HTTP {status}, but no job was run: does this Odoo serve this database (dbfilter, db_name)?"
    return f"HTTP {status}: see Odoo's log"
