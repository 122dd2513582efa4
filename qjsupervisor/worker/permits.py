"""What a worker may start: between its backlog, which knows what is next, its slot, which knows what there is room for,
and its targets, which may be asked for so many.

It knows of no row: a permit that was taken is a job to be claimed, by serving.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..backlog.backlog import Backlog
from ..job import Pending, why_unsendable
from ..odoo.dispatcher import Dispatcher
from ..postgres.database import Database
from ..states import TargetState
from ..table.slot import WorkerSlot
from .jobs import JobRecord, Jobs

_UP = TargetState.UP
#: Jobs started in one turn: the table's lock is held while they are chosen.
START_BATCH = 50
#: No job is behind one of which nothing is known.
_LAST = 1 << 62


class Permits:
    """One worker's dealings with the shared table."""

    def __init__(self, database: Database, worker_slot: WorkerSlot, dispatcher: Dispatcher) -> None:
        self._database = database
        self._worker_slot = worker_slot
        self._dispatcher = dispatcher
        #: Starts were counted by a rate since somebody cleared it.
        self.has_counted = False

    def exchange(self, backlog: Backlog, now_s: float, *, start: bool) -> None:
        """Write into the table what is held, and take permits for what may start; the jobs are in `backlog.taken`.

        `start` False: nothing may.
        """
        self._prepare(backlog, now_s, start=start)
        if self._worker_slot.is_due(backlog):
            self._worker_slot.exchange(backlog)

    def _prepare(self, backlog: Backlog, now_s: float, *, start: bool) -> None:
        allowed = min(START_BATCH, self._dispatcher.allowance(now_s)) if start else 0
        backlog.prepare(time.time_ns() // 1000 + self._database.clock_us, max(0, allowed))

    def take_unseen(self, backlog: Backlog, jobs: Jobs, uuid: str, now_s: float) -> JobRecord | None:
        """A permit for an announced job before its row was read, if one is there for the asking; else None.

        Where nothing waits, such a job is most likely due, and in the channel of those before it. The table, the other
        databases and the limits decide about it as about any other job, but it comes last in order; and not where its
        start would be counted (throttle, rate) or its place in an order matters. A wrong guess briefly holds a permit.
        """
        channel = jobs.usual_channel
        if channel is None or jobs.include_running or why_unsendable(uuid) is not None:
            return None
        if not (backlog.is_idle and backlog.is_plain(channel)):
            return None
        if not self._worker_slot.has_room(backlog.node_for(channel).shared):
            return None
        record = jobs.unseen(uuid, channel)
        backlog.put(Pending((_LAST, _LAST, record.id), channel, None))
        self.exchange(backlog, now_s, start=True)
        if record.id not in backlog.taken:
            backlog.forget(record.id)
            return None
        backlog.taken.remove(record.id)
        return record

    def note_sent(self, backlog: Backlog, job_ids: Iterable[int]) -> None:
        """Odoo is about to be asked for these jobs: the rates of their channels count from now."""
        channels = backlog.note_sent(job_ids, time.time_ns() // 1000 + self._database.clock_us)
        if channels:
            self._worker_slot.note_sent(channels)
            self.has_counted = True

    def next_start_s(self, backlog: Backlog, now_s: float) -> float:
        """When something may be able to start: an eta, the end of a throttle, of our patience with another worker."""
        next_s = self._worker_slot.look_again_s(backlog.wanted_channels)
        wall_us = backlog.next_deadline_us()
        if wall_us is None:
            return next_s
        return min(next_s, now_s + max(0.0, (wall_us - self._database.clock_us) / 1e6 - time.time()))

    def hand_over(self, backlog: Backlog, ended: Iterable[JobRecord], now_s: float) -> dict[int, int]:
        """Jobs that take over the permits of jobs whose requests ended well, if nobody else has a right to those.

        They are claimed in the statement that looks at the ended jobs' rows, which lets a claim through only if its
        predecessor is over. Returns each with its predecessor's id.
        """
        claims: dict[int, int] = {}
        for record in ended:
            if not _ended_well(record):
                continue
            if not claims:
                self._prepare(backlog, now_s, start=True)
            channel = backlog.line_is_for(record.permit)
            if channel is not None and self._worker_slot.may_reuse_permit(channel):
                claims[backlog.hand_over(record.permit)] = record.id
        return claims


def _ended_well(record: JobRecord) -> bool:
    """Whether a request was answered with success, by a target that may be asked at once again."""
    ended = record.ended
    if ended is None or ended.target.breaker.state is not _UP:
        return False
    status = ended.outcome.status
    return status is not None and 200 <= status < 300
