"""One channel of a database's tree, and the line of channels that compete for one shared permit.  Pure.

A node that holds up jobs parks the best jobs of the waiting nodes below it; a free place takes the best parked one out
again, so a start costs the same with ten channels and with a thousand. What must hold: a guard that has room and
has parked jobs has a better one of its own in the line.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

from .channelspec import ChannelSpec
from .grants import Key
from .window import Window


class Pending(NamedTuple):
    """A pending job as the database says; `channel` as in the row, `eta_us` None or UTC microseconds."""

    key: Key
    channel: str | None
    eta_us: int | None

    @property
    def job_id(self) -> int:
        return self.key[2]


class Node:
    """One channel of the tree."""

    def __init__(self, spec: ChannelSpec, parent: Node | None, shared: int, window: int, *, local_limits: bool) -> None:
        self.spec = spec
        self.name = spec.name
        self.parent = parent
        #: Index in the shared table of this node, or of its nearest shared ancestor.
        self.shared = shared
        #: Whether capacity, sequential, throttle and paused of `spec` are for this process to keep.
        self.local_limits = local_limits
        self.paused_by_order = False
        self.ready: Window[Key] = Window(window)
        self.etas: Window[tuple[int, Key]] = Window(window)
        #: Jobs beyond the due window that may be better than all in it: nothing starts before they were read.
        self.stale = False
        #: Pending jobs that are in the database only.
        self.beyond = 0
        #: Failed jobs directly in it.
        self.failed = 0
        #: Jobs that hold a permit in this node or in its local subtree.
        self.running = 0
        self.not_before_us = 0
        #: Nodes of the branch, from this one up, that can hold up a job of this node.
        self.guards: tuple[Node, ...] = ()
        self.parked: list[tuple[Key, Node]] = []
        #: Where this node's best job is entered: in its branch or parked at a guard.
        self.entry: tuple[Key, Node] | None = None
        self.place: list[tuple[Key, Node]] | None = None

    def __lt__(self, other: Node) -> bool:
        return self.name < other.name

    @property
    def pending(self) -> int:
        return len(self.ready) + len(self.etas) + self.beyond

    @property
    def wants_reading(self) -> bool:
        """Whether more of its pending jobs should be read from the database."""
        return self.stale or self.ready.runs_dry or self.etas.runs_dry

    def head(self) -> Key | None:
        """Its own best job, if nothing but limits could hold that one up."""
        if self.stale or not self.ready.items:
            return None
        head = self.ready.items[0]
        if self.spec.sequential and self.etas.items and self.etas.items[0][1] < head:
            return None  # in order: the one that is due next comes first
        return head

    def holds_up(self, now_us: int) -> bool:
        """Whether this guard lets nobody through now."""
        if self.paused_by_order:
            return True
        if not self.local_limits:
            return False
        spec = self.spec
        full = spec.capacity is not None and self.running >= spec.capacity
        return full or spec.paused or bool(spec.sequential and self.failed) or self.not_before_us > now_us


class Branch:
    """The nodes below one shared channel, as one line of jobs."""

    def __init__(self, shared: int) -> None:
        self.shared = shared
        self.line: list[tuple[Key, Node]] = []

    def best(self, now_us: int) -> tuple[Key, Node] | None:
        """The best job that no guard holds up. Parks those that are held up."""
        while self.line:
            key, node = self.line[0]
            guard = next((g for g in node.guards if g.holds_up(now_us)), None)
            if guard is None:
                return key, node
            del self.line[0]
            insort(guard.parked, (key, node))
            node.place = guard.parked
            self.unpark(node, now_us)
        return None

    def enter(self, node: Node, now_us: int) -> bool:
        """Enter a node's best job, in place of what it had entered; False if that is the same."""
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
        """Let the best parked job of each guard of `node` that has room come forward."""
        for guard in node.guards:
            if guard.parked and not guard.holds_up(now_us):
                entry = guard.parked.pop(0)
                entry[1].place = self.line
                insort(self.line, entry)
