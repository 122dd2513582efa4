"""Every job that a worker knows more of than its place in the backlog: one record each, with a state.

    waiting ──> claiming ──> requested ──> ended ──> over, waiting, deferred or unattended
                    └──────> late (its claim was not answered in time) ──> waiting or unattended

A job counts, that is, the backlog holds a permit for it, while it is claiming, requested, ended or unattended. A job
without a record is one that nothing is known of but its row. One that is claimed before its row was read (`unseen`)
has a number of its own until then, below those of rows. An id tells a job apart only as long as its database is
the same one: `disown` is for the jobs of a database that was dropped and made again.

No I/O, and no place in the backlog is changed here: rows.py does, by what a row says.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..job import Pending
from ..loop import Deadline
from ..odoo.dispatcher import Ended

#: Notifications of a job from its start to `done`.
OWN_NOTIFICATIONS = 2
#: How long after a job was seen `done` they may come, and of how many jobs.
OWN_S = 1.0
MAX_OVER = 1000
#: So long after a job was spoken of for the last time that is usual its request should have been answered.
ANSWER_S = 2.0
#: A row that is over for so long ends its job, though no answer came.
OVER_S = 10.0
#: Records of jobs that only wait, or that no request can name.
MAX_REMEMBERED = 10_000


class State(enum.Enum):
    """Where a job is, as far as this worker is concerned."""

    __hash__ = object.__hash__  # enum's own is a call for each look into a dict

    #: There is no record (any more).
    UNKNOWN = "unknown"
    #: Pending, after it was asked for in vain or its claim was lost.
    WAITING = "waiting"
    #: It has a permit, and its claim is under way.
    CLAIMING = "claiming"
    #: Its claim was not answered in time: it has no permit, and what became of it is to be read.
    LATE = "late"
    #: Its request is open.
    REQUESTED = "requested"
    #: Its request ended; its row was not read since.
    ENDED = "ended"
    #: Its row says `enqueued` or `started`, and no request of ours is open for it.
    UNATTENDED = "unattended"
    #: Pending, and left alone until `until_s`.
    DEFERRED = "deferred"
    #: Pending, and no request can name it.
    UNSENDABLE = "unsendable"
    #: Over. It is known until `until_s`, so that its last notifications are not taken for news.
    OVER = "over"


#: The states by name. `State.ENDED` takes as long as a call does (up to Python 3.11), and a job passes thirty of them.
UNKNOWN, WAITING, CLAIMING, LATE, REQUESTED, ENDED, UNATTENDED, DEFERRED, UNSENDABLE, OVER = State

_AT_REST = frozenset({UNKNOWN, WAITING, UNATTENDED, DEFERRED, UNSENDABLE})
#: Of a job at rest its row may say anything next, and so it may be claimed.
_FROM_REST = _AT_REST | {CLAIMING, LATE}
#: What a claim that is over, or a request that ended and whose row was read, leads to.
TRANSITIONS: Mapping[State, frozenset[State]] = {
    **dict.fromkeys(_AT_REST, _FROM_REST),
    CLAIMING: _AT_REST | {REQUESTED, LATE},
    LATE: _AT_REST,
    REQUESTED: frozenset({ENDED}),
    ENDED: _AT_REST | {OVER},
    OVER: _FROM_REST,
}
#: States of which only so many records are kept, the last ones.
_LIMITED = (WAITING, UNSENDABLE)


@dataclass(eq=False, slots=True)
class JobRecord:
    """One job. `id` and `channel` as in its row; '' is the uuid of one whose row was not seen."""

    id: int
    uuid: str = ""
    channel: str | None = None
    state: State = UNKNOWN
    #: The id under which the backlog holds its permit.
    permit: int = 0
    #: How often it was asked for in vain since it was last run, or could not be written.
    attempts: int = 0
    #: How often the connection ended under its claim.
    broke: int = 0
    #: Not before: DEFERRED ends, UNATTENDED is looked at again. OVER: no longer than until then.
    until_s: float = 0.0
    #: DEFERRED: its place in the order.
    pending: Pending | None = None
    #: From when it was due until it was sent, by our clock and the server's.
    waited_s: float = 0.0
    #: How its last request ended.
    ended: Ended | None = None
    #: OWN_NOTIFICATIONS that came.
    heard: int = 0
    #: REQUESTED: since when its row is over; 0: it is not, as far as is known.
    over_since_s: float = 0.0
    #: UNATTENDED: since when it looks dead; 0: it does not.
    dead_since_s: float = 0.0
    #: The last look at which it ran for too long (long_runs.py), and whether its session was ended since then.
    overdue_look: int = 0
    is_session_ended: bool = False


class Jobs:
    """The records of one worker."""

    def __init__(self, look: Deadline) -> None:
        """`look`: when the jobs with an open request are to be looked at: one may be over without an answer."""
        self.look = look
        self._by_id: dict[int, JobRecord] = {}
        #: Of jobs that were sent, until their notifications are news again. At one time a uuid is sent once.
        self._by_uuid: dict[str, JobRecord] = {}
        self._in: dict[State, dict[JobRecord, None]] = {state: {} for state in State}
        self._requested, self._over = self._in[REQUESTED], self._in[OVER]
        #: Whether notifications of jobs with an open request are news too.
        self.include_running = False
        #: The channel of the last two jobs that were sent; None: they differ, or have none.
        self.usual_channel: str | None = None
        self._last_channel: str | None = None
        #: Permits that are held under a number that no row has: of a former database's jobs, or unseen ones.
        self._without_id = 0

    # -- records -----------------------------------------------------------------------------------------

    def get(self, job_id: int) -> JobRecord | None:
        """The record of a job, if it has one."""
        return self._by_id.get(job_id)

    def of(self, job_id: int) -> JobRecord:
        """The record of a job, a new one if it has none."""
        record = self._by_id.get(job_id)
        return record if record is not None else JobRecord(job_id, permit=job_id)

    def state(self, job_id: int) -> State:
        """The state of a job."""
        record = self._by_id.get(job_id)
        return record.state if record is not None else UNKNOWN

    def all_in(self, state: State) -> list[JobRecord]:
        """All jobs in a state, those that have been longest first."""
        return list(self._in[state])

    def has(self, state: State) -> bool:
        """Whether any job is in a state."""
        return bool(self._in[state])

    def enter(self, record: JobRecord, state: State) -> JobRecord:
        """Every move of the state machine."""
        former = record.state
        assert state in TRANSITIONS[former], f"job {record.id}: {former.value} -> {state.value}"
        if former is UNKNOWN:
            self._by_id[record.id] = record
        elif former is not state:
            del self._in[former][record]
        record.state = state
        if state is not UNKNOWN:
            self._in[state][record] = None
            if state in _LIMITED and len(self._in[state]) > MAX_REMEMBERED:
                self.forget(next(iter(self._in[state])))
        elif former is not UNKNOWN:
            if self._by_id.get(record.id) is record:
                del self._by_id[record.id]
            if self._by_uuid.get(record.uuid) is record:
                del self._by_uuid[record.uuid]
        return record

    def forget(self, record: JobRecord) -> None:
        """Nothing is to be remembered of a job."""
        self.enter(record, UNKNOWN)

    def wait(self, record: JobRecord) -> None:
        """A job is pending: it is remembered as long as anything counts against it."""
        counts = (record.attempts or record.broke) and record.id > 0
        self.enter(record, WAITING if counts else UNKNOWN)

    @property
    def any_at_rest(self) -> bool:
        """Whether there may be a job that nothing is done with now."""
        return len(self._by_id) > len(self._requested) + len(self._over)

    def at_rest(self, uuids: Iterable[str], ids: Iterable[int]) -> list[JobRecord]:
        """The jobs of these uuids or ids that nothing is done with now; costs a look at each of those."""
        said, numbers = set(uuids), set(ids)
        return [r for state in _AT_REST for r in self._in[state] if r.uuid in said or r.id in numbers]

    def _number(self) -> int:
        self._without_id += 1
        return -self._without_id

    def unseen(self, uuid: str, channel: str) -> JobRecord:
        """A new record of a job that is to be claimed, and of which only the uuid is known."""
        number = self._number()
        return JobRecord(number, uuid, channel, permit=number)

    def recognise(self, record: JobRecord, job_id: int) -> None:
        """The claim of an unseen job told which one it is; in time, or late."""
        state = record.state
        self.forget(record)
        known = self.enter(self.of(job_id), CLAIMING)
        if state is not CLAIMING:
            self.enter(known, state)

    # -- requests ----------------------------------------------------------------------------------------

    def request(self, record: JobRecord, uuid: str, channel: str | None) -> None:
        """A job is sent."""
        record.uuid, record.channel = uuid, channel
        record.heard, record.over_since_s, record.broke = 0, 0.0, 0
        self._by_uuid[uuid] = record
        self.usual_channel = channel if channel == self._last_channel else None
        self._last_channel = channel
        self.enter(record, REQUESTED)

    def end(self, ended: Ended) -> JobRecord:
        """A request ended; its job."""
        record = self._by_uuid[ended.uuid]
        record.ended = ended
        return self.enter(record, ENDED)

    def sent(self, uuid: str) -> JobRecord | None:
        """The job of this uuid whose request is open."""
        record = self._by_uuid.get(uuid)
        return record if record is not None and record.state is REQUESTED else None

    def note_row(self, record: JobRecord, *, over: bool, now_s: float) -> None:
        """The row of a job whose request is open was read: whether it is `over`."""
        if not over:
            record.over_since_s = 0.0
            record.heard = min(record.heard, 1)
        elif not record.over_since_s:
            record.over_since_s = now_s
            self.look.set_earlier(now_s + OVER_S)

    def over_unanswered(self, now_s: float) -> tuple[list[JobRecord], list[JobRecord]]:
        """Of the jobs with an open request: those that are over for too long, and those that may be over by now."""
        self.look.clear()
        too_long, perhaps = [], []
        for record in self._requested:
            if not record.over_since_s:
                if record.heard >= OWN_NOTIFICATIONS:
                    perhaps.append(record)
            elif now_s >= record.over_since_s + OVER_S:
                too_long.append(record)
            else:
                self.look.set_earlier(record.over_since_s + OVER_S)
        return too_long, perhaps

    def disown(self, now_s: float) -> None:
        """The database is another one of the same name: its ids and rows say nothing of the jobs known so far.

        Those that were sent have no row any more. Their permits are held under ids that no row has.
        """
        for state in _AT_REST | {CLAIMING, LATE, OVER}:
            for record in self.all_in(state):
                self.forget(record)
        for state in (REQUESTED, ENDED):
            for record in self._in[state]:
                if self._by_id.get(record.id) is record:
                    del self._by_id[record.id]
                record.permit = self._number()
                self.note_row(record, over=True, now_s=now_s)

    def finish(self, record: JobRecord, *, done: bool) -> None:
        """A job that was sent is over. Of one that is `done` the rest of its own notifications is no news."""
        record.attempts = 0
        if not done or record.heard >= OWN_NOTIFICATIONS:
            self.forget(record)
            return
        now_s = time.monotonic()
        record.until_s = now_s + OWN_S
        self.enter(record, OVER)
        over = self._over
        oldest = next(iter(over))
        while oldest.until_s < now_s or len(over) > MAX_OVER:
            self.forget(oldest)
            oldest = next(iter(over))

    # -- notifications -------------------------------------------------------------------------------------

    def is_news(self, uuid: str) -> bool:
        """Whether a notification tells of anything but the run of a job that we asked for.

        Odoo's own, from the job's start to `done`, come in while its request is open and for a moment after its row was
        seen `done`. Each of the latter would cost a statement. One more is news, and so is one that comes too late.
        """
        record = self._by_uuid.get(uuid)
        if record is None or record.state in _AT_REST:
            return True
        record.heard += 1
        if record.state is REQUESTED:
            if record.heard >= OWN_NOTIFICATIONS and self.look.at_s == math.inf:
                self.look.set_if_idle(time.monotonic() + ANSWER_S)
            return self.include_running
        if record.state is ENDED:  # its row is about to be read
            return record.heard > OWN_NOTIFICATIONS
        if record.heard > OWN_NOTIFICATIONS or time.monotonic() >= record.until_s:
            self.forget(record)
            return True
        if record.heard == OWN_NOTIFICATIONS:
            self.forget(record)
        return False
