"""Decides what a worker may start, from its backlog (what is next), its slot (what has room) and its targets.
Knows nothing of rows: a permit taken here is a job for serving.py to claim.
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
#: Most jobs started per turn, because the table's lock is held while they are chosen.
START_BATCH = 50
#: Sorts after every known job.
_LAST = 1 << 62


class Permits:
    """One worker's use of the shared table."""

    def __init__(self, database: Database, worker_slot: WorkerSlot, dispatcher: Dispatcher) -> None:
        self._database = database
        self._worker_slot = worker_slot
        self._dispatcher = dispatcher
        #: A rate counted starts since this was last cleared.
        self.has_counted = False

    def exchange(self, backlog: Backlog, now_s: float, *, start: bool) -> None:
        """Write what is held into the table, and take permits for what may start, into `backlog.taken`.

        `start` False: start nothing.
        """
        self._prepare(backlog, now_s, start=start)
        if self._worker_slot.is_due(backlog):
            self._worker_slot.exchange(backlog)

    def _prepare(self, backlog: Backlog, now_s: float, *, start: bool) -> None:
        allowed = min(START_BATCH, self._dispatcher.allowance(now_s)) if start else 0
        backlog.prepare(time.time_ns() // 1000 + self._database.clock_us, max(0, allowed))

    def take_unseen(self, backlog: Backlog, jobs: Jobs, uuid: str, now_s: float) -> JobRecord | None:
        """Take a permit for an announced job before its row is read, if one is free; else None.

        If nothing waits, the job is most likely due and in the channel of its predecessors. Limits and other databases
        are respected as for any job, but it comes last in order. Not done where the start would be counted (throttle,
        rate) or order matters. A wrong guess briefly holds a permit.
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
        """These jobs are about to be sent: the rates of their channels count from now."""
        channels = backlog.note_sent(job_ids, time.time_ns() // 1000 + self._database.clock_us)
        if channels:
            self._worker_slot.note_sent(channels)
            self.has_counted = True

    def next_start_s(self, backlog: Backlog, now_s: float) -> float:
        """When something may become startable: an eta, the end of a throttle, or of our wait for another worker."""
        next_s = self._worker_slot.look_again_s(backlog.wanted_channels)
        wall_us = backlog.next_deadline_us()
        if wall_us is None:
            return next_s
        return min(next_s, now_s + max(0.0, (wall_us - self._database.clock_us) / 1e6 - time.time()))

    def hand_over(self, backlog: Backlog, ended: Iterable[JobRecord], now_s: float) -> dict[int, int]:
        """Let jobs take over the permits of jobs whose requests succeeded, unless others have a better right to them.

        They are claimed in the statement that reads the ended jobs' rows, which permits a claim only if its
        predecessor is over. Returns job id -> predecessor's id.
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
    """Whether a request succeeded at a target that can take another job at once."""
    ended = record.ended
    if ended is None or ended.target.breaker.state is not _UP:
        return False
    status = ended.outcome.status
    return status is not None and 200 <= status < 300
