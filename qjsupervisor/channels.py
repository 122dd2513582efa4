"""One database's jobs in its channels: which one is next.  Pure: no I/O, no clock.

Order and limits are those of contract section 6. Nodes (nodes.py) are the channels of this database's tree; some are
shared over all databases (they have an index in the shared table, which keeps their limits), the limits of the others
are kept here. `ChannelTree` is what a seat in the shared table asks while it holds the lock (seat.Source).

Only a bounded window of the pending jobs is here, by order key and, for those that are not due, by eta. How the windows
are filled is backlog.py's business.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence

from .channelspec import ROOT, ChannelSpec, complete_name, parent_name
from .grants import Key
from .nodes import Branch, Node, Pending

#: Raw channel names remembered, so that a read of one channel can use the index on it.
KNOWN_NAMES = 10_000
#: Ids of failed jobs remembered; of more only the number is known until the next full read.
KNOWN_FAILED = 10_000


def not_shared(_spec: ChannelSpec) -> int | None:
    """For trees whose channels are no other database's business."""
    return None


class ChannelTree:
    """All jobs of one database that wait, run or failed."""

    def __init__(
        self,
        specs: Iterable[ChannelSpec],
        *,
        shared: dict[str, int],
        keep_limits: bool,
        window: int,
        share: Callable[[ChannelSpec], int | None] = not_shared,
    ) -> None:
        """`specs`: parents before children.

        `shared`: the channels of the shared table and their index. `keep_limits`: this tree keeps the limits of
        those too (a tree per database, where the table knows the root's overall limit only). `share`: called for a
        channel that an ancestor's defaults make; returns its index in the table or None.
        """
        self._window = window
        self._shared = shared
        self._keep_limits = keep_limits
        self._share = share
        self.nodes: dict[str, Node] = {}
        self._configured: set[str] = set()
        self.names: dict[str | None, Node] = {}
        self._branches: dict[int, Branch] = {}
        self._pending: dict[int, tuple[Node, Pending]] = {}
        self._holding: dict[int, Node] = {}
        #: Failed jobs that are known one by one, so that one that is put right is counted once.
        self._failed_in: dict[int, Node] = {}
        self._throttled: set[Node] = set()
        #: Nodes that may want reading.
        self._thirsty: set[Node] = set()
        self._dirty: set[int] = set()
        self._heads: dict[int, tuple[Key, Node]] = {}
        self._line: list[tuple[Key, int]] = []
        self._wishes = 0
        self._heard: dict[int, Pending | None] | None = None
        self._next_eta_us: int | None = None
        self.now_us = 0
        #: Ids of pending jobs that are not to be started for now, whatever a read of the table says.
        self.aside: set[int] = set()
        #: How many jobs may be taken at all; with 0 the tree wishes for nothing.
        self.budget = 0
        self.held: dict[int, int] = {}
        self.failed: dict[int, int] = {}
        self.changed: set[int] = set()
        self.new_heads: set[int] = set()
        #: Ids of jobs that were given a permit and wait to be claimed.
        self.taken: list[int] = []
        for spec in specs:
            self._configured.add(spec.name)
            self._make(spec)

    # -- nodes -------------------------------------------------------------------------------------------

    def _make(self, spec: ChannelSpec) -> Node:
        parent = self._nearest(parent_name(spec.name)) if spec.name != ROOT else None
        index = self._shared.get(spec.name)
        local = index is None or self._keep_limits
        if index is None:
            index = parent.shared if parent is not None else 0
        node = Node(spec, parent, index, self._window, local_limits=local)
        self._branches.setdefault(index, Branch(index))
        self.nodes[spec.name] = node
        guards = []
        above: Node | None = node
        while above is not None and above.shared == index:
            guards.append(above)
            above = above.parent
        node.guards = tuple(guards)
        return node

    def _nearest(self, name: str | None) -> Node:
        """The node of that name, or of its nearest ancestor that has one."""
        while name is not None and name not in self.nodes:
            name = parent_name(name)
        return self.nodes[name or ROOT]

    def _by_default(self, name: str) -> ChannelSpec:
        """What a channel that nobody configured is, by the defaults of its nearest configured ancestor."""
        above = parent_name(name)
        while above not in self._configured:
            above = parent_name(above or ROOT) or ROOT
        defaults = self.nodes[above].spec
        capacity = 1 if defaults.sequential_default else defaults.capacity_default or None
        return ChannelSpec(name=name, capacity=capacity, sequential=defaults.sequential_default)

    def node_for(self, channel: str | None) -> Node:
        """The node of a job's channel.

        A channel that nobody configured and that no default limits is not told apart from its ancestor.
        """
        node = self.names.get(channel)
        if node is None:
            name = complete_name(channel)
            node = self.nodes.get(name) or self._unknown(name)
            if len(self.names) < KNOWN_NAMES:
                self.names[channel] = node
        return node

    def _unknown(self, name: str) -> Node:
        spec = self._by_default(name)
        if spec.capacity is None:
            return self._nearest(name)
        index = self._share(spec)
        if index is not None:
            self._shared[name] = index
        return self._make(spec)

    def set_paused(self, names: Iterable[str]) -> bool:
        """Pause exactly these channels, by order of an operator. True: jobs have to be read again to be in force."""
        wanted = set(names)
        unknown = wanted - self.nodes.keys()
        for name in unknown:
            self._make(self._by_default(name))
        for name, node in self.nodes.items():
            if node.paused_by_order != (name in wanted):
                node.paused_by_order = name in wanted
                self._give_room(node)
        return bool(unknown)

    # -- jobs --------------------------------------------------------------------------------------------

    def put(self, job: Pending) -> None:
        """A job is pending."""
        known = self._pending.get(job.job_id)
        if (known is not None and known[1] == job) or job.job_id in self.aside:
            return
        self._leave(job.job_id)
        self._hear(job.job_id, job)
        self._place(self.node_for(job.channel), job)

    def hold(self, job_id: int, channel: str | None) -> None:
        """A job is enqueued or started: it holds a permit, whatever the capacity."""
        if job_id not in self._holding:
            self._leave(job_id)
            self._hear(job_id, None)
            self._count_held(job_id, self.node_for(channel), 1)

    def fail(self, job_id: int, channel: str | None) -> None:
        """A job is failed."""
        self._leave(job_id)
        self._hear(job_id, None)
        node = self.node_for(channel)
        if len(self._failed_in) < KNOWN_FAILED:
            self._failed_in[job_id] = node
        self.count_failed(node, node.failed + 1)

    def forget(self, job_id: int) -> None:
        """A job is over, or waits for another one, or is gone."""
        self._leave(job_id)
        self._hear(job_id, None)

    def is_held(self, job_id: int) -> bool:
        """Whether a job holds a permit."""
        return job_id in self._holding

    def holding(self) -> set[int]:
        """Ids of the jobs that hold a permit."""
        return set(self._holding)

    def _hear(self, job_id: int, job: Pending | None) -> None:
        if self._heard is not None:
            self._heard[job_id] = job

    def _place(self, node: Node, job: Pending) -> None:
        if job.eta_us is not None and job.eta_us > self.now_us:
            dropped_eta = node.etas.put((job.eta_us, job.key))
            dropped = dropped_eta[1] if dropped_eta else None
            self._next_eta_us = job.eta_us if self._next_eta_us is None else min(self._next_eta_us, job.eta_us)
        else:
            dropped = node.ready.put(job.key)
        if dropped != job.key:
            self._pending[job.job_id] = (node, job)
        if dropped is not None:
            node.beyond += 1
            if dropped != job.key:
                del self._pending[dropped[2]]
        self._renew(node)

    def _leave(self, job_id: int) -> None:
        """Take a job out of wherever it is."""
        known = self._pending.pop(job_id, None)
        if known is not None:
            node, job = known
            if not node.ready.remove(job.key) and job.eta_us is not None:
                node.etas.remove((job.eta_us, job.key))
            self._renew(node)
            return
        held_in = self._holding.get(job_id)
        if held_in is not None:
            self._count_held(job_id, held_in, -1)
            return
        failed_in = self._failed_in.pop(job_id, None)
        if failed_in is not None:
            self.count_failed(failed_in, failed_in.failed - 1)

    def _count_held(self, job_id: int, node: Node, change: int) -> None:
        if change > 0:
            self._holding[job_id] = node
        else:
            del self._holding[job_id]
        self.held[node.shared] = self.held.get(node.shared, 0) + change
        self.changed.add(node.shared)
        for guard in node.guards:
            guard.running += change
        if change < 0:
            self._give_room(node)

    def count_failed(self, node: Node, failed: int) -> None:
        """So many jobs are failed directly in a node."""
        node.failed = max(0, failed)
        if self._shared.get(node.name) == node.shared:
            self.failed[node.shared] = node.failed
            self.changed.add(node.shared)
        self._give_room(node)

    # -- who is next (seat.Source) -------------------------------------------------------------------------

    def _renew(self, node: Node) -> None:
        branch = self._branches[node.shared]
        if node.wants_reading:
            self._thirsty.add(node)
        if branch.enter(node, self.now_us):
            self._dirty.add(node.shared)

    def _give_room(self, node: Node) -> None:
        """Something that held up jobs in a node may be over."""
        self._branches[node.shared].unpark(node, self.now_us)
        self._dirty.add(node.shared)

    def prepare(self, now_us: int, budget: int) -> None:
        """Before an exchange: move on to `now_us` (UTC), let up to `budget` jobs be taken."""
        self.now_us = now_us
        self.budget = budget
        if self._next_eta_us is not None and self._next_eta_us <= now_us:
            self._fall_due()
        for guard in [g for g in self._throttled if g.not_before_us <= now_us]:
            self._throttled.discard(guard)
            self._give_room(guard)
        self._settle()

    def _fall_due(self) -> None:
        etas = []
        for node in self.nodes.values():
            waiting = node.etas
            due = bisect_left(waiting.items, (self.now_us + 1,))
            arrived, waiting.items[:due] = waiting.items[:due], []
            for _eta_us, key in arrived:
                job = self._pending.pop(key[2])[1]
                self._place(node, job)
            if waiting.horizon is not None and waiting.horizon[0] <= self.now_us:
                node.stale = True  # jobs that nobody holds here are due, and may be better than those that are
                self._renew(node)
            if waiting.items:
                etas.append(waiting.items[0][0])
        self._next_eta_us = min(etas, default=None)

    def _settle(self) -> None:
        for shared in self._dirty:
            best = self._branches[shared].best(self.now_us)
            old = self._heads.get(shared)
            if best == old:
                continue
            if old is not None:
                del self._line[bisect_left(self._line, (old[0], shared))]
                del self._heads[shared]
                self._wishes &= ~(1 << shared)
            if best is not None:
                self._heads[shared] = best
                insort(self._line, (best[0], shared))
                self._wishes |= 1 << shared
            self.new_heads.add(shared)
        self._dirty.clear()

    @property
    def mask(self) -> int:
        """Bitmap of the shared channels in which a job could start."""
        return self._wishes if self.budget > 0 else 0

    def best(self, candidates: int) -> int:
        """The channel of the best job among `candidates`."""
        return next(shared for _key, shared in self._line if candidates >> shared & 1)

    def key(self, channel: int) -> Key:
        """The order key of the best job in a channel."""
        return self._heads[channel][0]

    def order(self) -> Sequence[int]:
        """The channels with a wish, best job first."""
        return [shared for _key, shared in self._line] if self.budget > 0 else ()

    def take(self, channel: int) -> None:
        """A permit is there: the best job of a channel is to be claimed."""
        key, node = self._heads[channel]
        job_id = key[2]
        node.ready.remove(key)
        del self._pending[job_id]
        self._hear(job_id, None)
        self.budget -= 1
        self.taken.append(job_id)
        counted = channel in self.changed
        self._count_held(job_id, node, 1)
        if not counted:
            self.changed.discard(channel)  # the permit is in the table already
        for guard in node.guards:
            if guard.local_limits and guard.spec.throttle_s:
                guard.not_before_us = self.now_us + guard.spec.throttle_s * 1_000_000
                self._throttled.add(guard)
        self._renew(node)
        self._settle()

    def next_deadline_us(self) -> int | None:
        """When, if nothing happens before, something may be able to start: an eta, the end of a throttle."""
        moments = [guard.not_before_us for guard in self._throttled if guard.parked]
        if self._next_eta_us is not None:
            moments.append(self._next_eta_us)
        return min(moments, default=None)
