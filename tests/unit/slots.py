"""What the tests of the shared table use: databases that exist in memory only, and deaths between two stores.

Everything is in one process. A worker is a `WorkerSlot` and a `Queue`; its lock is a `FakeMutex`; a death is `Died`,
raised in place of a chosen store. What its database says (`Database`) outlives it, as in real life.
"""

from __future__ import annotations

import math
import os
import select
from bisect import insort
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from qjsupervisor.channelspec import ChannelSpec, Share
from qjsupervisor.job import Key
from qjsupervisor.rates import window_of
from qjsupervisor.states import Fairness
from qjsupervisor.table import core as tablecore
from qjsupervisor.table import grants, rates, semaphore, servers, turns
from qjsupervisor.table import slot as worker_slot
from qjsupervisor.table.layout import (
    CELL_WORDS,
    CHANNEL_WORDS,
    NEVER_NS,
    STARTS_UNREAD,
    Cell,
    Channel,
    Flag,
    Header,
    Slot,
)
from qjsupervisor.table.mutex import Acquired
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.table.slot import WorkerSlot
from qjsupervisor.table.words import bits


class Died(BaseException):
    """The process was killed just before a store."""


class Fuse:
    """Counts stores, and kills at the one it is set to."""

    def __init__(self) -> None:
        self.stores = 0
        self._dies_at: int | None = None

    def set(self, dies_at: int | None) -> None:
        """Count from 0 again; die in place of store number `dies_at`."""
        self.stores, self._dies_at = 0, dies_at

    def burn(self) -> None:
        self.stores += 1
        if self._dies_at is not None and self.stores > self._dies_at:
            raise Died


class Stores:
    """A memoryview whose stores burn a fuse. A store of several words is cut in half by a death."""

    def __init__(self, view: memoryview, fuse: Fuse) -> None:
        self._view = view
        self._fuse = fuse

    def __getitem__(self, key: Any) -> Any:
        return self._view[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        try:
            self._fuse.burn()
        except Died:
            if isinstance(key, slice):
                half = len(value) // 4 * 2
                self._view[key.start : key.start + half] = value[:half]
            raise
        self._view[key] = value


class FakeMutex:
    """The lock, within one process: whoever meets it held is wrong, as nobody here runs at the same time."""

    def __init__(self, fuse: Fuse) -> None:
        self.held = False
        self.owner_died = False
        self._fuse = fuse

    def owner(self) -> int:
        return 0

    def acquire(self, _timeout_s: float) -> Acquired:
        assert not self.held, "the lock was not given back"
        self._fuse.burn()
        self.held = True
        owner_died, self.owner_died = self.owner_died, False
        return Acquired.OWNER_DIED if owner_died else Acquired.YES

    def release(self) -> None:
        assert self.held
        self._fuse.burn()
        self.held = False

    def holder_died(self) -> None:
        """What the kernel does when a process ends."""
        if self.held:
            self.held, self.owner_died = False, True


class Database:
    """What one database says of its jobs, by shared channel."""

    def __init__(self) -> None:
        self.waiting: dict[int, list[Key]] = {}
        self.running: list[tuple[int, Key]] = []
        self.failed: dict[int, int] = {}


class Queue:
    """A worker's queue (grants.Source). `on_take` is told each start, before it counts."""

    def __init__(self, database: Database, on_take: Callable[[int], None] = lambda _channel: None) -> None:
        self.database = database
        self.on_take = on_take
        self.tree_generation = 1
        self.budget = 1000
        self.held: dict[int, int] = {}
        self.failed = dict(database.failed)
        self.changed: set[int] = set()
        self.new_heads = set(database.waiting)
        self.withdrawn: list[int] = []
        #: Taken in the exchange that goes on: not claimed yet, so a death undoes them.
        self.taken: list[tuple[int, Key]] = []
        for channel, _key in database.running:
            self.held[channel] = self.held.get(channel, 0) + 1

    @property
    def wanted_channels(self) -> int:
        if self.budget <= 0:
            return 0
        return sum(1 << channel for channel, keys in self.database.waiting.items() if keys)

    def best(self, candidates: int) -> int:
        wanted = self.wanted_channels & candidates  # -1: among all
        assert wanted
        return min(bits(wanted), key=self.key)

    def key(self, channel: int) -> Key:
        return self.database.waiting[channel][0]

    def order(self) -> Sequence[int]:
        return sorted(bits(self.wanted_channels), key=self.key)

    def take(self, channel: int) -> None:
        self.on_take(channel)
        key = self.database.waiting[channel].pop(0)
        self.database.running.append((channel, key))
        self.taken.append((channel, key))
        self.held[channel] = self.held.get(channel, 0) + 1
        self.new_heads.add(channel)
        self.budget -= 1

    def arrive(self, channel: int, key: Key) -> None:
        insort(self.database.waiting.setdefault(channel, []), key)
        self.new_heads.add(channel)

    def cancel(self, channel: int) -> None:
        """The best waiting job of a channel is gone."""
        self.database.waiting[channel].pop(0)
        self.new_heads.add(channel)

    def finish(self, index: int, *, failed: bool = False) -> None:
        channel, _key = self.database.running.pop(index)
        self.held[channel] -= 1
        self.changed.add(channel)
        if failed:
            self.set_failed(channel, self.failed.get(channel, 0) + 1)

    def succeed(self, index: int) -> None:
        """The best job takes over the permit of one that is over."""
        channel, _key = self.database.running.pop(index)
        self.held[channel] -= 1
        self.take(channel)
        self.taken.clear()

    def set_failed(self, channel: int, failed: int) -> None:
        self.failed[channel] = self.database.failed[channel] = failed
        self.changed.add(channel)

    def undo_taken(self) -> None:
        for taken in self.taken:
            self.database.running.remove(taken)
            insort(self.database.waiting[taken[0]], taken[1])
        self.taken.clear()


class Worker:
    """One database's place: its rows, and the slot and queue of its present life, if it has one."""

    def __init__(self, world: World, slot: int) -> None:
        self.world = world
        self.slot = slot
        self.database = Database()
        self.worker_slot: WorkerSlot | None = None
        self.queue: Queue | None = None
        self.released = True
        self.stopped = False
        #: When its loop turns by itself, as of its last turn.
        self.deadline_ns: int | None = None

    @property
    def alive(self) -> bool:
        return self.worker_slot is not None

    @property
    def responsive(self) -> bool:
        return self.alive and not self.stopped

    def is_readable(self) -> bool:
        poll = select.poll()
        poll.register(self.world.core.wakeups[self.slot], select.POLLIN)
        return bool(poll.poll(0))

    def start(self) -> None:
        """A new life, up to its first exchange."""
        self.worker_slot = self.world.table.worker_slot(self.slot)
        self.queue = Queue(self.database, lambda channel: self.world.check_start(self.slot, channel))
        self.stopped = False
        self.worker_slot.attach()
        self.turn()

    def turn(self) -> None:
        """One turn of its loop: woken, or its deadline came, or it has news of its own."""
        assert self.worker_slot is not None
        assert self.queue is not None
        if self.is_readable():
            self.worker_slot.drain_wakeup()
        if self.worker_slot.is_due(self.queue):
            self.worker_slot.exchange(self.queue)
            self.claim()
        look_again_s = self.worker_slot.look_again_s(self.queue.wanted_channels)
        self.deadline_ns = None if math.isinf(look_again_s) else round(look_again_s * 1e9)

    def claim(self) -> None:
        """What was taken is claimed, and sent; or it was not to be had, and waits again."""
        assert self.worker_slot is not None
        assert self.queue is not None
        world, queue = self.world, self.queue
        if not queue.taken:
            return
        world.now_ns += world.claim_ns
        missed, world.failing = queue.taken[: world.failing], max(0, world.failing - len(queue.taken))
        world.claim_ns = 0
        if missed:
            queue.withdrawn += [channel for channel, _key in missed]
            for channel, key in missed:
                queue.taken.remove((channel, key))
                self.database.running.remove((channel, key))
                queue.arrive(channel, key)
                queue.held[channel] -= 1
                queue.changed.add(channel)
        self.worker_slot.note_sent([channel for channel, _key in queue.taken])
        for channel, _key in queue.taken:
            world.check_sent(channel)
        queue.taken.clear()

    def dies(self) -> None:
        if self.queue is not None:
            self.queue.undo_taken()
        self.worker_slot = self.queue = self.deadline_ns = None
        self.released = self.stopped = False
        self.world.mutex.holder_died()

    def may_succeed(self, index: int) -> bool:
        """Whether the best of all waiting jobs may take over the permit of a job that ends."""
        if not self.responsive or self.worker_slot is None or self.queue is None or not self.queue.wanted_channels:
            return False
        channel, _key = self.database.running[index]
        return self.queue.best(-1) == channel and self.worker_slot.may_reuse_permit(channel)

    def finish(self, index: int, *, failed: bool = False) -> None:
        """A job ends, whether or not anybody listens."""
        if self.queue is not None:
            self.queue.finish(index, failed=failed)
            return
        channel, _key = self.database.running.pop(index)
        if failed:
            self.database.failed[channel] = self.database.failed.get(channel, 0) + 1


class World:
    """A table, its workers, a clock that moves when told to."""

    def __init__(
        self,
        specs: Sequence[ChannelSpec],
        weights: Sequence[int],
        fairness: Fairness = Fairness.ROUND_ROBIN,
        *,
        start_barrier: bool = True,
        shares: Sequence[Share] = (),
    ) -> None:
        self.now_ns = 1_000_000_000_000
        self.table = SemaphoreTable(specs, slots=len(weights), fairness=fairness)
        self.core: Any = self.table.core
        for channel in range(self.core.words[Header.USED_CHANNELS]):
            self.core.words[self.core.channel_base(channel) + Channel.RATE_SINCE_NS] = 0  # it was made by another clock
        self.fuse = Fuse()
        self.mutex = FakeMutex(self.fuse)
        self.core.mutex = self.mutex  # type: ignore[assignment]
        for name in ("words", "bits", "bytes"):
            setattr(self.core, name, Stores(getattr(self.core, name), self.fuse))
        self.core.words[Header.GENERATION] += 1  # a tree that is read anew stores through these too, with its rings
        self.specs = list(specs)
        self.started: list[tuple[int, int]] = []
        #: When Odoo was asked for jobs in a channel with a rate or below it.
        self.sent_ns: dict[int, list[int]] = {}
        #: How long a claim takes, and how many of the next ones fail.
        self.claim_ns = self.failing = 0
        self.workers = [Worker(self, slot) for slot in range(len(weights))]
        for slot, weight in enumerate(weights):
            self.table.assign(slot, f"db{slot}", weight, shares[slot] if shares else None)
        if shares:  # (its worker does that when it sits down)
            assert self.table.try_share(dict(enumerate(shares)))
        if start_barrier:
            self.table.open_start_barrier()

    def install_clock(self, patch: pytest.MonkeyPatch) -> None:
        """Let the table's modules read our clock."""
        clock = SimpleNamespace(monotonic_ns=lambda: self.now_ns)
        patch.setattr(tablecore, "time", clock)
        patch.setattr(worker_slot, "time", clock)
        patch.setattr(semaphore, "time", clock)
        patch.setattr(servers, "time", clock)
        following = grants.Scheduler.next

        def following_checked(choice: grants.Scheduler) -> turns.Grant | None:
            grant = following(choice)
            if grant is not None and choice.core is self.core:
                self.check_turn(choice, grant)
            return grant

        patch.setattr(grants.Scheduler, "next", following_checked)

    def close(self) -> None:
        for wakeup in self.core.wakeups:
            os.close(wakeup)

    def start_all(self) -> None:
        for worker in self.workers:
            worker.start()
            worker.released = True

    # -- the master's reactions ----------------------------------------------------------------------------

    def release(self, worker: Worker) -> None:
        assert self.table.try_after_death(worker.slot)
        worker.released = True

    # -- quiet: all that happens by itself ------------------------------------------------------------------

    def quiet(self) -> None:
        """Let every responsive worker go on until nobody has a reason to; the clock moves for lost grants only."""
        for worker in self.workers:
            if not worker.alive and not worker.released:
                self.release(worker)
        for _ in range(1000):
            moved = False
            for worker in self.workers:
                if worker.responsive and self._has_reason(worker):
                    worker.turn()
                    moved = True
            if not moved and not self._be_patient():
                return
        raise AssertionError("it never comes to rest")

    def _has_reason(self, worker: Worker) -> bool:
        assert worker.queue is not None
        assert worker.worker_slot is not None
        heads = worker.queue.new_heads and worker.worker_slot._order_matters(worker.queue)
        news = worker.queue.changed or heads or worker.queue.wanted_channels != worker.worker_slot._published
        due = worker.deadline_ns is not None and worker.deadline_ns <= self.now_ns
        return bool(worker.is_readable() or news or due)

    def _be_patient(self) -> bool:
        ends = [w.worker_slot._look_again_ns for w in self.workers if w.responsive and w.worker_slot is not None]
        known = [end for end in ends if end is not None]
        if known:
            self.now_ns = max(self.now_ns, min(known))
        return bool(known)

    def opens_ns(self, node: int) -> int:
        """When a channel's throttle and rate let somebody through."""
        base = self.core.channel_base(node)
        throttle_ns, rate = self.core.words[base + Channel.THROTTLE_NS], self.core.words[base + Channel.RATE]
        throttled = self.core.words[base + Channel.NOT_BEFORE_NS] if throttle_ns else 0
        if not rate:
            return int(throttled)
        if self.core.words[Header.STARTS_UNREAD]:
            return NEVER_NS
        starts = sorted(self.core.ring(node).moments())[-rate:]
        window_ns = window_of(self.core.words[base + Channel.RATE_NS], 1_000_000_000)
        return int(max(throttled, starts[0] + window_ns if len(starts) >= rate else 0))

    # -- what must be true ----------------------------------------------------------------------------------

    def words(self, channel: int) -> list[int]:
        base = self.core.channel_base(channel)
        return list(self.core.words[base : base + CHANNEL_WORDS])

    def row(self, slot: int, word: int) -> list[int]:
        used = self.core.words[Header.USED_CHANNELS]
        start = self.core.cell_base(slot, 0)
        return list(self.core.words[start : start + used * CELL_WORDS])[word::CELL_WORDS]

    def paths(self) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for channel in range(self.core.words[Header.USED_CHANNELS]):
            parent = self.words(channel)[Channel.PARENT]
            found.append((channel, *(found[parent] if parent >= 0 else ())))
        return found

    def running(self, node: int) -> int:
        """Jobs that run in a channel and below it, as the databases say: what Odoo sees."""
        paths = self.paths()
        return sum(node in paths[channel] for w in self.workers for channel, _key in w.database.running)

    def check_start(self, slot: int, channel: int) -> None:
        """Never over: at a start there is room on the whole path, as Odoo sees it."""
        assert self.table.start_barrier_open, "started before the start barrier was over"
        for node in self.paths()[channel]:
            w = self.words(node)
            room = w[Channel.CAPACITY] < 0 or self.running(node) < w[Channel.CAPACITY]
            assert room, f"database {slot} starts in {channel}, but {node} is full"
            assert not w[Channel.FLAGS] & (Flag.PAUSED | Flag.RETIRED), f"{node} is closed"
            assert not (w[Channel.RATE] and self.core.words[Header.STARTS_UNREAD]), "what was started is unknown"
        self.started.append((slot, channel))

    def share(self, slot: int) -> tuple[int, int, int, int]:
        """Of a database: minimum, maximum (0: none), whether it is reserved, and what it holds."""
        base = self.core.slot_base(slot)
        least, most, reserve = self.core.words[base + Slot.MIN : base + Slot.RESERVE + 1]
        return least, most, reserve, sum(self.row(slot, Cell.HELD))

    def deficits(self) -> int:
        """Permits of the root that are kept free for databases below their reserved minimums."""
        found = [self.share(slot) for slot in range(len(self.workers))]
        return sum(max(0, least - held) for least, _most, reserve, held in found if reserve)

    # -- minimums of channels: a computation of our own ----------------------------------------------------------

    def totals(self) -> list[int]:
        """Of each channel, what is held in it and below it."""
        return [self.words(node)[Channel.TOTAL] for node in range(self.core.words[Header.USED_CHANNELS])]

    def lack(self, channel: int, totals: Sequence[int]) -> int:
        """Permits of its parent that are kept for a channel."""
        w = self.words(channel)
        own = max(0, w[Channel.MIN] - totals[channel]) if w[Channel.RESERVE] else 0
        return max(own, self.kept(channel, totals))

    def kept(self, node: int, totals: Sequence[int]) -> int:
        """Permits of a channel that are kept for those below it."""
        children = [c for c in range(len(totals)) if c != node and self.words(c)[Channel.PARENT] == node]
        return sum(self.lack(child, totals) for child in children)

    def is_let_through(self, slot: int, channel: int) -> bool:
        """Whether a start there takes nothing that is kept for others."""
        before, path = self.totals(), self.paths()[channel]
        after = [total + (node in path) for node, total in enumerate(before)]
        least, _most, reserve, held = self.share(slot)
        for node in path:
            kept = self.kept(node, before)
            free = self.words(node)[Channel.CAPACITY] - before[node] - kept - (0 if node else self.deficits())
            takes_own = self.kept(node, after) < kept or (node == 0 and reserve and held < least)
            if self.words(node)[Channel.CAPACITY] >= 0 and free <= 0 and not takes_own:
                return False
        return True

    def check_branches(self, choice: grants.Scheduler, grant: turns.Grant) -> None:
        """Nothing is taken that is kept; and no branch borrows where one beside it is short and could start."""
        assert self.is_let_through(grant.slot, grant.channel), f"{grant} takes what is kept"
        paths, used = self.paths(), range(self.core.words[Header.USED_CHANNELS])
        short = [n for n in used if self.words(n)[Channel.TOTAL] < self.words(n)[Channel.MIN]]
        if not short:
            return
        own = list(bits(choice._demand.wanted_channels)) if choice._slot >= 0 else []
        waiting = set(bits(self.core.read_bitmap(self.core.layout.waiting, self.core.layout.slots))) - {choice._slot}
        wanted = [(slot, c) for slot in waiting for c in self.core.demand_order(slot)] + [
            (choice._slot, c) for c in own
        ]
        least, _most, _reserve, held = self.share(grant.slot)
        for at, node in enumerate(paths[grant.channel]):
            counts = any(below in short for below in paths[grant.channel][:at])
            if counts or (node == 0 and held < least):
                continue
            for slot, channel in wanted:
                within = paths[channel][: paths[channel].index(node)] if node in paths[channel] else ()
                if any(below in short for below in within):
                    may = self.is_startable(slot, channel) and self.is_let_through(slot, channel)
                    assert not may, f"{grant} borrows in {node} while {slot} waits in {channel}"

    def is_startable(self, slot: int, channel: int) -> bool:
        """Whether nothing but the turn of others could hold up a job."""
        closed = self.core.read_bitmap(self.core.layout.closed, self.core.layout.channels)
        _least, most, _reserve, held = self.share(slot)
        return not any(closed >> node & 1 for node in self.paths()[channel]) and not 0 < most <= held

    def check_turn(self, choice: grants.Scheduler, grant: turns.Grant) -> None:
        """No borrower while a waiting database is below its minimum; none of what is reserved; nobody over its most."""
        least, most, _reserve, held = self.share(grant.slot)
        assert not most or held < most, f"database {grant.slot} has its maximum, and more is granted"
        lacks = held < least or self.counts_at_root(grant.channel)
        waiting = self.core.read_bitmap(self.core.layout.waiting, self.core.layout.slots)
        self.check_branches(choice, grant)
        for slot in bits(waiting):
            if slot != choice._slot:
                self._check_borrower(grant.slot, lacks, slot, self.core.demand_order(slot))
        if choice._slot >= 0:
            self._check_borrower(grant.slot, lacks, choice._slot, list(bits(choice._demand.wanted_channels)))

    def counts_at_root(self, channel: int) -> bool:
        """Whether a start there is of a branch below its minimum."""
        ways = [self.words(node) for node in self.paths()[channel]]
        return any(w[Channel.TOTAL] < w[Channel.MIN] for w in ways)

    def _check_borrower(self, granted: int, lacks: bool, slot: int, wanted: Sequence[int]) -> None:
        least, _most, _reserve, held = self.share(slot)
        may = any(self.is_startable(slot, channel) and self.is_let_through(slot, channel) for channel in wanted)
        assert lacks or not (held < least and may), f"{granted} borrows while {slot} has {held} of {least}"

    def check_sent(self, channel: int) -> None:
        """Never over its rate, in any window that ends now."""
        for node in self.paths()[channel]:
            w = self.words(node)
            if not w[Channel.RATE]:
                continue
            moments = self.sent_ns.setdefault(node, [])
            moments.append(self.now_ns)
            within = sum(moment > self.now_ns - w[Channel.RATE_NS] for moment in moments)
            assert within <= w[Channel.RATE], f"{within} starts in {node} within its period"

    def note_past_starts(self, channel: int, ages_s: Sequence[float]) -> None:
        """Somebody before this table started these."""
        for node in self.paths()[channel]:
            if self.words(node)[Channel.RATE]:
                self.sent_ns.setdefault(node, []).extend(self.now_ns - int(age_s * 1e9) for age_s in ages_s)

    def check_derived(self) -> None:
        """Sums and bitmaps, against a computation of our own from the truth."""
        if self.mutex.owner_died or self.core.words[Header.DIRTY]:
            return
        used = self.core.words[Header.USED_CHANNELS]
        layout, paths, slots = self.core.layout, self.paths(), range(len(self.workers))
        held = [self.row(slot, Cell.HELD) for slot in slots]
        failed = [self.row(slot, Cell.FAILED) for slot in slots]
        closed = self.core.read_bitmap(layout.closed, layout.channels)
        throttled = self.core.read_bitmap(layout.throttled, layout.channels)
        active = self.core.read_bitmap(layout.active, layout.channels)
        for node in range(used):
            w = self.words(node)
            total = sum(row[c] for row in held for c in range(used) if node in paths[c])
            assert w[Channel.TOTAL] == total, f"total of {node}"
            assert w[Channel.FAILED] == sum(row[node] for row in failed), f"failed of {node}"
            shut = bool(w[Channel.FLAGS] & (Flag.PAUSED | Flag.RETIRED)) or 0 <= w[Channel.CAPACITY] <= total
            shut = shut or bool(w[Channel.FLAGS] & Flag.SEQUENTIAL and w[Channel.FAILED])
            assert bool(closed >> node & 1) == (shut or bool(throttled >> node & 1)), f"closed of {node}"
            if self.opens_ns(node) > self.now_ns:
                assert throttled >> node & 1, f"throttled of {node}"
            if throttled >> node & 1:
                assert self.core.words[Header.NEXT_OPEN_NS] <= self.core.not_before_ns(node), "next to open"
            waiting_slots = {slot for slot in slots if node in self.core.demand_order(slot)}
            base = self.core.channel_base(node) + layout.waiting_slots_in
            assert set(bits(self.core.read_bitmap(base, layout.slots))) == waiting_slots, f"waiting slots of {node}"
            assert bool(active >> node & 1) == bool(waiting_slots), f"active of {node}"
        short = self.core.read_bitmap(layout.short, layout.channels)
        totals = [self.words(node)[Channel.TOTAL] for node in range(used)]
        for node in range(used):
            w = self.words(node)
            assert bool(short >> node & 1) == (w[Channel.TOTAL] < w[Channel.MIN]), f"short {node}"
            assert w[Channel.LACK] == self.lack(node, totals), f"lack of {node}"
            assert w[Channel.KEPT] == self.kept(node, totals), f"kept in {node}"
        reading = [self.core.words[self.core.slot_base(slot) + Slot.STARTS] for slot in slots].count(STARTS_UNREAD)
        assert self.core.words[Header.STARTS_UNREAD] == reading, "slots that read what was started"
        waiting = self.core.read_bitmap(layout.waiting, layout.slots)
        unserved = self.core.read_bitmap(layout.unserved, layout.slots)
        for slot in slots:
            base = self.core.slot_base(slot)
            waits = bool(self.core.words[base + Slot.DEMAND]) and not self.core.words[base + Slot.GRANT]
            assert bool(waiting >> slot & 1) == waits, f"waiting of {slot}"
            granted = self.core.read_bitmap(layout.granted, layout.slots)
            assert bool(granted >> slot & 1) == bool(self.core.words[base + Slot.GRANT]), f"granted of {slot}"
            assert waits or not unserved >> slot & 1, f"fresh of {slot}"
            least, most, reserve, total = self.share(slot)
            assert self.core.words[base + Slot.TOTAL] == total, f"held by {slot}"
            assert self.core.words[base + Slot.DEFICIT] == (max(0, least - total) if reserve else 0), f"lack of {slot}"
            needy, full = (self.core.read_bitmap(word, layout.slots) for word in (layout.needy, layout.full))
            assert bool(needy >> slot & 1) == (total < least), f"needy {slot}"
            assert bool(full >> slot & 1) == (0 < most <= total), f"full {slot}"
        assert self.core.words[Header.RESERVED] == self.deficits(), "reserved"

    def check_held(self) -> None:
        """Never lost: in the quiet, HELD is what runs, and one more where a grant was not taken."""
        for worker in self.workers:
            held = self.row(worker.slot, Cell.HELD)
            grant = self.core.words[self.core.slot_base(worker.slot) + Slot.GRANT] - 1
            if worker.responsive:
                assert worker.queue is not None
                assert grant < 0, f"database {worker.slot} did not come for its grant"
                known = [worker.queue.held.get(c, 0) for c in range(len(held))]
                assert held == known, f"held by {worker.slot}: {held}, it knows {known}"
                since = self.core.words[self.core.slot_base(worker.slot) + Slot.WAITING_SINCE_NS]
                assert bool(since) == bool(worker.queue.wanted_channels), f"waiting since of {worker.slot}"
            for channel, number in enumerate(held):
                runs = sum(c == channel for c, _key in worker.database.running)
                assert number >= runs + (channel == grant), f"{worker.slot} runs more in {channel} than it holds"

    def check_nothing_idle(self) -> None:
        """Never idle: in the quiet, whoever could start something has done so, or knows when it can."""
        if not self.table.start_barrier_open:
            return
        for worker in self.workers:
            if worker.responsive:
                assert worker.queue is not None
                for channel in bits(worker.queue.wanted_channels):
                    self._check_held_up(worker, channel)

    def _check_held_up(self, worker: Worker, channel: int) -> None:
        until = 0
        _least, most, _reserve, held = self.share(worker.slot)
        if 0 < most <= held or not self.is_let_through(worker.slot, channel):
            return
        for node in self.paths()[channel]:
            w = self.words(node)
            if w[Channel.FLAGS] & (Flag.PAUSED | Flag.RETIRED) or 0 <= w[Channel.CAPACITY] <= w[Channel.TOTAL]:
                return
            if w[Channel.FLAGS] & Flag.SEQUENTIAL and w[Channel.FAILED]:
                return
            until = max(until, self.opens_ns(node))
        assert until > self.now_ns, f"database {worker.slot} could start in {channel} and does not"
        if until >= NEVER_NS:
            return  # whoever reads the starts of former processes wakes all
        by_rate = all(not self.words(node)[Channel.THROTTLE_NS] for node in self.paths()[channel])
        known = [worker]
        if by_rate:
            shut = next(n for n in self.paths()[channel] if self.opens_ns(n) == until)
            known = [self.workers[slot] for slot in rates.watchers(self.core, self.core.tree().below[shut])]
        for patience_ns, watcher in zip((0, rates.SUBSTITUTE_NS), known, strict=False):
            if watcher.responsive:
                knows = watcher.deadline_ns is not None and watcher.deadline_ns <= until + patience_ns
                assert knows, f"database {watcher.slot} does not know when the throttle of {channel} ends"

    def check_quiet(self) -> None:
        self.quiet()
        self.check_derived()
        self.check_held()
        self.check_nothing_idle()
