"""The line of a database's own channel tree if its channels have minimums or weights.  Pure.

The rules of the shared table (table/guarantees.py, table/branches.py) within one database: reserved permits are kept
free, branches below their minimum come first, then weights decide, then the order of jobs. Each start looks at every
channel with a waiting job, since such trees are small.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ..job import Key
from .nodes import Branch, Node

#: How far a start moves the pass of a branch of weight 1.
UNIT = 1 << 24


class RuledBranch(Branch):
    """As Branch, for a tree whose limits are enforced here."""

    def __init__(self, shared: int) -> None:
        super().__init__(shared)
        self._children: dict[Node, list[Node]] = {}
        self._waiting: dict[Node, Key] = {}
        #: Nodes with minimums below them, deepest first.
        self._guarantors: list[Node] = []
        self._weighted: set[Node] = set()
        #: Weighted starts of each branch, of a node's own jobs, and the clock of the branches below it.
        self._passes: dict[Node, int] = {}
        self._own_passes: dict[Node, int] = {}
        self._clocks: dict[Node, int] = {}
        #: The nodes that could start a job at the last `best`.
        self._offered: list[Node] = []

    def add(self, node: Node) -> None:
        """Add a node of this branch, after its parent."""
        self._children[node] = []
        above = node.guards[1:]
        if above:
            self._children[above[0]].append(node)
            if node.spec.weight:
                self._weighted.add(above[0])
        if node.spec.minimum:
            self._guarantors = sorted({*self._guarantors, *above}, key=lambda each: -len(each.guards))

    def enter(self, node: Node, _now_us: int) -> bool:
        """As Branch.enter."""
        head = node.head()
        if (node.entry[0] if node.entry else None) == head:
            return False
        node.entry = None if head is None else (head, node)
        if head is None:
            del self._waiting[node]
        else:
            self._waiting[node] = head
        return True

    def unpark(self, node: Node, now_us: int) -> None:
        """Do nothing: nothing is parked, as `best` looks at all."""

    def best(self, now_us: int) -> tuple[Key, Node] | None:
        """The next job of those that no guard holds up."""
        held_up = {guard for node in self._waiting for guard in node.guards if guard.holds_up(now_us)}
        open_ = [node for node in self._waiting if held_up.isdisjoint(node.guards)]
        for node in self._guarantors:
            open_ = self._let_through(node, open_)
        self._offered = open_
        if not open_:
            return None
        chosen = self._descend(open_)
        return self._waiting[chosen], chosen

    def count(self, node: Node) -> None:
        """Count the start of a node's job that `best` returned."""
        for at, above in enumerate(node.guards):
            if above in self._weighted:
                branch = node.guards[at - 1] if at else above
                branches = list(self._split(above, self._offered))
                clock = self._clock(above, branches)
                self._put_pass(above, branch, self._pass(above, branch, clock)[1])
                self._clocks[above] = clock + UNIT // sum(self._weight(above, each) for each in branches or [branch])

    def _let_through(self, node: Node, open_: list[Node]) -> list[Node]:
        """The open nodes without those below `node` that must wait for others there."""
        within = [each for each in open_ if node in each.guards]
        if not within:
            return open_
        others = [each for each in open_ if node not in each.guards]
        capacity = node.spec.capacity
        if capacity is not None and capacity - node.running <= self._kept(node):
            keeping = set(self._keeping(node))
            within = [each for each in within if not keeping.isdisjoint(each.guards)]
        first = [each for each in within if self._short_on_way(node, each) is not None]
        return others + (first or within)

    def _lack(self, node: Node) -> int:
        own = max(0, node.spec.minimum - node.running) if node.spec.reserve else 0
        return max(own, self._kept(node))

    def _kept(self, node: Node) -> int:
        return sum(self._lack(child) for child in self._children[node])

    def _keeping(self, node: Node) -> Iterator[Node]:
        """The uppermost nodes below `node` in which a start uses permits kept for them."""
        for child in self._children[node]:
            lack = self._lack(child)
            if lack > self._kept(child):
                yield child
            elif lack:
                yield from self._keeping(child)

    def _short_on_way(self, node: Node, below: Node) -> Node | None:
        """The uppermost node below its minimum on the way from `node` down to `below`."""
        way = below.guards[: below.guards.index(node)]
        return next((each for each in reversed(way) if each.running < each.spec.minimum), None)

    def _descend(self, open_: list[Node]) -> Node:
        node = open_[0].guards[-1]
        while True:
            short = {each: self._short_on_way(node, each) for each in open_}
            below = [each for each in short.values() if each is not None]
            if below:
                least = min(below, key=lambda each: (each.running / each.spec.minimum, each.name))
                open_ = [each for each in open_ if short[each] is least]
            elif node in self._weighted:
                branches = self._split(node, open_)
                clock = self._clock(node, list(branches))
                begins = {each: self._pass(node, each, clock) for each in branches}
                first = min(branches, key=lambda each: (begins[each][0] > clock, begins[each][1], each.name))
                open_ = branches[first]
            found = min(open_, key=lambda each: self._waiting[each])
            if found is node:
                return node
            node = found.guards[found.guards.index(node) - 1]
            open_ = [each for each in open_ if node in each.guards]

    def _split(self, node: Node, open_: Collection[Node]) -> dict[Node, list[Node]]:
        """Branch of `node` -> open nodes in it; the node itself for its own jobs."""
        found: dict[Node, list[Node]] = {}
        for each in open_:
            if node in each.guards:
                at = each.guards.index(node)
                found.setdefault(each.guards[at - 1] if at else node, []).append(each)
        return found

    def _clock(self, node: Node, branches: Collection[Node]) -> int:
        clock = self._clocks.get(node, 0)
        return max(clock, min((self._pass(node, each, clock)[0] for each in branches), default=0))

    def _pass(self, node: Node, branch: Node, clock: int) -> tuple[int, int]:
        """A branch's pass, and the pass after its next start."""
        stride = UNIT // self._weight(node, branch)
        passes = self._own_passes if branch is node else self._passes
        begin = max(passes.get(branch, 0), clock - stride)
        return begin, begin + stride

    def _put_pass(self, node: Node, branch: Node, value: int) -> None:
        (self._own_passes if branch is node else self._passes)[branch] = value

    def _weight(self, node: Node, branch: Node) -> int:
        return 1 if branch is node else max(1, branch.spec.weight)
