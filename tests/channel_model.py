"""What a channel tree should do, said as plainly as possible, and drivers that hold the real one against it.

`World` is a database: rows, channels, a clock. It answers by going through all rows. `TableStandIn` is the shared table
with this one database in it. `Driver` lets both live: rows change, are heard of at once, late, or never; reads begin, see
the rows at some moment, and end at another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from qjsupervisor.backlog import Backlog, Found, Snapshot
from qjsupervisor.channelspec import ROOT, ChannelSpec, complete_name, parent_name
from qjsupervisor.grants import Key, bits
from qjsupervisor.nodes import Node, Pending

SECOND = 1_000_000
HOLDS = ("enqueued", "started")


@dataclass(frozen=True)
class Row:
    """A row of queue_job, as far as order and limits go."""

    job_id: int
    channel: str | None
    state: str = "pending"
    priority: int = 10
    created_us: int = 0
    eta_us: int | None = None

    @property
    def key(self) -> Key:
        return (self.priority, self.created_us, self.job_id)

    @property
    def pending(self) -> Pending:
        return Pending(self.key, self.channel, self.eta_us)

    @property
    def name(self) -> str:
        return complete_name(self.channel)


@dataclass
class World:
    """A database with its channels, and the truth about both."""

    specs: dict[str, ChannelSpec]
    now_us: int = 0
    rows: dict[int, Row] = field(default_factory=dict)
    paused: frozenset[str] = frozenset()
    aside: set[int] = field(default_factory=set)
    last_start_us: dict[str, int] = field(default_factory=dict)

    def spec(self, name: str) -> ChannelSpec:
        """A channel's settings; of one that nobody configured, by defaults."""
        if name in self.specs:
            return self.specs[name]
        defaults = self.specs[self._configured_above(name)]
        capacity = 1 if defaults.sequential_default else defaults.capacity_default
        return ChannelSpec(name=name, capacity=capacity or None, sequential=defaults.sequential_default)

    def _configured_above(self, name: str) -> str:
        above = parent_name(name)
        while above is not None and above not in self.specs:
            above = parent_name(above)
        return above or ROOT

    def path(self, name: str) -> Iterator[str]:
        """The channel, and the configured ones above it."""
        yield name
        while name != ROOT:
            name = self._configured_above(name)
            yield name

    def of(self, *states: str) -> list[Row]:
        return [row for row in self.rows.values() if row.state in states]

    def running(self, name: str) -> int:
        """Jobs that hold a permit in a channel or below it."""
        return sum(name in self.path(row.name) for row in self.of(*HOLDS))

    def is_due(self, row: Row) -> bool:
        return row.eta_us is None or row.eta_us <= self.now_us

    def bar(self, name: str) -> Key | None:
        """The job directly in a channel that what comes after it waits for: that is due next, or that was set aside."""
        mine = [row for row in self.of("pending") if row.name == name]
        waiting = [(row.eta_us, row.key) for row in mine if not self.is_due(row) and row.job_id not in self.aside]
        bars = [row.key for row in mine if row.job_id in self.aside] + ([min(waiting)[1]] if waiting else [])
        return min(bars, default=None)

    def holds_up(self, name: str, key: Key) -> str:
        """Why a channel lets a job of that key not pass; '' if it does."""
        spec = self.spec(name)
        if any(name == paused or name.startswith(paused + ".") for paused in self.paused):
            return "paused by order"
        if spec.paused:
            return "paused"
        if spec.capacity is not None and self.running(name) >= spec.capacity:
            return "full"
        if spec.sequential:
            if any(row.name == name for row in self.of("failed")):
                return "a failed job"
            bar = self.bar(name)
            if bar is not None and bar < key:
                return "an earlier job that is not due"
        if spec.throttle_s and self.now_us < self.last_start_us.get(name, -(1 << 60)) + spec.throttle_s * SECOND:
            return "throttled"
        return ""

    def why_not(self, row: Row) -> str:
        """Why a pending job may not start; '' if it may."""
        if row.job_id in self.aside:
            return "aside"
        if not self.is_due(row):
            return "not due"
        # Of jobs in one channel the better one is always first, so it is enough that nothing on its own path holds it up.
        return next(filter(None, (self.holds_up(name, row.key) for name in self.path(row.name))), "")

    def best(self, but: Callable[[Row], bool] = lambda row: False) -> Row | None:
        """The best job that may start (`but`: apart from these)."""
        rows = sorted(self.of("pending"), key=lambda row: row.key)
        return next((row for row in rows if not but(row) and not self.why_not(row)), None)

    def start_throttles(self, name: str) -> None:
        for above in self.path(name):
            self.last_start_us[above] = self.now_us

    # -- what a worker reads -------------------------------------------------------------------------------

    def found(self, limit: int, accept: Callable[[Row], bool] = lambda row: True) -> Found:
        """As queries.LOAD and READ_CHANNELS."""
        rows = [row for row in self.of("pending") if accept(row) and row.job_id not in self.aside]
        due = sorted((row for row in rows if self.is_due(row)), key=lambda row: row.key)[:limit]
        later = sorted((row for row in rows if not self.is_due(row)), key=lambda row: (row.eta_us, row.key))[:limit]
        return Found(
            [row.pending for row in due],
            len(due) >= limit,
            [row.pending for row in later],
            len(later) >= limit,
        )

    def snapshot(self, limit: int) -> Snapshot:
        counts: dict[tuple[str | None, str], int] = {}
        for row in self.of("pending", "failed", "wait_dependencies"):
            counts[row.channel, row.state] = counts.get((row.channel, row.state), 0) + 1
        return Snapshot(
            held=[(row.job_id, row.channel) for row in self.of(*HOLDS)],
            found=self.found(limit),
            counts=counts,
            failed=[(row.job_id, row.channel) for row in self.of("failed")],
        )


class TableStandIn:
    """The shared table for one database: keeps the limits of the shared channels, knows only what it was told."""

    def __init__(self, specs: Sequence[ChannelSpec], *, keep_limits: bool) -> None:
        self.keep_limits = keep_limits
        self.specs: list[ChannelSpec] = []
        self.parents: list[int] = []
        self.index: dict[str, int] = {}
        for spec in specs[: 1 if keep_limits else None]:
            self.add(spec, self.index.get(parent_name(spec.name) or "", -1))
        self.held: dict[int, int] = {}
        self.failed: dict[int, int] = {}
        self.keys: dict[int, Key] = {}
        self.not_before_us: dict[int, int] = {}

    def add(self, spec: ChannelSpec, parent: int) -> int:
        if spec.name not in self.index:
            self.index[spec.name] = len(self.specs)
            self.specs.append(spec)
            self.parents.append(parent)
        return self.index[spec.name]

    def begin_again(self) -> None:
        """The tree is another one: all that it holds is written afresh."""
        self.held.clear()
        self.failed.clear()
        self.keys.clear()

    def _path(self, channel: int) -> Iterator[int]:
        while channel >= 0:
            yield channel
            channel = self.parents[channel]

    def _is_open(self, channel: int, now_us: int) -> bool:
        if self.keep_limits:
            return True
        spec = self.specs[channel]
        total = sum(n for cell, n in self.held.items() if channel in self._path(cell))
        return not (
            (spec.capacity is not None and total >= spec.capacity)
            or spec.paused
            or (spec.sequential and self.failed.get(channel))
            or self.not_before_us.get(channel, now_us) > now_us
        )

    def exchange(self, tree: Backlog) -> None:
        """As Seat.exchange, where nobody else wants anything."""
        for channel in tree.changed:
            self.held[channel] = tree.held.get(channel, 0)
            self.failed[channel] = tree.failed.get(channel, 0)
        tree.changed.clear()
        while candidates := self._candidates(tree):
            channel = tree.best(candidates)
            self.held[channel] = self.held.get(channel, 0) + 1
            for node in self._path(channel):
                if self.specs[node].throttle_s:
                    self.not_before_us[node] = tree.now_us + self.specs[node].throttle_s * SECOND
            tree.take(channel)
        self._publish(tree)

    def _candidates(self, tree: Backlog) -> int:
        open_ones = [c for c in bits(tree.mask) if all(self._is_open(node, tree.now_us) for node in self._path(c))]
        return sum(1 << channel for channel in open_ones)

    def _publish(self, tree: Backlog) -> None:
        wanted = tree.mask
        before = set(self.keys)
        for channel in before - set(bits(wanted)):
            del self.keys[channel]
        for channel in bits(wanted):
            if channel in tree.new_heads or channel not in before:
                self.keys[channel] = tree.key(channel)
        tree.new_heads.clear()


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
        self.reading: list[str] | None | bool = False
        self.seen: Snapshot | dict[str, Found] | None = None
        self._missed_at_snapshot: dict[int, int] = {}

    def _new_tree(self) -> Backlog:
        return Backlog(
            self.specs,
            shared=dict(self.table.index),
            keep_limits=self.keep_limits,
            window=self.window,
            share=self.table.add if not self.keep_limits else lambda spec, parent: None,
        )

    # -- the database --------------------------------------------------------------------------------------

    def change(self, row: Row, heard: str = "now") -> None:
        """A row is there, or changed. `heard`: 'now', 'late' or 'never'."""
        self.world.rows[row.job_id] = row
        self._tell(row.job_id, heard)

    def delete(self, job_id: int, heard: str = "now") -> None:
        self.world.rows.pop(job_id, None)
        self._tell(job_id, heard)

    def _tell(self, job_id: int, heard: str) -> None:
        if heard == "now" or job_id in self.world.aside:  # (how long that lasts is not the tree's business)
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
            if job_id in self.tree.aside:
                self.tree.set_aside(row.pending)
            self.tree.put(row.pending)
            return
        self.tree.readmit(job_id)
        self.world.aside.discard(job_id)
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
        self.world.aside.add(job_id)
        self.tree.set_aside(self.world.rows[job_id].pending)

    def warm_up(self, job_id: int) -> None:
        self.world.aside.discard(job_id)
        self.tree.readmit(job_id)
        self.hear(job_id)

    def pause(self, names: Iterable[str]) -> None:
        self.world.paused = frozenset(names)
        if self.tree.set_paused(self.world.paused):
            self.rebuild()

    def rebuild(self) -> None:
        """As Worker._read_all: another tree, read at once."""
        old, self.tree = self.tree, self._new_tree()
        self.tree.set_paused(self.world.paused)
        self.tree.inherit(old)
        self._untake(old)
        self.table.begin_again()
        self.reading = False
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
            heard = set(self.tree._heard or ())
            self.tree.believe(self.tree.load(seen))
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

    def read_all_there_is(self) -> None:
        """Until no window wants reading."""
        self.end()
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
            self.world.start_throttles(tree._holding[job_id].name)
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
        known = self.tree._pending.get(row.job_id)
        if known is None:
            return True
        node = known[0]
        return node.stale or any(above.bar() == (-(1 << 62), 0, 0) for above in node.in_order)

    def _is_best_of_its_node(self, job_id: int) -> None:
        node = self.tree._holding[job_id]
        row = self.world.rows[job_id]
        for other in self.world.of("pending"):
            if other.key < row.key and self.world.is_due(other) and other.job_id not in self.world.aside:
                assert self.tree.node_for(other.channel) is not node, f"{row} overtakes {other}"

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
        """What a seat makes of `changed` and `new_heads` is what the tree says."""
        tree, table = self.tree, self.table
        assert {c: n for c, n in table.held.items() if n} == {c: n for c, n in tree.held.items() if n}
        assert {c: n for c, n in table.failed.items() if n} == {c: n for c, n in tree.failed.items() if n}
        assert table.keys == {channel: tree.key(channel) for channel in bits(tree.mask)}
        order = tree.order()
        assert sorted(order) == list(bits(tree.mask))
        assert [tree.key(channel) for channel in order] == sorted(tree.key(channel) for channel in order)

    def check_counters(self) -> None:
        """Counts are those of the rows, when all was heard of."""
        if self.late or self.missed:
            return
        world, tree = self.world, self.tree
        held_now = {row.job_id for row in world.of(*HOLDS)}
        assert tree.holding() == held_now, (tree.holding(), held_now)
        for name, node in list(tree.nodes.items()):
            held = [held_in for held_in in tree._holding.values() if node in held_in.guards]
            assert node.running == len(held), (name, node.running, held)
            mine = [row for row in world.of("failed") if tree.node_for(row.channel) is node]
            assert node.failed == len(mine), (name, node.failed, mine)
            self._check_pending(node)
        for channel, number in tree.held.items():
            assert number == sum(node.shared == channel for node in tree._holding.values())

    def _check_pending(self, node: Node) -> None:
        world, tree = self.world, self.tree
        mine = [row for row in world.of("pending") if tree.node_for(row.channel) is node]
        mine = [row for row in mine if row.job_id not in world.aside]
        held = {key[2] for key in node.ready.items} | {key[2] for _eta, key in node.etas.items}
        assert held <= {row.job_id for row in mine}, node.name
        if node.ready.horizon is None and node.etas.horizon is None and not node.stale:
            assert node.pending == len(mine), node.name
        for row in mine:
            if row.job_id not in held and not node.stale:
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
            f" aside {self.world.aside}, now {self.world.now_us}, held {self.world.of(*HOLDS)}"
        )


# -- random trees and histories ------------------------------------------------------------------------------------

CHANNELS = ("a", "a.b", "a.b.c", "d", "d.e", "f")
#: As jobs name them: short and complete, NULL and empty, unknown at several depths.
JOB_CHANNELS: tuple[str | None, ...] = (
    *(None, "", "root", "a", "root.a", "a.b", "root.a.b", "a.b.c", "d", "d.e", "root.d.e", "f"),
    *("a.x", "a.x.y", "a.b.z", "d.q", "d.e.w", "z", "root.z.z", "f.g", "f.g.h"),
)


def random_specs(rng: random.Random) -> list[ChannelSpec]:
    """A tree: the root, and some of CHANNELS, parents first."""
    specs = [random_spec(rng, ROOT)]
    names = {ROOT}
    for name in CHANNELS:
        full = f"{ROOT}.{name}"
        if parent_name(full) in names and rng.random() < 0.75:
            names.add(full)
            specs.append(random_spec(rng, full))
    return specs


def random_spec(rng: random.Random, name: str) -> ChannelSpec:
    sequential = rng.random() < (0.1 if name == ROOT else 0.3)
    sequential_default = rng.random() < 0.15
    return ChannelSpec(
        name=name,
        capacity=1 if sequential else rng.choice([None, 1, 2, 3, 5]),
        sequential=sequential,
        throttle_s=rng.choice([0, 0, 0, 0, 1, 3]),
        paused=rng.random() < 0.05,
        capacity_default=1 if sequential_default else rng.choice([None, None, 1, 2]),
        sequential_default=sequential_default,
    )


def random_row(rng: random.Random, job_id: int, now_us: int, state: str = "pending") -> Row:
    eta = now_us + rng.randint(-2, 8) * SECOND if rng.random() < 0.4 else None
    return Row(job_id, rng.choice(JOB_CHANNELS), state, rng.randint(0, 2), rng.randint(0, 3), eta)


STATES = ("pending", "enqueued", "started", "done", "failed", "failed", "cancelled", "wait_dependencies", "pending")


def random_step(driver: Driver, rng: random.Random, counts: dict[str, int]) -> None:
    """One thing that happens."""
    world = driver.world
    heard = rng.choices(["now", "late", "never"], [8, 3, 0.2])[0]
    action = rng.choices(list(_ACTIONS), [weight for _action, weight in _ACTIONS.values()])[0]
    counts[action] = counts.get(action, 0) + 1
    _ACTIONS[action][0](driver, rng, heard)
    if len(world.rows) > 40:
        for job_id in list(world.rows)[:20]:
            driver.delete(job_id, "now")


def _new(driver: Driver, rng: random.Random, heard: str) -> None:
    job_id = max(driver.world.rows, default=0) + rng.randint(1, 3)
    driver.change(random_row(rng, job_id, driver.world.now_us), heard)


def _alter(driver: Driver, rng: random.Random, heard: str) -> None:
    if driver.world.rows:
        row = rng.choice(list(driver.world.rows.values()))
        fresh = random_row(rng, row.job_id, driver.world.now_us, row.state)
        driver.change(replace(fresh, created_us=row.created_us), heard)


def _touch(driver: Driver, rng: random.Random, _heard: str) -> None:
    if driver.world.rows:
        driver.hear(rng.choice(list(driver.world.rows)))


def _transit(driver: Driver, rng: random.Random, heard: str) -> None:
    if driver.world.rows:
        row = rng.choice(list(driver.world.rows.values()))
        driver.change(replace(row, state=rng.choice(STATES)), heard)


def _finish(driver: Driver, rng: random.Random, heard: str) -> None:
    holding = driver.world.of(*HOLDS)
    if holding:
        row = rng.choice(holding)
        driver.change(replace(row, state=rng.choice(["done", "done", "done", "failed"])), heard)


def _delete(driver: Driver, rng: random.Random, heard: str) -> None:
    if driver.world.rows:
        driver.delete(rng.choice(list(driver.world.rows)), heard)


def _pass_time(driver: Driver, rng: random.Random, _heard: str) -> None:
    driver.world.now_us += rng.choice([1, SECOND // 2, SECOND, 2 * SECOND, 5 * SECOND])


def _hear(driver: Driver, rng: random.Random, _heard: str) -> None:
    driver.hear_late(rng.randint(1, 5))


def _begin(driver: Driver, rng: random.Random, _heard: str) -> None:
    if driver.reading is False:
        unread = [node.name for node in driver.tree.unread()]
        driver.begin(None if not unread or rng.random() < 0.4 else unread)


def _start(driver: Driver, rng: random.Random, _heard: str) -> None:
    driver.start(rng.randint(1, 4))


def _take(driver: Driver, rng: random.Random, _heard: str) -> None:
    driver.exchange(rng.randint(0, 3))
    driver.check_published()


def _pause(driver: Driver, rng: random.Random, _heard: str) -> None:
    names = [name for name in (ROOT, "root.a", "root.a.b", "root.a.x", "root.z", "root.d") if rng.random() < 0.15]
    driver.claim()
    driver.pause(names)


def _aside(driver: Driver, rng: random.Random, _heard: str) -> None:
    if driver.world.aside and rng.random() < 0.5:
        driver.warm_up(rng.choice(sorted(driver.world.aside)))
    elif pending := [r for r in driver.world.of("pending") if r.job_id not in driver.tree.taken]:
        driver.set_aside(rng.choice(pending).job_id)


_Action = Callable[[Driver, random.Random, str], None]
_ACTIONS: Mapping[str, tuple[_Action, float]] = {
    "new": (_new, 10),
    "alter": (_alter, 3),
    "touch": (_touch, 2),
    "transit": (_transit, 4),
    "finish": (_finish, 5),
    "delete": (_delete, 1),
    "time": (_pass_time, 3),
    "hear": (_hear, 3),
    "begin": (_begin, 3),
    "look": (lambda driver, rng, heard: driver.look(), 3),
    "end": (lambda driver, rng, heard: driver.end(), 3),
    "abandon": (lambda driver, rng, heard: driver.abandon(), 0.3),
    "start": (_start, 4),
    "take": (_take, 1),
    "claim": (lambda driver, rng, heard: driver.claim(), 2),
    "pause": (_pause, 0.7),
    "rebuild": (lambda driver, rng, heard: (driver.claim(), driver.rebuild()), 0.3),
    "aside": (_aside, 0.7),
    "settled": (lambda driver, rng, heard: (driver.claim(), driver.start_settled(rng.randint(1, 6))), 3),
}


def random_history(seed: int, steps: int) -> dict[str, int]:
    """Drive one random tree through a random history; how often what happened."""
    rng = random.Random(seed)
    driver = Driver(random_specs(rng), keep_limits=rng.random() < 0.5, window=rng.choice([1, 3, 3, 8, 1000]))
    driver.read_everything()
    counts: dict[str, int] = {}
    for _ in range(steps):
        random_step(driver, rng, counts)
    driver.claim()
    driver.start_settled(3)
    return counts
