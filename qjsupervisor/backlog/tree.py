"""One database's jobs in its channels, and which one is next.  Pure: no I/O, no clock.

Order and limits follow docs/contract.md, "Configuration, as queue_job reads it". Nodes (nodes.py) are the channels of
this database's tree. Some are shared by all databases, with an index in the shared table, which enforces their limits;
the limits of the others are enforced here. A slot queries `ChannelTree` while it holds the table's lock
(grants.Source).
Only a bounded window of the pending jobs is held, by order key and, for jobs that are not due, by eta. backlog.py fills
the windows.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple

from ..channelspec import ChannelSpec
from ..job import Pending
from .line import ChannelLine
from .names import Shared
from .nodes import Node

#: Limit of remembered failed jobs; of further ones only the number is known until the next full read.
KNOWN_FAILED = 10_000


class Failed(NamedTuple):
    """A failed job; `channel` as in the row."""

    channel: str | None


class Stop(NamedTuple):
    """A sequential channel with failed jobs. `shared`: it is stopped for all databases."""

    channel: str
    failed: int
    #: The first known failed job, or None if only their number is known.
    job_id: int | None
    shared: bool


class Standing(enum.Enum):
    """What a tree knows of a job. A job has one standing at a time."""

    #: Pending, and in a window.
    WAITING = "waiting"
    #: Pending, and not started for now, whatever a read says.
    DEFERRED = "deferred"
    #: It has a permit.
    HELD = "held"
    #: Failed, and individually known, so that it is counted once when it is no longer failed.
    FAILED = "failed"


WAITING, DEFERRED, HELD, FAILED = Standing
#: A job's node and its standing. Of a pending job also its row; of one that is taken, counted by a rate (here or in the
#: shared table) and not yet sent, when it was taken (UTC).
Place = tuple[Node, Standing, Pending | int | None]

#: What became of a job that changed during a read: pending, failed, or None for neither.
Change = Pending | Failed | None


class ChannelTree(ChannelLine):
    """All waiting, running and failed jobs of one database."""

    def __init__(self, specs: Iterable[ChannelSpec], shared: Shared, window: int) -> None:
        """As ChannelLine."""
        super().__init__(specs, shared, window)
        #: By job id.
        self._places: dict[int, Place] = {}
        #: How many of them are deferred, and how many failed.
        self._deferred_count = self._known_failed = 0
        self._changes_during_read: dict[int, Change] | None = None
        #: Jobs of sequential channels failed or recovered since this was last cleared.
        self.stops_changed = True
        self.held: dict[int, int] = {}
        self.failed: dict[int, int] = {}
        self.changed: set[int] = set()
        #: Ids of jobs that have a permit and wait to be claimed.
        self.taken: list[int] = []
        #: How many taken jobs are not sent and counted by a rate, here or in the shared table.
        self.counted = 0
        #: Shared channels of counted jobs that are not sent after all.
        self.withdrawn: list[int] = []

    def inherit(self, old: ChannelTree) -> None:
        """Replace a tree that had other settings, keeping what is in no row: deferred jobs, throttles, rates."""
        self.now_us = old.now_us
        for _node, standing, job in old._places.values():
            if standing is DEFERRED and isinstance(job, Pending):
                self.defer(job)
        for name, node in self.nodes.items():
            former = old.nodes.get(name)
            if former is not None and former.not_before_us:
                self._throttle(node, former.not_before_us)
            if former is not None and former.starts is not None and node.starts is not None:
                node.awaits_starts = former.awaits_starts
                node.starts.add_past(former.starts.moments())
                self._follow_rate(node)
        self._turn_back(old.now_us)  # a throttle may be shorter now

    # -- jobs --------------------------------------------------------------------------------------------

    def put(self, job: Pending) -> None:
        """A job is pending."""
        job_id = job.job_id
        place = self._places.get(job_id)
        if place is not None and place[1] is DEFERRED:
            return
        self._note_change(job_id, job)
        if place is None or place[2] != job:
            self._leave(job_id)
            self._place(self.node_for(job.channel), job)

    def hold(self, job_id: int, channel: str | None) -> None:
        """A job is enqueued or started: it holds a permit, whatever the capacity."""
        self._note_change(job_id, None)
        node = self.node_for(channel)
        place = self._places.get(job_id)
        if place is None or place[1] is not HELD or place[0] is not node:
            self._leave(job_id)
            self._places[job_id] = (node, HELD, None)
            self._count_held(node, 1)

    def fail(self, job_id: int, channel: str | None) -> None:
        """A job is failed."""
        self._leave(job_id)
        self._note_change(job_id, Failed(channel))
        node = self.node_for(channel)
        self._know_failed(job_id, node)
        self._count_failed(node, node.failed + 1)

    def forget(self, job_id: int) -> None:
        """A job is over, waits for another one, or no longer exists."""
        self._leave(job_id)
        self._note_change(job_id, None)

    def defer(self, job: Pending) -> None:
        """A job is pending but deferred; in a sequential channel later jobs wait too."""
        self.forget(job.job_id)
        node = self.node_for(job.channel)
        self._places[job.job_id] = (node, DEFERRED, job)
        self._deferred_count += 1
        insort(node.deferred, job.key)
        self._renew(node)

    def release(self, job_id: int) -> None:
        """A job is no longer deferred; the caller says where it is now."""
        place = self._places.get(job_id)
        if place is not None and place[1] is DEFERRED:
            self._leave(job_id)

    @property
    def deferred(self) -> list[int]:
        """Ids of the deferred jobs."""
        return [key[2] for node in self.nodes.values() for key in node.deferred]

    def is_held(self, job_id: int) -> bool:
        """Whether a job holds a permit."""
        return self._held_in(job_id) is not None

    @property
    def permits(self) -> int:
        """How many jobs hold a permit."""
        return sum(self.held.values())

    def holding(self) -> set[int]:
        """Ids of jobs that hold a permit; looks at every known job."""
        return {job_id for job_id, place in self._places.items() if place[1] is HELD}

    def _held_in(self, job_id: int) -> Node | None:
        """The node of a job that holds a permit."""
        place = self._places.get(job_id)
        return place[0] if place is not None and place[1] is HELD else None

    def _know_failed(self, job_id: int, node: Node) -> None:
        if self._known_failed < KNOWN_FAILED:
            self._known_failed += 1
            self._places[job_id] = (node, FAILED, None)

    def _note_change(self, job_id: int, what: Change) -> None:
        if self._changes_during_read is not None:
            self._changes_during_read[job_id] = what

    def _place(self, node: Node, job: Pending) -> None:
        if job.eta_us is not None and job.eta_us > self.now_us:
            dropped_eta = node.etas.put((job.eta_us, job.key))
            dropped = dropped_eta[1] if dropped_eta else None
        else:
            dropped = node.ready.put(job.key)
        if dropped != job.key:
            self._places[job.key[2]] = (node, WAITING, job)
        if dropped is not None:
            node.unread_count += 1
            if dropped != job.key:
                del self._places[dropped[2]]
        self._renew(node)

    def _leave(self, job_id: int) -> None:
        """Remove a job from wherever it is."""
        place = self._places.pop(job_id, None)
        if place is None:
            return
        node, standing, detail = place
        if isinstance(detail, Pending):
            if standing is DEFERRED:
                self._deferred_count -= 1
                node.deferred.remove(detail.key)
            elif not node.ready.remove(detail.key) and detail.eta_us is not None:
                node.etas.remove((detail.eta_us, detail.key))
            self._renew(node)
        elif standing is HELD:
            if detail is not None:
                self._withdraw(node, detail)
            self._count_held(node, -1)
        else:
            self._known_failed -= 1
            self._count_failed(node, node.failed - 1)

    def _count_held(self, node: Node, change: int) -> None:
        self.held[node.shared] = self.held.get(node.shared, 0) + change
        self.changed.add(node.shared)
        for guard in node.guards:
            guard.running += change
        self._give_room(node)

    def _count_failed(self, node: Node, failed: int) -> None:
        """Set the number of failed jobs directly in a node."""
        if node.spec.sequential and node.failed != failed:
            self.stops_changed = True
        node.failed = max(0, failed)
        if self._shared.get(node.name) == node.shared:
            self.failed[node.shared] = node.failed
            self.changed.add(node.shared)
        self._give_room(node)

    def stops(self) -> list[Stop]:
        """The sequential channels stopped by failed jobs, in order of name."""
        stopped = sorted(node for node in self.nodes.values() if node.spec.sequential and node.failed)
        first: dict[Node, int] = {}
        if stopped:
            for job_id, (node, standing, _detail) in self._places.items():
                if standing is FAILED:
                    first[node] = min(job_id, first.get(node, job_id))
        return [
            Stop(node.name, node.failed, first.get(node), self._shared.get(node.name) == node.shared)
            for node in stopped
        ]

    # -- who is next (grants.Source) -----------------------------------------------------------------------

    def prepare(self, now_us: int, budget: int) -> None:
        """Before an exchange: advance to `now_us` (UTC) and allow up to `budget` jobs to be taken."""
        if now_us < self.now_us:
            self._turn_back(now_us)
        self.now_us = now_us
        self.budget = budget
        if self._etas.moments:
            for node in self._etas.due(now_us):
                self._fall_due(node)
        if self._throttles.moments:
            for guard in self._throttles.due(now_us):
                self._give_room(guard)
        if self._dirty:
            self._settle()

    def _fall_due(self, node: Node) -> None:
        waiting = node.etas
        due = bisect_left(waiting.items, (self.now_us + 1,))
        arrived, waiting.items[:due] = waiting.items[:due], []
        if waiting.horizon is not None and waiting.horizon[0] <= self.now_us:
            node.head_unknown = True  # jobs beyond the window are due and may be better than those in it
        for _eta_us, key in arrived:
            _node, _standing, job = self._places.pop(key[2])
            assert isinstance(job, Pending)
            self._place(node, job)
        self._renew(node)

    @property
    def wanted_channels(self) -> int:
        """Bitmap of the shared channels in which a job could start."""
        return self._demand if self.budget > 0 else 0

    def take(self, channel: int) -> None:
        """Use a permit for the best job of a channel, which will be claimed."""
        key, node = self._heads[channel]
        job_id = key[2]
        if self._is_ruled:
            self._branches[channel].count(node)
        node.ready.remove(key)
        self._note_change(job_id, None)
        self.budget -= 1
        self.taken.append(job_id)
        counted = channel in self.changed
        self._places[job_id] = (node, HELD, self.now_us if node.is_rated else None)
        self.counted += node.is_rated
        self._count_held(node, 1)
        if not counted:
            self.changed.discard(channel)  # the table already counts the permit
        for guard in node.guards:
            if guard.local_limits and guard.spec.throttle_s:
                self._throttle(guard, self.now_us + guard.spec.throttle_s * 1_000_000)
            if guard.starts is not None:
                guard.starts.count(self.now_us)
                self._follow_rate(guard)
        self._renew(node)
        self._settle()

    def note_sent(self, job_ids: Iterable[int], now_us: int) -> list[int]:
        """These jobs are about to be sent: rates kept here count from now.

        Returns the shared channel of each job that a rate counts.
        """
        sent = []
        for job_id in job_ids:
            node, standing, since_us = self._places[job_id]
            if standing is not HELD or not isinstance(since_us, int):
                continue
            self._places[job_id] = (node, HELD, None)
            self.counted -= 1
            sent.append(node.shared)
            for guard in node.guards:
                if guard.starts is not None:
                    guard.starts.delay(since_us, now_us)
                    self._follow_rate(guard)
        return sent

    def _withdraw(self, node: Node, since_us: int) -> None:
        """A taken job is not sent: give its start back to the rates."""
        self.counted -= 1
        for guard in node.guards:
            if guard.starts is not None:
                guard.starts.take_back(since_us, self.now_us)
                self._follow_rate(guard)
        self.withdrawn.append(node.shared)

    def line_is_for(self, job_id: int) -> int | None:
        """The shared channel of a running job if the best job of all waits in the same node; else None."""
        node = self._held_in(job_id)
        if node is None or self.budget <= 0 or not self._line:
            return None
        for guard in node.guards:
            if guard.local_limits:
                return None
        _key, shared = self._line[0]
        return shared if self._heads[shared][1] is node else None

    def hand_over(self, job_id: int) -> int:
        """Give the permit of a finished job to the best job, after `line_is_for`. Returns that job's id."""
        node = self._places.pop(job_id)[0]
        counted = node.shared in self.changed
        self._count_held(node, -1)
        self.take(node.shared)
        if not counted:
            self.changed.discard(node.shared)  # the number of permits is unchanged
        return self.taken.pop()

    def next_deadline_us(self) -> int | None:
        """When something may become startable if nothing happens earlier: an eta or the end of a throttle."""
        if not self._etas.moments and not self._throttles.moments:
            return None
        moments = (self._etas.first_us(), self._throttles.first_us())
        return min((moment for moment in moments if moment is not None), default=None)
