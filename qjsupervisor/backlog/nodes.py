"""One channel of a database's tree, and the line of channels that compete for one shared permit.  Pure.

A node that holds up jobs (a guard) parks the best jobs of the waiting nodes below it; when it has room, the best parked
one comes back. A start therefore costs the same with ten channels as with a thousand. Invariant: a guard with room and
parked jobs has a better one of its own in the line.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from ..channelspec import ChannelSpec
from ..job import Key
from ..rates import RING_WORDS, Ring, window_of
from .window import Window

#: Sorts before every job.
_FIRST: Key = (-(1 << 62), 0, 0)


class Node:
    """One channel of the tree."""

    def __init__(self, spec: ChannelSpec, parent: Node | None, shared: int, window: int, *, local_limits: bool) -> None:
        self.spec = spec
        self.name = spec.name
        self.parent = parent
        #: Index in the shared table of this node or its nearest shared ancestor.
        self.shared = shared
        #: Whether this process enforces capacity, sequential, throttle and paused of `spec`.
        self.local_limits = local_limits
        #: An operator paused it or an ancestor.
        self.paused_by_order = False
        #: The schedule's limit for it and its subchannels; None: no limit.
        self.scheduled: int | None = None
        self.ready: Window[Key] = Window(window)
        self.etas: Window[tuple[int, Key]] = Window(window)
        #: Jobs beyond the due window may be better than all in it, so nothing starts before they are read.
        self.head_unknown = False
        #: Number of pending jobs that are only in the database. 0 if both windows are complete; otherwise the count of
        #: the last full read plus notified changes.
        self.unread_count = 0
        #: Deferred jobs, which are in no window.
        self.deferred: list[Key] = []
        #: Number of failed jobs directly in it.
        self.failed = 0
        #: Number of jobs holding a permit in this node or its local subtree.
        self.running = 0
        self.not_before_us = 0
        #: Its last starts, if this process enforces its rate.
        self.starts = ring_of(spec) if local_limits and spec.rate is not None else None
        #: Whether a rate, its own or an ancestor's, counts its starts.
        self.is_rated: bool = spec.rate is not None or (parent is not None and parent.is_rated)
        #: Starts of former processes are being read, so it counts as full.
        self.awaits_starts = False
        #: Nodes of the branch, from this one upwards, that can hold up a job of this node.
        self.guards = self._guards()
        self.parked: list[tuple[Key, Node]] = []
        #: Sequential nodes from this one up to root, whose jobs wait for an earlier one that is not due yet.
        self.in_order = self._in_order()
        #: If sequential: the nodes below this one.
        self.followers: list[Node] = []
        #: `order_barrier` after the last change.
        self.seen_barrier: Key | None = None
        #: The entry of this node's best job: its key and the branch or guard it is entered at.
        self.entry: tuple[Key, Node] | None = None
        self.place: list[tuple[Key, Node]] | None = None

    def __lt__(self, other: Node) -> bool:
        return self.name < other.name

    def _guards(self) -> tuple[Node, ...]:
        found: list[Node] = []
        above: Node | None = self
        while above is not None and above.shared == self.shared:
            found.append(above)
            above = above.parent
        return tuple(found)

    def _in_order(self) -> tuple[Node, ...]:
        above = self.parent.in_order if self.parent is not None else ()
        for node in above:
            node.followers.append(self)
        return (self, *above) if self.spec.sequential else above

    @property
    def pending(self) -> int:
        return len(self.ready) + len(self.etas) + len(self.deferred) + self.unread_count

    @property
    def needs_refill(self) -> bool:
        """Whether more of its pending jobs should be read."""
        return self.head_unknown or self.ready.runs_dry or self.etas.runs_dry

    def head(self) -> Key | None:
        """Its own best job, unless something other than limits holds it up."""
        if self.head_unknown or not self.ready.items:
            return None
        head = self.ready.items[0]
        for node in self.in_order:
            order_barrier = node.order_barrier()
            if order_barrier is not None and order_barrier < head:
                return None
        return head

    def order_barrier(self) -> Key | None:
        """In a sequential node, the waiting job that all later ones wait for.

        Of the jobs that are not due it is the one due next, as in OCA's queue_job.
        """
        if self.etas.items:
            next_due = self.etas.items[0][1]
            return min(next_due, self.deferred[0]) if self.deferred else next_due
        if self.etas.horizon is not None:
            return _FIRST
        return self.deferred[0] if self.deferred else None

    def next_eta_us(self, now_us: int) -> int | None:
        """When the next job falls due, in the window or beyond it."""
        if self.etas.items:
            return self.etas.items[0][0]
        horizon = self.etas.horizon
        return horizon[0] if horizon is not None and horizon[0] > now_us else None

    def holds_up(self, now_us: int) -> bool:
        """Whether this guard lets nobody through now."""
        if self.paused_by_order or (self.scheduled is not None and self.running >= self.scheduled):
            return True
        if not self.local_limits:
            return False
        spec = self.spec
        full = spec.capacity is not None and self.running >= spec.capacity
        held_up = full or spec.paused or bool(spec.sequential and self.failed) or self.not_before_us > now_us
        return held_up or self.awaits_starts


def ring_of(spec: ChannelSpec) -> Ring:
    """An empty ring for a channel's rate, in microseconds."""
    assert spec.rate is not None
    window_us = window_of(int(spec.rate.period_s * 1e6), 1_000_000)
    return Ring([0] * RING_WORDS, 0, spec.rate.starts, window_us)


class Branch:
    """The nodes below one shared channel, as one line of jobs."""

    def __init__(self, shared: int) -> None:
        self.shared = shared
        self.line: list[tuple[Key, Node]] = []

    def add(self, node: Node) -> None:
        """A node of this branch, after its parent."""

    def count(self, node: Node) -> None:
        """A job of a node starts."""

    def best(self, now_us: int) -> tuple[Key, Node] | None:
        """The best job that no guard holds up. Parks better ones that are held up."""
        while self.line:
            key, node = self.line[0]
            for guard in node.guards:
                if guard.holds_up(now_us):
                    break
            else:
                return key, node
            del self.line[0]
            insort(guard.parked, (key, node))
            node.place = guard.parked
            self.unpark(node, now_us)
        return None

    def enter(self, node: Node, now_us: int) -> bool:
        """Enter a node's best job instead of its former one; False if it is the same."""
        head = node.head()
        old = node.entry
        if (old[0] if old else None) == head:
            return False
        if old is not None and node.place is not None:
            del node.place[bisect_left(node.place, old)]
        node.entry = node.place = None
        if head is not None:
            node.entry, node.place = (head, node), self.line
            insort(self.line, node.entry)
        self.unpark(node, now_us)
        return True

    def unpark(self, node: Node, now_us: int) -> None:
        """Bring back the best parked job of each guard of `node` that has room."""
        for guard in node.guards:
            if guard.parked and not guard.holds_up(now_us):
                entry = guard.parked.pop(0)
                entry[1].place = self.line
                insort(self.line, entry)


class Alarms:
    """When nodes must be looked at again, at most one moment each."""

    def __init__(self) -> None:
        #: Node -> moment.
        self.moments: dict[Node, int] = {}
        #: Includes moments changed since, which are skipped.
        self._heap: list[tuple[int, Node]] = []

    def set(self, node: Node, moment_us: int | None) -> None:
        """Set a node's moment; None removes it."""
        if moment_us is None:
            self.moments.pop(node, None)
        elif self.moments.get(node) != moment_us:
            self.moments[node] = moment_us
            heappush(self._heap, (moment_us, node))
            if len(self._heap) > 2 * len(self.moments) + 16:
                self._heap = [(moment, n) for n, moment in self.moments.items()]
                heapify(self._heap)

    def first_us(self) -> int | None:
        """The earliest moment."""
        heap = self._heap
        while heap and self.moments.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now_us: int) -> Iterator[Node]:
        """Remove and yield the nodes whose moment has come."""
        while (first := self.first_us()) is not None and first <= now_us:
            node = heappop(self._heap)[1]
            del self.moments[node]
            yield node
