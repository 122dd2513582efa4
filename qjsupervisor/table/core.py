"""The shared table's lock and the invariants of its words (words.py). Layout: layout.py.

Decides nothing: grants.py chooses who gets a permit; semaphore.py says what a worker or the master may do.

Invariants, whenever the lock is free and Header.DIRTY is 0
    total(c)   = sum of HELD over all databases and over c and all channels below it
    failed(c)  = sum of FAILED over all databases, in c alone
    closed(c)  = paused or retired, or total(c) >= capacity(c), or sequential and failed(c) > 0, or throttled
    throttled  = closed by time alone: by a throttle until NOT_BEFORE, by a rate until its ring opens, or while
                 Header.STARTS_UNREAD; Header.NEXT_OPEN_NS is not later than the first of these moments
    waiting(s) = s has demand, and no grant it has yet to take
    granted(s) = s has such a grant: who has demand is in waiting, in granted, or holds the lock
    minimums   = layout.py says what is derived of them
    HELD(s, c) = what the worker of s knows to run there, + 1 if its untaken grant is for c
If the lock's holder dies between two stores, only the truth (HELD, FAILED, the demand orders) is certain. Whoever
takes the lock next calls `_repair` before it looks at anything else: sums and bitmaps are computed afresh,
and Header.REPAIRS tells every worker to write its own HELD words again, which restores the last equation.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..channelspec import Share
from ..states import TargetState
from .layout import CELL_WORDS, NEVER_NS, STARTS_UNREAD, WORD, Cell, Channel, Flag, Header, Server, Slot, bitmap_words
from .mutex import Acquired, RobustMutex
from .stuck_holder import HolderWatch
from .words import TableWords

_NO, _OWNER_DIED = Acquired.NO, Acquired.OWNER_DIED
#: How long a worker waits for the lock before it examines the holder.
LOCK_SLICE_S = 0.02

# os.eventfd_write lets other threads run, which may keep the interpreter, and with it the table's lock, for 5 ms.
_eventfd_write = ctypes.PyDLL(None).eventfd_write
_eventfd_write.argtypes = [ctypes.c_int, ctypes.c_uint64]


class TableCore(TableWords):
    """Words and lock of the shared table."""

    def __init__(self, slots: int, channels: int, servers: int = 0, *, leased: bool = False) -> None:
        super().__init__(slots, channels, servers)
        #: A cluster's broker decides how much of each channel may be used, and until when; see leases.py.
        self.leased = leased
        self.broker_wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if leased else -1
        self.words[Header.LEASE_UNTIL_NS] = 0 if leased else (1 << 63) - 1
        self.words[Header.NEXT_OPEN_NS] = NEVER_NS
        self.mutex = RobustMutex(self.mapping, self.layout.mutex * WORD)
        #: One eventfd per slot, written under the lock by whoever grants something to that database.
        self.wakeups = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(slots)]
        self._holder_watch = HolderWatch(lambda: (self.mutex.owner(), self.words[Header.SEQUENCE]))

    # -- the lock ----------------------------------------------------------------------------------------

    def may_start(self, now_ns: int) -> bool:
        """Whether anything may start: the start barrier is open, and the lease is valid or floors are in force."""
        is_leased = now_ns < self.words[Header.LEASE_UNTIL_NS] or self.words[Header.FLOORED]
        return bool(self.words[Header.START_BARRIER]) and bool(is_leased)

    def use_floors(self, now_ns: int) -> None:
        """With the lock, after the lease has ended: limit each channel to its floor from now on.

        The mark is stored last, so that after a death in between the next one does it again.
        """
        words = self.words
        if words[Header.FLOORED] or not words[Header.FLOORS]:
            return
        for channel, limits in enumerate(self.tree().limits):
            if limits is not None:
                base = self.channel_base(channel)
                words[base + Channel.CAPACITY] = words[base + Channel.FLOOR]
                self.settle(channel, now_ns)
        words[Header.FLOORED] = 1

    def wake_broker(self) -> None:
        """Report that something changed which the coordinator may need to know."""
        _eventfd_write(self.broker_wakeup, 1)

    def enter(self, now_ns: int) -> bool:
        """Try to take the lock without waiting; repairs first what a dead holder left."""
        return self._entered(self.mutex.acquire(0), now_ns)

    def enter_waiting(self, slot: int | None) -> int:
        """Take the lock, as a worker or the broker (slot None). Returns the time (monotonic nanoseconds).

        Writes the heartbeat while it waits, and deals with a stopped holder.
        """
        now_ns = time.monotonic_ns()
        while not self._entered(self.mutex.acquire(LOCK_SLICE_S), now_ns):
            now_ns = time.monotonic_ns()
            heartbeat = Header.BROKER_HEARTBEAT_NS if slot is None else self.slot_base(slot) + Slot.HEARTBEAT_NS
            self.words[heartbeat] = now_ns
            self._holder_watch.look()
        return now_ns

    @contextmanager
    def locked(self, slot: int | None) -> Iterator[int]:
        """Hold the lock for the body, which gets the time it was taken. See enter_waiting."""
        now_ns = self.enter_waiting(slot)
        try:
            yield now_ns
        except BaseException:  # whatever it is, keeping the lock would stop all databases
            self.abandon()
            raise
        self.leave()

    def _entered(self, got: Acquired, now_ns: int) -> bool:
        if got is _NO:
            return False
        words = self.words
        words[Header.SEQUENCE] += 1
        if got is _OWNER_DIED or words[Header.DIRTY]:
            self._repair(now_ns)
        words[Header.DIRTY] = 1
        return True

    def leave(self) -> None:
        """Release the lock; everything is consistent."""
        self.words[Header.DIRTY] = 0
        self.mutex.release()

    def abandon(self) -> None:
        """Release the lock after a failure: the mark stays, so the next holder repairs."""
        self.mutex.release()

    # -- permits -----------------------------------------------------------------------------------------

    def settle(self, channel: int, now_ns: int) -> None:
        """Write whether a channel has room. Call it after anything that can change that."""
        limits = self.tree().limits[channel]
        if limits is None:
            return
        words, base = self.words, self.channel_base(channel)
        throttled = limits.paced and self.not_before_ns(channel) > now_ns
        closed = (
            throttled
            or bool(limits.flags & (Flag.PAUSED | Flag.RETIRED))
            or 0 <= words[base + Channel.CAPACITY] <= words[base + Channel.TOTAL]
            or bool(limits.flags & Flag.SEQUENTIAL and words[base + Channel.FAILED])
        )
        self.put_bit(self.layout.closed, channel, closed)
        if limits.paced:
            self.put_bit(self.layout.throttled, channel, throttled)
            if throttled:
                words[Header.NEXT_OPEN_NS] = min(words[Header.NEXT_OPEN_NS], self.not_before_ns(channel))

    def settle_anew(self, channel: int, now_ns: int) -> None:
        """As settle, for a channel that may have lost limits."""
        self.put_bit(self.layout.closed, channel, False)
        self.put_bit(self.layout.throttled, channel, False)
        self.settle(channel, now_ns)
        self.settle_minimums(channel)

    def settle_minimums(self, channel: int) -> None:
        """Write how far a channel and those above it are below their minimums, after anything that can change it."""
        words = self.words
        for node in self.tree().paths[channel]:
            base = self.channel_base(node)
            missing = words[base + Channel.MIN] - words[base + Channel.TOTAL]
            self.put_bit(self.layout.short, node, missing > 0)
            lack = words[base + Channel.KEPT]
            if missing > lack and words[base + Channel.RESERVE]:
                lack = missing
            change = lack - words[base + Channel.LACK]
            if change:
                words[base + Channel.LACK] = lack
                if node:
                    words[self.channel_base(words[base + Channel.PARENT]) + Channel.KEPT] += change

    def add_held(self, slot: int, channel: int, change: int, now_ns: int) -> None:
        """Change the permits a database holds in a channel. Only the store to HELD is decisive."""
        words = self.words
        words[self.cell_base(slot, channel) + Cell.HELD] += change
        words[self.layout.slot + slot * self.layout.slot_size + Slot.TOTAL] += change
        if words[Header.SHARES]:
            self.settle_share(slot)
        tree = self.tree()
        for node in tree.paths[channel]:
            words[self.channel_base(node) + Channel.TOTAL] += change
            self.settle(node, now_ns)
        if tree.has_minimums:
            self.settle_minimums(channel)

    def put_share(self, slot: int, share: Share) -> None:
        """Write a database's minimum and maximum; `settle_share` puts them in force."""
        base = self.slot_base(slot)
        self.words[base + Slot.MIN], self.words[base + Slot.MAX] = share.minimum, share.maximum or 0
        self.words[base + Slot.RESERVE] = int(share.reserve)
        if share.minimum or share.maximum:
            self.words[Header.SHARES] = 1

    def settle_share(self, slot: int) -> None:
        """Write whether a database is below its minimum or at its maximum, after anything that can change it."""
        words, base = self.words, self.slot_base(slot)
        total, least, most = words[base + Slot.TOTAL], words[base + Slot.MIN], words[base + Slot.MAX]
        deficit = max(0, least - total) if words[base + Slot.RESERVE] else 0
        words[Header.RESERVED] += deficit - words[base + Slot.DEFICIT]
        words[base + Slot.DEFICIT] = deficit
        self.put_bit(self.layout.needy, slot, total < least)
        self.put_bit(self.layout.full, slot, 0 < most <= total)

    def put_grant(self, slot: int, channel: int) -> None:
        """Write that a database may take a permit in a channel; -1: that it may not any more."""
        self.words[self.slot_base(slot) + Slot.GRANT] = channel + 1
        self.put_bit(self.layout.granted, slot, channel >= 0)

    def exceeds_share(self, slot: int) -> bool:
        """Whether a database holds more than its maximum, because that was lowered."""
        base = self.slot_base(slot)
        return 0 < self.words[base + Slot.MAX] < self.words[base + Slot.TOTAL]

    def is_over(self, channel: int) -> bool:
        """Whether a permit just taken here must not be used: the capacity was lowered, or a pause or failure came."""
        tree = self.tree()
        for node in tree.paths[channel]:
            limits, base = tree.limits[node], self.channel_base(node)
            if limits is not None and (
                limits.flags & (Flag.PAUSED | Flag.RETIRED)
                or 0 <= self.words[base + Channel.CAPACITY] < self.words[base + Channel.TOTAL]
                or (limits.flags & Flag.SEQUENTIAL and self.words[base + Channel.FAILED])
            ):
                return True
        return False

    def is_full(self) -> bool:
        """Whether all of the root's permits are held, so nothing can start anywhere."""
        root = self.channel_base(0)
        return 0 <= self.words[root + Channel.CAPACITY] <= self.words[root + Channel.TOTAL]

    def has_rules(self, channel: int) -> bool:
        """Whether more than capacities decides who may start in a channel, by its own settings or those above it.

        By time, by order, or by minimums and weights of the branches below it.
        """
        tree = self.tree()
        for node in tree.paths[channel]:
            limits = tree.limits[node]
            if tree.ruled >> node & 1:
                return True
            if limits is not None and (limits.paced or limits.flags & Flag.SEQUENTIAL):
                return True
        return False

    def has_weights(self) -> bool:
        """Whether databases differ in weight, so that every start is counted."""
        if self.words[Header.CLASSES] < 2:
            return False
        return len([members for members in self.class_bitmaps() if members]) > 1

    def not_before_ns(self, channel: int) -> int:
        """The monotonic moment before which a channel starts nothing, by its throttle and its rate."""
        limits = self.tree().limits[channel]
        not_before_ns = self.words[self.channel_base(channel) + Channel.NOT_BEFORE_NS]
        if limits is None or limits.ring is None:
            return not_before_ns
        if self.words[Header.STARTS_UNREAD]:
            return NEVER_NS  # whoever reads the last of them settles the channel and wakes all
        return max(not_before_ns if limits.throttle_ns else 0, limits.ring.opens())

    def set_failed(self, slot: int, channel: int, failed: int, now_ns: int) -> None:
        """Write how many failed jobs a database has directly in a channel."""
        cell = self.cell_base(slot, channel) + Cell.FAILED
        change = failed - self.words[cell]
        if change:
            self.words[cell] = failed
            self.words[self.channel_base(channel) + Channel.FAILED] += change
            self.settle(channel, now_ns)

    def drop_demand(self, slot: int) -> None:
        """Clear a database's demand."""
        base = self.slot_base(slot)
        for channel in range(self.words[Header.USED_CHANNELS]):
            self.put_demand(slot, channel, False)
        self.words[base + Slot.DEMAND] = 0
        self.words[base + Slot.WAITING_SINCE_NS] = 0
        self.put_bit(self.layout.waiting, slot, False)
        self.put_bit(self.layout.unserved, slot, False)

    def waiting_slots(self, channels: int, among: int = -1) -> int:
        """Bitmap of the databases that wait in one of the `channels` (a bitmap), or at least all those `among` them."""
        layout, mapped = self.layout, self.bytes
        channels &= self.read_bitmap(layout.active, layout.channels)
        start, step = (layout.channel + layout.waiting_slots_in) * WORD, layout.channel_size * WORD
        size, found = bitmap_words(self.slots) * WORD, 0
        if channels & (channels - 1) == 0:  # one, or none
            start += max(0, channels.bit_length() - 1) * step
            return int.from_bytes(mapped[start : start + size], "little") if channels else 0
        for is_meant in bin(channels)[:1:-1]:  # channel 0 first
            if is_meant == "1":
                found |= int.from_bytes(mapped[start : start + size], "little")
                if not among & ~found:
                    break
            start += step
        return found

    def put_demand(self, slot: int, channel: int, value: bool) -> None:
        """Write whether a database waits in a channel."""
        waiting_slots = self.channel_base(channel) + self.layout.waiting_slots_in
        self.put_bit(waiting_slots, slot, value)
        self.put_bit(self.layout.active, channel, bool(self.read_bitmap(waiting_slots, self.slots)))

    def demand_order(self, slot: int) -> list[int]:
        """The channels in which a database waits, in the order of its best jobs."""
        base = self.slot_base(slot)
        start = (base + self.layout.slot_order) * WORD
        count = max(0, min(self.words[base + Slot.DEMAND], self.layout.channels))
        return self.bytes[start : start + 2 * count].cast("H").tolist()

    def wake(self, slot: int) -> None:
        """Wake a slot's worker, at once or when it next polls."""
        _eventfd_write(self.wakeups[slot], 1)

    def wake_all(self) -> None:
        """Wake every worker."""
        for slot in range(self.slots):
            if self.words[self.slot_base(slot) + Slot.PID]:
                self.wake(slot)

    # -- repair ------------------------------------------------------------------------------------------

    def _repair(self, now_ns: int) -> None:
        self.words[Header.DIRTY] = 1
        # The dead holder may have added a channel without announcing it.
        self.words[Header.GENERATION] += 1
        used = self.words[Header.USED_CHANNELS]
        for word in range(self.layout.active, self.layout.classes):
            self.bits[word] = 0
        for channel in range(used):
            base = self.channel_base(channel)
            self.words[base + Channel.TOTAL] = self.words[base + Channel.FAILED] = 0
            self.words[base + Channel.LACK] = self.words[base + Channel.KEPT] = 0
            for word in range(base + self.layout.waiting_slots_in, base + self.layout.channel_size):
                self.bits[word] = 0
        self.words[Header.STARTS_UNREAD] = self.words[Header.RESERVED] = 0
        self.words[Header.NEXT_OPEN_NS] = NEVER_NS
        for slot in range(self.slots):
            if self.words[self.slot_base(slot) + Slot.NAME_LENGTH]:
                self._repair_slot(slot, used)
        for channel in range(used):
            limits = self.tree().limits[channel]
            if limits is not None and limits.ring is not None:
                limits.ring.mend()
            self.settle(channel, now_ns)
            self.settle_minimums(channel)
        for number in range(self.words[Header.USED_SERVERS]):
            self._repair_server(self.server_base(number))
        self.words[Header.REPAIRS] += 1
        self.wake_all()

    def _repair_slot(self, slot: int, used: int) -> None:
        words, paths = self.words, self.tree().paths
        start = self.cell_base(slot, 0)
        row = words[start : start + used * CELL_WORDS].tolist()
        base = self.slot_base(slot)
        words[base + Slot.TOTAL], words[base + Slot.DEFICIT] = sum(row[Cell.HELD :: CELL_WORDS]), 0
        self.settle_share(slot)
        for channel, held in enumerate(row[Cell.HELD :: CELL_WORDS]):
            if held:
                for node in paths[channel]:
                    words[self.channel_base(node) + Channel.TOTAL] += held
        for channel, failed in enumerate(row[Cell.FAILED :: CELL_WORDS]):
            if failed:
                words[self.channel_base(channel) + Channel.FAILED] += failed
        order = [channel for channel in self.demand_order(slot) if channel < used]
        for channel in order:
            self.put_demand(slot, channel, True)
        words[Header.STARTS_UNREAD] += words[base + Slot.STARTS] == STARTS_UNREAD
        waits = bool(order) and not words[base + Slot.GRANT]
        self.put_bit(self.layout.waiting, slot, waits)
        self.put_bit(self.layout.granted, slot, bool(words[base + Slot.GRANT]))
        self.put_bit(self.layout.unserved, slot, waits)  # not known: a turn too early does no harm

    def _repair_server(self, base: int) -> None:
        words = self.words
        words[base + Server.PROBER] = words[base + Server.LEASE_NS] = 0  # the next one to look probes
        if words[base + Server.STATE] == TargetState.DOWN:
            words[base + Server.FAILURES] = max(1, words[base + Server.FAILURES])
        else:
            words[base + Server.FAILURES] = words[base + Server.REASON_LENGTH] = 0
