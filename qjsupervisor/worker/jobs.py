"""One record, with a state, for every job of which a worker knows more than its place in the backlog.

    waiting ──> claiming ──> requested ──> ended ──> over, waiting, deferred or unattended
                    └──────> late (its claim was not answered in time) ──> waiting or unattended
A job counts, i.e. the backlog holds a permit for it, while it is claiming, requested, ended or unattended. Of a job
without a record only its row is known. A job claimed before its row was read (`unseen`) has a temporary number below
all row ids. An id identifies a job only within one database: `disown` handles the jobs of a database that was
dropped and recreated.
Does no I/O and does not move jobs in the backlog; rows.py does that, according to the rows.
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
#: How long after a job was seen `done` they may arrive, and for how many jobs that is remembered.
OWN_S = 1.0
MAX_OVER = 1000
#: A request should be answered within this time after the job's last usual notification.
ANSWER_S = 2.0
#: A row that has been over for this long ends its job even without an answer.
OVER_S = 10.0
#: Limit of records for jobs that only wait, or that no request can name.
MAX_REMEMBERED = 10_000


class State(enum.Enum):
    """A job's state from this worker's point of view."""

    __hash__ = object.__hash__  # Enum's own costs a Python call per dict lookup
    #: It has no record.
    UNKNOWN = "unknown"
    #: Pending, after a request that ran nothing or a lost claim.
    WAITING = "waiting"
    #: It has a permit, and its claim is under way.
    CLAIMING = "claiming"
    #: Its claim was not answered in time: it has no permit, and its row must be read.
    LATE = "late"
    #: Its request is open.
    REQUESTED = "requested"
    #: Its request ended; its row has not been read since.
    ENDED = "ended"
    #: Its row says `enqueued` or `started`, and no request of ours is open for it.
    UNATTENDED = "unattended"
    #: Pending, and not tried until `until_s`.
    DEFERRED = "deferred"
    #: Pending, and no request can name it.
    UNSENDABLE = "unsendable"
    #: Over; remembered until `until_s`, so that its last notifications are recognised.
    OVER = "over"


#: The states by name. `State.ENDED` takes as long as a call does (up to Python 3.11), and a job passes thirty of them.
UNKNOWN, WAITING, CLAIMING, LATE, REQUESTED, ENDED, UNATTENDED, DEFERRED, UNSENDABLE, OVER = State

_AT_REST = frozenset({UNKNOWN, WAITING, UNATTENDED, DEFERRED, UNSENDABLE})
#: The row of a job at rest may say anything next, and the job may be claimed.
_FROM_REST = _AT_REST | {CLAIMING, LATE}
#: Where a finished claim, or an ended request whose row was read, leads.
TRANSITIONS: Mapping[State, frozenset[State]] = {
    **dict.fromkeys(_AT_REST, _FROM_REST),
    CLAIMING: _AT_REST | {REQUESTED, LATE},
    LATE: _AT_REST,
    REQUESTED: frozenset({ENDED}),
    ENDED: _AT_REST | {OVER},
    OVER: _FROM_REST,
}
#: States of which only the most recent MAX_REMEMBERED records are kept.
_LIMITED = (WAITING, UNSENDABLE)


@dataclass(eq=False, slots=True)
class JobRecord:
    """One job. `id` and `channel` as in its row; the uuid is '' if the row was not seen."""

    id: int
    uuid: str = ""
    channel: str | None = None
    state: State = UNKNOWN
    #: The id under which the backlog holds its permit.
    permit: int = 0
    #: Failed attempts (not run, or its row not writable) since it last ran.
    attempts: int = 0
    #: How often the connection ended during its claim.
    broke: int = 0
    #: DEFERRED: when it ends. UNATTENDED: when it is checked again. OVER: when the record is dropped.
    until_s: float = 0.0
    #: DEFERRED: the job, with its place in the order.
    pending: Pending | None = None
    #: Time from when it was due until it was sent.
    waited_s: float = 0.0
    #: How its last request ended.
    ended: Ended | None = None
    #: How many of its OWN_NOTIFICATIONS have arrived.
    heard: int = 0
    #: REQUESTED: when its row was first seen over; 0: not seen over.
    over_since_s: float = 0.0
    #: UNATTENDED: since when its process seems dead; 0: it does not.
    dead_since_s: float = 0.0
    #: UNATTENDED: it is dead, and the database does not let it be put back. It holds no permit and counts as failed.
    is_stuck: bool = False
    #: Number of the last look that found it running too long (long_runs.py), and whether its session was ended since.
    overdue_look: int = 0
    is_session_ended: bool = False


class Jobs:
    """The records of one worker."""

    def __init__(self, look: Deadline) -> None:
        """`look`: when to check open requests, as a job may be over without an answer."""
        self.look = look
        self._by_id: dict[int, JobRecord] = {}
        #: Sent jobs, until their notifications are news again. A uuid is sent only once at a time.
        self._by_uuid: dict[str, JobRecord] = {}
        self._in: dict[State, dict[JobRecord, None]] = {state: {} for state in State}
        self._requested, self._over = self._in[REQUESTED], self._in[OVER]
        #: Whether notifications of jobs with an open request count as news.
        self.include_running = False
        #: The channel of the last two jobs sent; None if they differ.
        self.usual_channel: str | None = None
        self._last_channel: str | None = None
        #: Last temporary number given to a permit without a row id: for jobs of a former database, or unseen ones.
        self._without_id = 0

    # -- records -----------------------------------------------------------------------------------------

    def get(self, job_id: int) -> JobRecord | None:
        """The record of a job, or None."""
        return self._by_id.get(job_id)

    def of(self, job_id: int) -> JobRecord:
        """The record of a job, created if it has none."""
        record = self._by_id.get(job_id)
        return record if record is not None else JobRecord(job_id, permit=job_id)

    def state(self, job_id: int) -> State:
        """The state of a job."""
        record = self._by_id.get(job_id)
        return record.state if record is not None else UNKNOWN

    def all_in(self, state: State) -> list[JobRecord]:
        """All jobs in a state, those longest in it first."""
        return list(self._in[state])

    def has(self, state: State) -> bool:
        """Whether any job is in a state."""
        return bool(self._in[state])

    def enter(self, record: JobRecord, state: State) -> JobRecord:
        """Move a job to another state; the only place where a state is assigned."""
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
        """Drop a job's record."""
        self.enter(record, UNKNOWN)

    def wait(self, record: JobRecord) -> None:
        """A job is pending; its record is kept only if something counts against it."""
        counts = (record.attempts or record.broke) and record.id > 0
        self.enter(record, WAITING if counts else UNKNOWN)

    @property
    def any_at_rest(self) -> bool:
        """Whether there may be a job at rest."""
        return len(self._by_id) > len(self._requested) + len(self._over)

    def at_rest(self, uuids: Iterable[str], ids: Iterable[int]) -> list[JobRecord]:
        """The jobs at rest with these uuids or ids; looks at every job at rest."""
        said, numbers = set(uuids), set(ids)
        return [r for state in _AT_REST for r in self._in[state] if r.uuid in said or r.id in numbers]

    def _number(self) -> int:
        self._without_id += 1
        return -self._without_id

    def unseen(self, uuid: str, channel: str) -> JobRecord:
        """A new record for a job to be claimed of which only the uuid is known."""
        number = self._number()
        return JobRecord(number, uuid, channel, permit=number)

    def recognise(self, record: JobRecord, job_id: int) -> None:
        """The claim of an unseen job, in time or late, returned its id."""
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
        """A request ended; returns its job."""
        record = self._by_uuid[ended.uuid]
        record.ended = ended
        return self.enter(record, ENDED)

    def sent(self, uuid: str) -> JobRecord | None:
        """The job with this uuid whose request is open, or None."""
        record = self._by_uuid.get(uuid)
        return record if record is not None and record.state is REQUESTED else None

    def note_row(self, record: JobRecord, *, over: bool, now_s: float) -> None:
        """Note whether the row of a job with an open request says that it is over."""
        if not over:
            record.over_since_s = 0.0
            record.heard = min(record.heard, 1)
        elif not record.over_since_s:
            record.over_since_s = now_s
            self.look.set_earlier(now_s + OVER_S)

    def over_unanswered(self, now_s: float) -> tuple[list[JobRecord], list[JobRecord]]:
        """Of the jobs with an open request: (over for too long, possibly over by now)."""
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
        """The database was replaced by another of the same name, whose ids and rows do not concern known jobs.

        Sent jobs have no row any more; their permits are held under temporary numbers.
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
        """A sent job is over. If it is `done`, the rest of its own notifications is not news."""
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
        """Whether a notification is about more than the run of a job we requested.

        Odoo's notifications from the job's start to `done` arrive while its request is open and shortly after its row
        was seen `done`; reading the row for each would cost a statement. Any further or later one is news.
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
