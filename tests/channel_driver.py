"""A worker, reduced to what its channel tree sees of it, and held against the plain model at each step.

Rows change, and are heard of at once, late, or never; reads begin, see the rows at some moment, and end at another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from qjsupervisor.backlog.backlog import Backlog, Found, Snapshot
from qjsupervisor.backlog.names import Shared, not_shared
from qjsupervisor.backlog.nodes import Node
from qjsupervisor.backlog.tree import WAITING
from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.table.words import bits

from .channel_model import HOLDS, Row, TableStandIn, World

#: What a sequential channel waits for while it does not know what is due next.
_FIRST = (-(1 << 62), 0, 0)


class Driver:
    """A worker, reduced to what its channel tree sees of it."""

    def __init__(self, specs: Sequence[ChannelSpec], *, keep_limits: bool, window: int) -> None:
        self.world = World({spec.name: spec for spec in specs})
        self.window = window
        self.keep_limits = keep_limits
        self.specs = list(specs)
        self.table = TableStandIn(specs, keep_limits=keep_limits)
        self.tree = self._new_tree()
        #: Rows that changed and were not heard of yet, and those that never will be.
        self.late: list[int] = []
        self.missed: dict[int, int] = {}
        #: What is being read: nodes, or None for everything; what the read saw, once it did.
        self.reading: list[str] | bool | None = False
        self.seen: Snapshot | dict[str, Found] | None = None
        self._missed_at_snapshot: dict[int, int] = {}
        self.successions = 0
        self.heads = 0

    def _new_tree(self) -> Backlog:
        add = not_shared if self.keep_limits else self.table.add
        return Backlog(self.specs, Shared(dict(self.table.index), self.keep_limits, add), self.window)

    # -- the database --------------------------------------------------------------------------------------

    def change(self, row: Row, heard: str = "now") -> None:
        """A row is there, or changed. `heard`: 'now', 'late' or 'never'."""
        self.world.rows[row.job_id] = row
        self._tell(row.job_id, heard)

    def delete(self, job_id: int, heard: str = "now") -> None:
        self.world.rows.pop(job_id, None)
        self._tell(job_id, heard)

    def _tell(self, job_id: int, heard: str) -> None:
        if heard == "now" or job_id in self.world.deferred:  # (how long that lasts is not the tree's business)
            self.hear(job_id)
        elif heard == "late":
            self.late.append(job_id)
        else:
            self.missed[job_id] = self.missed.get(job_id, 0) + 1

    def hear(self, job_id: int) -> None:
        """As Serving.apply."""
        if job_id in self.tree.taken:
            self.claim()
        row = self.world.rows.get(job_id)
        self.missed.pop(job_id, None)
        if row is not None and row.state == "pending":
            if job_id in self.tree.deferred:
                self.tree.defer(row.pending)
            self.tree.put(row.pending)
            return
        self.tree.release(job_id)
        self.world.deferred.discard(job_id)
        if row is None:
            self.tree.forget(job_id)
        elif row.state in HOLDS:
            self.tree.hold(job_id, row.channel)
        elif row.state == "failed":
            self.tree.fail(job_id, row.channel)
        else:
            self.tree.forget(job_id)

    def hear_late(self, number: int) -> None:
        for _ in range(min(number, len(self.late))):
            self.hear(self.late.pop(0))

    def set_aside(self, job_id: int) -> None:
        """A job that nobody would run: given back, and left alone for a while."""
        self.world.deferred.add(job_id)
        self.tree.defer(self.world.rows[job_id].pending)

    def release(self, job_id: int) -> None:
        self.world.deferred.discard(job_id)
        self.tree.release(job_id)
        self.hear(job_id)

    def pause(self, names: Iterable[str]) -> None:
        self.world.paused = frozenset(names)
        if self.tree.set_paused(self.world.paused):
            self.rebuild()

    def rebuild(self, *, with_head: bool = False) -> None:
        """As Worker._begin_reading: another tree, read at once; `with_head`: only the best jobs, if that can be."""
        old, self.tree = self.tree, self._new_tree()
        self.tree.set_paused(self.world.paused)
        self.tree.inherit(old)
        self._untake(old)
        self.table.begin_again()
        self.reading = False
        if not (with_head and self.read_head()):
            self.read_everything()

    def _untake(self, tree: Backlog) -> None:
        for job_id in tree.taken:
            tree.forget(job_id)
        tree.taken = []

    # -- reads ---------------------------------------------------------------------------------------------

    def begin(self, names: list[str] | None) -> None:
        self.reading, self.seen = names, None
        self.tree.begin_read()

    def look(self) -> None:
        """The moment at which the read sees the rows."""
        if self.reading is False or self.seen is not None:
            return
        if self.reading is None:
            self.seen = self.world.snapshot(self.window)
            self._missed_at_snapshot = dict(self.missed)
            return
        assert isinstance(self.reading, list)
        found = {}
        for name in self.reading:
            names, and_null = self.tree.raw_names(self.tree.nodes[name])
            accept = lambda row, n=frozenset(names), null=and_null: row.channel in n or (null and row.channel is None)  # noqa: E731
            found[name] = self.world.found(self.window, accept)
        self.seen = found

    def end(self) -> None:
        """The read is over."""
        if self.reading is False:
            return
        self.look()
        seen, everything = self.seen, self.reading is None
        self.reading, self.seen = False, None
        if everything:
            assert isinstance(seen, Snapshot)
            heard = set(self.tree._changes_during_read or ())
            self.tree.accept_database(self.tree.load(seen))
            # What was heard during the read stands against it, until the next one.
            for job_id, times in self._missed_at_snapshot.items():
                if self.missed.get(job_id) == times and job_id not in heard:
                    del self.missed[job_id]
        else:
            assert isinstance(seen, dict)
            self.tree.merge(seen)

    def abandon(self) -> None:
        if self.reading is not False:
            self.tree.abandon_read()
            self.reading, self.seen = False, None

    def read_everything(self) -> None:
        self.begin(None)
        self.end()

    def read_head(self) -> bool:
        """As Reading.read_first; False: it takes more."""
        limit = max(1, self.window // 2)
        found = self.world.found(limit)
        if not self.tree.can_begin_with_head or not found.due_more:
            return False
        self.tree.load_head([(row.job_id, row.channel) for row in self.world.of(*HOLDS)], found.due)
        self.heads += 1
        return True

    def read_all_there_is(self) -> None:
        """Until no window wants reading."""
        self.end()
        if self.tree.partial:
            self.read_everything()
        for _ in range(1000):
            names = [node.name for node in self.tree.unread()]
            if not names:
                return
            self.begin(names)
            self.end()
        raise AssertionError(f"reading goes on for ever: {names}")

    # -- starts ----------------------------------------------------------------------------------------------

    def exchange(self, budget: int) -> list[int]:
        """Take what the tree would start; the database may know better. The jobs taken, in order."""
        tree, before = self.tree, len(self.tree.taken)
        tree.prepare(self.world.now_us, budget)
        self.table.exchange(tree)
        for job_id in tree.taken[before:]:
            self.world.start_throttles(tree._places[job_id][0].name)
        return tree.taken[before:]

    def claim(self) -> None:
        """As Serving._read_and_claim."""
        taken, self.tree.taken = self.tree.taken, []
        for job_id in taken:
            row = self.world.rows.get(job_id)
            if row is not None and row.state == "pending":
                self.world.rows[job_id] = replace(row, state="enqueued")
            else:
                self.tree.forget(job_id)
                self.hear(job_id)

    def start(self, budget: int) -> list[int]:
        """Take and claim, and see that each was the best one that is visible from here."""
        self.claim()
        informed = not self.late and not self.missed
        tree = self.tree
        started = []
        for _ in range(budget):
            tree.prepare(self.world.now_us, 1)
            expected = self.world.best(but=self._is_hidden) if informed else None
            taken = self.exchange(1)
            if informed:
                assert taken == ([expected.job_id] if expected else []), self.explain(taken, expected)
                for job_id in taken:
                    self._is_best_of_its_node(job_id)
            started += taken
            self.claim()
            if not taken:
                break
        return started

    def _is_hidden(self, row: Row) -> bool:
        """Whether a job lies beyond the windows, or its order is not known before a read."""
        known = self.tree._places.get(row.job_id)
        if known is None or known[1] is not WAITING:
            return True
        node = known[0]
        return node.head_unknown or any(above.order_barrier() == _FIRST for above in node.in_order)

    def _is_best_of_its_node(self, job_id: int) -> None:
        node = self.tree._places[job_id][0]
        row = self.world.rows[job_id]
        for other in self.world.of("pending"):
            if other.key < row.key and self.world.is_due(other) and other.job_id not in self.world.deferred:
                assert self.tree.node_for(other.channel) is not node, f"{row} overtakes {other}"

    def hand_over(self, job_id: int) -> None:
        """As Serving._successors: a job is over, which is not heard of yet, and the next one takes over its permit."""
        self.claim()
        informed = not self.late and not self.missed
        self.world.rows[job_id] = replace(self.world.rows[job_id], state="done")
        self.exchange(100)  # what has room anyway has started
        self.claim()
        self.tree.prepare(self.world.now_us, 1)
        channel = self.tree.line_is_for(job_id)
        if channel is not None and self.table.may_reuse_permit(channel):
            expected = self.world.best(but=self._is_hidden)
            changed = set(self.tree.changed)
            successor = self.tree.hand_over(job_id)
            if informed:
                assert expected is not None
                assert successor == expected.job_id, self.explain([successor], expected)
            assert self.tree.changed == changed
            self.world.start_throttles(self.tree._places[successor][0].name)
            self.tree.taken.append(successor)
            self.successions += 1
        self.hear(job_id)

    def start_settled(self, number: int) -> list[int]:
        """Hear and read all there is, then start: exactly what the rows say, one after the other."""
        self.claim()
        self.hear_late(len(self.late))
        self.end()
        if self.missed:
            self.read_everything()
        assert not self.missed
        started = []
        for _ in range(number):
            self.tree.prepare(self.world.now_us, 0)
            self.read_all_there_is()
            expected = self.world.best()
            taken = self.exchange(1)
            assert taken == ([expected.job_id] if expected else []), self.explain(taken, expected)
            self.check_published()
            started += taken
            self.claim()
            if not taken:
                break
        self.check_counters()
        return started

    # -- what must be true -------------------------------------------------------------------------------------

    def check_published(self) -> None:
        """What a slot makes of `changed` and `new_heads` is what the tree says."""
        tree, table = self.tree, self.table
        assert {c: n for c, n in table.held.items() if n} == {c: n for c, n in tree.held.items() if n}
        assert {c: n for c, n in table.failed.items() if n} == {c: n for c, n in tree.failed.items() if n}
        assert table.keys == {channel: tree.key(channel) for channel in bits(tree.wanted_channels)}
        order = tree.order()
        assert sorted(order) == list(bits(tree.wanted_channels))
        assert [tree.key(channel) for channel in order] == sorted(tree.key(channel) for channel in order)

    def check_counters(self) -> None:
        """Counts are those of the rows, when all was heard of."""
        if self.late or self.missed:
            return
        world, tree = self.world, self.tree
        held_now = {row.job_id for row in world.of(*HOLDS)}
        assert tree.holding() == held_now, (tree.holding(), held_now)
        holders = [tree._places[job_id][0] for job_id in held_now]
        for name, node in list(tree.nodes.items()):
            held = [held_in for held_in in holders if node in held_in.guards]
            assert node.running == len(held), (name, node.running, held)
            mine = [row for row in world.of("failed") if tree.node_for(row.channel) is node]
            assert node.failed == len(mine), (name, node.failed, mine)
            self._check_pending(node)
        for channel, number in tree.held.items():
            assert number == sum(node.shared == channel for node in holders)

    def _check_pending(self, node: Node) -> None:
        world, tree = self.world, self.tree
        mine = [row for row in world.of("pending") if tree.node_for(row.channel) is node]
        number, mine = len(mine), [row for row in mine if row.job_id not in world.deferred]
        held = {key[2] for key in node.ready.items} | {key[2] for _eta, key in node.etas.items}
        assert held <= {row.job_id for row in mine}, node.name
        if node.ready.horizon is None and node.etas.horizon is None and not node.head_unknown:
            assert node.pending == number, (node.name, node.pending, number, node.deferred)
        for row in mine:
            if row.job_id not in held and not node.head_unknown:
                due = row.eta_us is None or row.eta_us <= tree.now_us
                horizon = node.ready.horizon if due else node.etas.horizon
                assert horizon is not None, f"{row} was lost from {node.name}"
                assert horizon < (row.key if due else (row.eta_us, row.key)), f"{row} should be in the window"

    def explain(self, taken: list[int], expected: Row | None) -> str:
        """For a failed assertion."""
        rows = [self.world.rows.get(job_id) for job_id in taken]
        why = [f"{row}: {self.world.why_not(row) or 'may start'}" for row in self.world.of("pending")]
        specs = "\n  ".join(map(str, self.specs))
        return (
            f"started {rows}, expected {expected}\n" + "\n".join(why) + f"\n  {specs}\npaused {self.world.paused},"
            f" deferred {self.world.deferred}, now {self.world.now_us}, held {self.world.of(*HOLDS)}"
        )
