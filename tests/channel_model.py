"""What a channel tree should do, said as plainly as possible.

`World` is a database: rows, channels, a clock. It answers by going through all rows. `TableStandIn` is the shared table
with this one database in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from qjsupervisor.backlog.backlog import Backlog, Found, Snapshot
from qjsupervisor.channelspec import ROOT, ChannelSpec, complete_name, parent_name
from qjsupervisor.job import Key, Pending
from qjsupervisor.table.words import bits

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
    deferred: set[int] = field(default_factory=set)
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

    def order_barrier(self, name: str) -> Key | None:
        """The job directly in a channel that what comes after it waits for: that is due next, or that was deferred."""
        mine = [row for row in self.of("pending") if row.name == name]
        waiting = [(row.eta_us, row.key) for row in mine if not self.is_due(row) and row.job_id not in self.deferred]
        barriers = [row.key for row in mine if row.job_id in self.deferred] + ([min(waiting)[1]] if waiting else [])
        return min(barriers, default=None)

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
            order_barrier = self.order_barrier(name)
            if order_barrier is not None and order_barrier < key:
                return "an earlier job that is not due"
        if spec.throttle_s and self.now_us < self.last_start_us.get(name, -(1 << 60)) + spec.throttle_s * SECOND:
            return "throttled"
        return ""

    def why_not(self, row: Row) -> str:
        """Why a pending job may not start; '' if it may."""
        if row.job_id in self.deferred:
            return "deferred"
        if not self.is_due(row):
            return "not due"
        # A better job of its channel is held up by the same, so the first one that is free is the best one.
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
        rows = [row for row in self.of("pending") if accept(row) and row.job_id not in self.deferred]
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

    def may_reuse_permit(self, channel: int) -> bool:
        """As WorkerSlot.may_reuse_permit, where nobody else waits."""
        for node in self._path(channel):
            spec = self.specs[node]
            total = sum(n for cell, n in self.held.items() if node in self._path(cell))
            if (
                spec.throttle_s
                or spec.sequential
                or spec.paused
                or (spec.capacity is not None and total > spec.capacity)
            ):
                return False
        return True

    def exchange(self, tree: Backlog) -> None:
        """As WorkerSlot.exchange, where nobody else wants anything."""
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
        open_ones = [
            c for c in bits(tree.wanted_channels) if all(self._is_open(node, tree.now_us) for node in self._path(c))
        ]
        return sum(1 << channel for channel in open_ones)

    def _publish(self, tree: Backlog) -> None:
        wanted = tree.wanted_channels
        before = set(self.keys)
        for channel in before - set(bits(wanted)):
            del self.keys[channel]
        for channel in bits(wanted):
            if channel in tree.new_heads or channel not in before:
                self.keys[channel] = tree.key(channel)
        tree.new_heads.clear()
