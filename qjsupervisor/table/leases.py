"""The broker's side of the shared table: what this supervisor may use of each channel, and what it must report.

Of a limited channel c of a cluster's table
    CONFIGURED   what our configuration says
    RIGHT        permits that the coordinator leases us                written by the broker, under the lock
    CAPACITY     what may be used: at most RIGHT; nothing new starts while TOTAL >= CAPACITY     likewise
    TOKEN        of a throttled channel: 1 where its starts are leased to us                     likewise
    FLOOR        permits of RIGHT that may be used after the end of the lease                    likewise
Of a database s
    TERM         its worker leads, and has counted its jobs in HELD    written by the worker; 0 again when it loses it
    SETTLED      the tenure that the coordinator knows of; nothing starts where it is not TERM   written by the broker
    LET_GO       another runner leads it; HELD stays until the coordinator keeps the permits     both

After a death: RIGHT and TOKEN outlive the broker, as does HELD; the next broker registers with their values. Nothing
here waits for anything but the table's lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from . import rates
from .grants import NoDemand, Scheduler, grant_all
from .layout import CHANNEL_WORDS, SLOT_WORDS, Cell, Channel, Flag, Header, Slot
from .semaphore import SemaphoreTable
from .words import bits


@dataclass
class ChannelFacts:
    """One limited channel; `capacity` None: limited by something other than a capacity of its own."""

    name: str
    capacity: int | None
    right: int
    #: What may be used now, and after the lease has ended.
    usable: int
    floor: int
    #: What it guarantees to databases that could use it now, and what must be kept free whoever else waits.
    guaranteed: int
    reserved: int
    token: bool
    #: How long the next ones may have to wait after a start: its throttle, or the period of its rate.
    throttle_s: int
    sequential: bool
    #: Paused, retired, or closed by a failed job of our own.
    is_closed: bool
    held: int
    #: Jobs waiting directly in it, of databases that may start some.
    waiting: int
    #: Weight of the databases waiting in it or below it.
    weight: int
    #: Seconds until its throttle allows the next start.
    not_before_s: float
    #: For a rate: seconds since each start in its period, the oldest first, and whether it is used up.
    starts_s: list[float] = field(default_factory=list)
    rate_is_used_up: bool = False


@dataclass
class SlotFacts:
    """One database."""

    slot: int
    database: str
    #: 0: it is not counted here.
    term: int
    settled: int
    let_go: bool
    #: Permits by channel, those below it included.
    held: dict[str, int]
    #: Failed jobs in sequential channels.
    failed: dict[str, int]


@dataclass
class LeaseFacts:
    """The table at one moment."""

    channels: dict[str, ChannelFacts] = field(default_factory=dict)
    #: Name of a channel with waiting jobs -> its path, from itself to the root.
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    slots: list[SlotFacts] = field(default_factory=list)
    #: Nothing may start any more: the lease is over.
    is_over: bool = True


class LeaseTable:
    """One broker's view of the table."""

    def __init__(self, table: SemaphoreTable) -> None:
        self._table = table
        self._core = table.core
        #: When the lock was taken.
        self._now_ns = 0

    @property
    def wakeup(self) -> int:
        """The eventfd that workers write."""
        return self._core.broker_wakeup

    def drain_wakeup(self) -> None:
        """Empty it."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._core.broker_wakeup)

    def watch(self, value: int) -> None:
        """1: an exchange that leaves a worker waiting wakes us; 2: every one does."""
        self._core.words[Header.BROKER_WATCHES] = value

    def heartbeat(self, now_ns: int) -> None:
        """Write that the broker is alive."""
        self._core.words[Header.BROKER_HEARTBEAT_NS] = now_ns

    def next_session(self) -> int:
        """The number of a new session, larger than any before, even those of a broker that died."""
        self._core.words[Header.BROKER_SESSION] += 1
        return self._core.words[Header.BROKER_SESSION]

    @contextmanager
    def locked(self) -> Iterator[LeaseTable]:
        """Hold the table's lock; afterwards grant what may start, and wake those concerned."""
        core = self._core
        with core.locked(None) as self._now_ns:
            yield self
            rates.open_throttled(core, self._now_ns)
            if self._now_ns >= core.words[Header.LEASE_UNTIL_NS]:
                core.use_floors(self._now_ns)
            if core.may_start(self._now_ns):
                grant_all(core, Scheduler(core, self._table.fairness, -1, NoDemand(), self._now_ns), self._now_ns)

    # -- with the lock -------------------------------------------------------------------------------------------

    def read(self) -> LeaseFacts:
        """What there is."""
        core, tree = self._core, self._core.tree()
        facts = LeaseFacts(is_over=self._now_ns >= core.words[Header.LEASE_UNTIL_NS])
        waiting = core.read_bitmap(core.layout.waiting, core.slots)
        demand = {}
        for channel in range(len(tree.names)):
            slots = core.read_bitmap(core.channel_base(channel) + core.layout.waiting_slots_in, core.slots)
            demand[channel] = slots & waiting
        for channel, name in enumerate(tree.names):
            if demand[channel]:
                facts.paths[name] = tuple(tree.names[node] for node in tree.paths[channel])
            if tree.limits[channel] is not None:
                below = 0
                for node in bits(tree.below[channel]):
                    below |= demand[node]
                facts.channels[name] = self._channel(channel, name, demand[channel], below)
        for slot in self._table.occupied():
            facts.slots.append(self._slot(slot, facts))
        return facts

    def _channel(self, channel: int, name: str, here: int, below: int) -> ChannelFacts:
        core = self._core
        w = core.words[core.channel_base(channel) : core.channel_base(channel) + CHANNEL_WORDS].tolist()
        flags = w[Channel.FLAGS]
        pending = sum(max(1, core.words[core.cell_base(slot, channel) + Cell.PENDING]) for slot in bits(here))
        left_ns = max(0, w[Channel.NOT_BEFORE_NS] - self._now_ns) if w[Channel.THROTTLE_NS] else 0
        reserved = core.words[Header.RESERVED] if channel == 0 else 0
        ring = core.ring(channel)
        starts = [] if ring is None else [at for at in ring.stamps() if at + ring.window > self._now_ns]
        return ChannelFacts(
            name=name,
            capacity=None if w[Channel.CONFIGURED] < 0 else w[Channel.CONFIGURED],
            right=w[Channel.RIGHT],
            usable=w[Channel.CAPACITY],
            floor=w[Channel.FLOOR],
            guaranteed=self._guaranteed() if channel == 0 and core.words[Header.SHARES] else 0,
            reserved=w[Channel.TOTAL] + reserved if reserved else 0,
            token=bool(w[Channel.TOKEN]),
            throttle_s=-(-max(w[Channel.THROTTLE_NS], 0 if ring is None else ring.window) // 1_000_000_000),
            starts_s=[(self._now_ns - at_ns) / 1e9 for at_ns in starts],
            rate_is_used_up=ring is not None and core.not_before_ns(channel) > self._now_ns,
            sequential=bool(flags & Flag.SEQUENTIAL),
            is_closed=bool(flags & (Flag.PAUSED | Flag.RETIRED)) or bool(flags & Flag.SEQUENTIAL and w[Channel.FAILED]),
            held=w[Channel.TOTAL],
            waiting=pending,
            weight=sum(max(1, core.words[core.slot_base(slot) + Slot.WEIGHT]) for slot in bits(below)),
            not_before_s=left_ns / 1e9,
        )

    def _guaranteed(self) -> int:
        """The minimums of databases that wait or reserve theirs; of the others, what they hold of theirs."""
        core, total = self._core, 0
        waiting = core.read_bitmap(core.layout.waiting, core.slots)
        for slot in self._table.occupied():
            w = core.words[core.slot_base(slot) : core.slot_base(slot) + SLOT_WORDS].tolist()
            total += w[Slot.MIN] if waiting >> slot & 1 or w[Slot.RESERVE] else min(w[Slot.MIN], w[Slot.TOTAL])
        return total

    def _slot(self, slot: int, facts: LeaseFacts) -> SlotFacts:
        core, tree = self._core, self._core.tree()
        base = core.slot_base(slot)
        held = {tree.names[node]: n for node, n in self._table.sums(tree, slot, Cell.HELD).items()}
        failed = {
            tree.names[channel]: n
            for channel, n in enumerate(self._table.row(tree, slot, Cell.FAILED))
            if n and tree.names[channel] in facts.channels and facts.channels[tree.names[channel]].sequential
        }
        words = core.words
        return SlotFacts(
            slot=slot,
            database=core.text(base + core.layout.slot_name, words[base + Slot.NAME_LENGTH]),
            term=words[base + Slot.TERM],
            settled=words[base + Slot.SETTLED],
            let_go=bool(words[base + Slot.LET_GO]),
            held={name: n for name, n in held.items() if name in facts.channels},
            failed=failed,
        )

    def put_rights(self, rights: Mapping[str, int], tokens: Mapping[str, bool], usable: Mapping[str, int]) -> None:
        """Write what we have leased of channels, and how much of it may be used.

        The lower of old and new applies from the first store on, so a broker that dies in between uses no excess.
        """
        core, index = self._core, self._core.tree().index
        core.words[Header.FLOORED] = 0  # first: with the lease over nothing may start by what is written now
        for name in sorted({*rights, *tokens, *usable}):
            base = core.channel_base(index[name])
            words = core.words
            may = usable.get(name, words[base + Channel.CAPACITY])
            if may < words[base + Channel.CAPACITY] or words[base + Channel.CAPACITY] < 0 <= may:
                words[base + Channel.CAPACITY] = may
            words[base + Channel.RIGHT] = rights.get(name, words[base + Channel.RIGHT])
            words[base + Channel.TOKEN] = int(tokens.get(name, bool(words[base + Channel.TOKEN])))
            words[base + Channel.CAPACITY] = may
            core.settle(index[name], self._now_ns)

    def put_floors(self, floors: Mapping[str, int]) -> None:
        """Write what may be used of channels after the end of the lease."""
        core, index = self._core, self._core.tree().index
        for name, floor in floors.items():
            core.words[core.channel_base(index[name]) + Channel.FLOOR] = floor
        if any(floors.values()):
            core.words[Header.FLOORS] = 1

    def put_not_before(self, name: str, wait_s: float) -> None:
        """Another supervisor started a job in a throttled channel: start nothing for `wait_s`."""
        base = self._core.channel_base(self._core.tree().index[name])
        moment_ns = self._now_ns + int(wait_s * 1e9)
        self._core.words[base + Channel.NOT_BEFORE_NS] = max(self._core.words[base + Channel.NOT_BEFORE_NS], moment_ns)

    def put_starts(self, name: str, ages_s: Sequence[float], wait_s: float) -> None:
        """Add starts by others in a channel with a rate. With `wait_s` they are not known: it counts as used up."""
        channel = self._core.tree().index[name]
        ring = self._core.ring(channel)
        if ring is None:
            return
        stamps = [self._now_ns - int(age_s * 1e9) for age_s in ages_s]
        if wait_s > 0:
            stamps = [self._now_ns + int(wait_s * 1e9) - ring.window] * ring.behind
        ring.replace(sorted(max(1, at) for at in stamps))
        self._core.settle(channel, self._now_ns)

    def put_settled(self, slot: int, term: int) -> None:
        """Write the tenure in which the coordinator counts a database's jobs here; 0: it does not."""
        base = self._core.slot_base(slot)
        if self._core.words[base + Slot.SETTLED] != term:
            self._core.words[base + Slot.SETTLED] = term
            self._core.wake(slot)

    def forget(self, slot: int, database: str) -> None:
        """The coordinator now keeps the permits of a database we let go; no effect if it is ours again."""
        core, base = self._core, self._core.slot_base(slot)
        name = core.text(base + core.layout.slot_name, core.words[base + Slot.NAME_LENGTH])
        if name != database or not core.words[base + Slot.LET_GO]:
            return
        for channel in range(core.words[Header.USED_CHANNELS]):
            held = core.words[core.cell_base(slot, channel) + Cell.HELD]
            if held:
                core.add_held(slot, channel, -held, self._now_ns)
            core.set_failed(slot, channel, 0, self._now_ns)
        core.words[base + Slot.LET_GO] = 0

    def let_all_go(self) -> None:
        """The workers are gone for good: hand over what runs."""
        for slot in self._table.occupied():
            self._core.words[self._core.slot_base(slot) + Slot.TERM] = 0
            self._core.words[self._core.slot_base(slot) + Slot.LET_GO] = 1

    # -- time ----------------------------------------------------------------------------------------------------

    def lease_until(self, moment_ns: int, now_ns: int) -> None:
        """Let jobs start until that moment."""
        words = self._core.words
        was_over = words[Header.LEASE_UNTIL_NS] <= now_ns
        words[Header.LEASE_UNTIL_NS] = moment_ns
        if was_over and now_ns < moment_ns:
            self._core.wake_all()
