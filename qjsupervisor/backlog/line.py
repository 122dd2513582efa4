"""The line of a database's channels: each shared one with its best job, best first, and when more may start.  Pure.

A node whose windows or limits changed is entered anew; a slot queries the line while it holds the table's lock
(grants.Source). What jobs there are, and where, is known to tree.py.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

from ..channelspec import ChannelSpec
from ..job import Key
from .names import ChannelNames, Shared
from .nodes import Alarms, Node


class ChannelLine(ChannelNames):
    """Who is next."""

    def __init__(self, specs: Iterable[ChannelSpec], shared: Shared, window: int) -> None:
        """As ChannelNames."""
        super().__init__(specs, shared, window)
        self._etas = Alarms()
        self._throttles = Alarms()
        #: Nodes that may need refilling.
        self._needs_refill: set[Node] = set()
        self._dirty: set[int] = set()
        self._heads: dict[int, tuple[Key, Node]] = {}
        self._line: list[tuple[Key, int]] = []
        self._demand = 0
        self.now_us = 0
        #: How many jobs may be taken; with 0 the tree wants nothing.
        self.budget = 0
        self.new_heads: set[int] = set()

    def _renew(self, node: Node) -> None:
        """Update everything that depends on a node's windows."""
        if node.needs_refill:
            self._needs_refill.add(node)
        self._etas.set(node, node.next_eta_us(self.now_us))
        self._enter(node)
        if node.spec.sequential:
            order_barrier = node.order_barrier()
            if order_barrier != node.seen_barrier:
                node.seen_barrier = order_barrier
                for follower in node.followers:
                    self._enter(follower)

    def _enter(self, node: Node) -> None:
        if self._branches[node.shared].enter(node, self.now_us):
            self._dirty.add(node.shared)

    def _give_room(self, node: Node) -> None:
        """Something that held up jobs in a node may be over."""
        self._branches[node.shared].unpark(node, self.now_us)
        self._dirty.add(node.shared)

    def _turn_back(self, now_us: int) -> None:
        """Limit all throttles to their length from `now_us` on, in case the clock was set back."""
        for node in self.nodes.values():
            longest_us = now_us + node.spec.throttle_s * 1_000_000
            if node.not_before_us > longest_us:
                self._throttle(node, longest_us)
            if node.starts is not None:
                known = [min(moment, now_us) for moment in node.starts.moments()]
                node.starts.clear()
                node.starts.add_past(known)
                self._follow_rate(node)

    def _throttle(self, guard: Node, until_us: int) -> None:
        guard.not_before_us = until_us
        self._throttles.set(guard, until_us)

    def _follow_rate(self, guard: Node) -> None:
        """The last starts changed: update when the next is allowed, unless a throttle lasts longer."""
        assert guard.starts is not None
        opens_us = guard.starts.opens()
        guard.not_before_us = max(opens_us, guard.not_before_us) if guard.spec.throttle_s else opens_us
        self._throttles.set(guard, guard.not_before_us if guard.not_before_us > self.now_us else None)
        self._give_room(guard)

    def _settle(self) -> None:
        for shared in self._dirty:
            best = self._branches[shared].best(self.now_us)
            old = self._heads.get(shared)
            if best == old:
                continue
            if old is not None:
                del self._line[bisect_left(self._line, (old[0], shared))]
                del self._heads[shared]
                self._demand &= ~(1 << shared)
            if best is not None:
                self._heads[shared] = best
                insort(self._line, (best[0], shared))
                self._demand |= 1 << shared
            self.new_heads.add(shared)
        self._dirty.clear()

    def best(self, candidates: int) -> int:
        """The channel of the best job among `candidates`."""
        return next(shared for _key, shared in self._line if candidates >> shared & 1)

    def key(self, channel: int) -> Key:
        """The order key of the best job in a channel."""
        return self._heads[channel][0]

    def order(self) -> Sequence[int]:
        """The channels with a demand, best job first."""
        return [shared for _key, shared in self._line] if self.budget > 0 else ()
