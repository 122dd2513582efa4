"""The shared table's words, its lock, and what must be true of them. Layout: layout.py.

Decides nothing: who gets a permit is grants.py's business; what a worker or the master may do is in semaphore.py.

Invariants, whenever the lock is free and Header.DIRTY is 0
    total(c)   = sum of HELD over all databases and over c and all channels below it
    failed(c)  = sum of FAILED over all databases, in c alone
    closed(c)  = paused or retired, or total(c) >= capacity(c), or sequential and failed(c) > 0, or throttled
    waiting(s) = s has wishes and no grant that it did not take yet
    HELD(s, c) = what the worker of s knows to run there, + 1 if its untaken grant is for c
A death of the lock's holder between any two stores breaks all but the truth (HELD, FAILED, the wish orders). Whoever
takes the lock next calls `_repair`, before it looks at anything else: sums and bitmaps are computed afresh,
and Header.REPAIRS tells every worker to write its own HELD words again, which puts the last equation right.
"""

from __future__ import annotations

import mmap
import os
import signal
import time
from dataclasses import dataclass

from .layout import (
    CELL_WORDS,
    MAGIC,
    MAX_CLASSES,
    NAME_BYTES,
    WORD,
    Cell,
    Channel,
    Flag,
    Header,
    Layout,
    Slot,
    bitmap_words,
)
from .mutex import Acquired, RobustMutex

#: How long a worker waits for the lock before it looks at the holder.
LOCK_SLICE_S = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """What can close a channel; channels that nothing can close have None instead."""

    capacity: int
    flags: int
    throttle_ns: int


class Tree:
    """The channels as one process sees them; made anew when Header.GENERATION moves."""

    def __init__(self, names: list[str], parents: list[int], limits: list[Limits | None]) -> None:
        self.names = names
        self.limits = limits
        self.index = {name: i for i, name in enumerate(names)}
        #: From the channel itself up to the root.
        self.paths: list[tuple[int, ...]] = []
        #: Bitmap of the channel and all below it.
        self.below = [1 << i for i in range(len(names))]
        #: Bitmap of the channels that have others below them.
        self.inner = 0
        for i, parent in enumerate(parents):
            path = [i]
            while parent >= 0:
                path.append(parent)
                self.below[parent] |= 1 << i
                self.inner |= 1 << parent
                parent = parents[parent]
            self.paths.append(tuple(path))


class TableCore:
    """Words, bitmaps and lock of the shared table; made once by the master, used on both sides of every fork."""

    def __init__(self, slots: int, channels: int) -> None:
        self.layout = layout = Layout(slots, channels)
        self.slots = slots
        self.mapping = mmap.mmap(-1, (layout.total_bytes + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE)
        self.bytes = memoryview(self.mapping)
        #: Signed words; bitmaps go through `bits`.
        self.words = self.bytes.cast("q")
        self.bits = self.bytes.cast("Q")
        self.mutex = RobustMutex(self.mapping, layout.mutex * WORD)
        #: One eventfd a slot: written under the lock by whoever granted something to that database.
        self.wakeups = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(slots)]
        self._tree: Tree | None = None
        self._tree_generation = -1
        self._suspect: tuple[int, int] | None = None
        self.words[Header.SLOTS] = slots
        self.words[Header.CHANNELS] = channels
        self.words[Header.MAGIC] = MAGIC

    # -- records and bitmaps ---------------------------------------------------------------------------

    def channel_base(self, channel: int) -> int:
        """First word of a channel's record."""
        return self.layout.channel + channel * self.layout.channel_size

    def slot_base(self, slot: int) -> int:
        """First word of a slot's record."""
        return self.layout.slot + slot * self.layout.slot_size

    def cell_base(self, slot: int, channel: int) -> int:
        """First word of the cell of one database in one channel."""
        return self.layout.cell + (slot * self.layout.channels + channel) * CELL_WORDS

    def read_bitmap(self, word: int, bits: int) -> int:
        """The bitmap of `bits` bits that starts at `word`, as one integer."""
        start = word * WORD
        return int.from_bytes(self.bytes[start : start + bitmap_words(bits) * WORD], "little")

    def put_bit(self, word: int, bit: int, value: bool) -> None:
        """Set or clear one bit of the bitmap that starts at `word`; the lock is held."""
        at, mask = word + (bit >> 6), 1 << (bit & 63)
        old = self.bits[at]
        new = old | mask if value else old & ~mask
        if new != old:
            self.bits[at] = new

    def text(self, word: int, length: int) -> str:
        """Text of `length` bytes at `word`, never failing: readers take it without the lock."""
        start = word * WORD
        return bytes(self.bytes[start : start + max(0, min(length, NAME_BYTES))]).decode("utf-8", "replace")

    def put_text(self, word: int, length_word: int, text: str) -> None:
        """Store `text`, cut to what fits, its length last."""
        data = text.encode("utf-8", "replace")[:NAME_BYTES]
        self.words[length_word] = 0
        self.bytes[word * WORD : word * WORD + len(data)] = data
        self.words[length_word] = len(data)

    def tree(self) -> Tree:
        """The channels, read again when one was added or changed."""
        generation = self.words[Header.GENERATION]
        if self._tree is None or generation != self._tree_generation:
            self._tree = self._read_tree()
            self._tree_generation = generation
        return self._tree

    def _read_tree(self) -> Tree:
        names: list[str] = []
        parents: list[int] = []
        limits: list[Limits | None] = []
        for channel in range(self.words[Header.USED_CHANNELS]):
            base = self.channel_base(channel)
            names.append(self.text(base + self.layout.channel_name, self.words[base + Channel.NAME_LENGTH]))
            parents.append(self.words[base + Channel.PARENT])
            found = Limits(*(self.words[base + w] for w in (Channel.CAPACITY, Channel.FLAGS, Channel.THROTTLE_NS)))
            closable = found.flags & (Flag.PAUSED | Flag.RETIRED | Flag.SEQUENTIAL)
            limits.append(found if closable or found.capacity >= 0 or found.throttle_ns else None)
        return Tree(names, parents, limits)

    # -- the lock ----------------------------------------------------------------------------------------

    def enter(self, now_ns: int) -> bool:
        """Try to take the lock, without waiting; what a dead holder left is put right first."""
        return self._entered(self.mutex.acquire(0), now_ns)

    def enter_waiting(self, slot: int, now_ns: int) -> None:
        """Take the lock; workers only. Stamps the slot's heartbeat while it waits, and ends a stopped holder.

        A holder is in here for well under a millisecond. One that is stopped (SIGSTOP, a debugger) would hold up every
        database, so after a slice of waiting it is killed: its database is read again by its successor.
        """
        heartbeat = self.slot_base(slot) + Slot.HEARTBEAT_NS
        while not self._entered(self.mutex.acquire(LOCK_SLICE_S), now_ns):
            self.words[heartbeat] = now_ns = time.monotonic_ns()
            stopped = self._stopped_holder()
            if stopped:
                os.kill(stopped, signal.SIGKILL)

    def _entered(self, got: Acquired, now_ns: int) -> bool:
        if got is Acquired.NO:
            return False
        words = self.words
        words[Header.SEQUENCE] += 1
        if got is Acquired.ORPHANED or words[Header.DIRTY]:
            self._repair(now_ns)
        words[Header.DIRTY] = 1
        return True

    def leave(self) -> None:
        """Give the lock back; everything is consistent."""
        self.words[Header.DIRTY] = 0
        self.mutex.release()

    def abandon(self) -> None:
        """Give the lock back after a failure inside: the mark stays, so the next one repairs."""
        self.mutex.release()

    def _stopped_holder(self) -> int:
        """Process id of a holder that stood still since the last look and is stopped; else 0."""
        look = (self.mutex.owner(), self.words[Header.SEQUENCE])
        same, self._suspect = look == self._suspect, look
        # The master is not ours to end: it goes on when whoever stopped it lets it.
        mortal = look[0] and look[0] != os.getppid()
        return look[0] if same and mortal and is_stopped(look[0]) else 0

    # -- permits -----------------------------------------------------------------------------------------

    def settle(self, channel: int, now_ns: int) -> None:
        """Write whether a channel has room; after anything that can change it."""
        limits = self.tree().limits[channel]
        if limits is None:
            return
        words, base = self.words, self.channel_base(channel)
        throttled = bool(limits.throttle_ns) and words[base + Channel.NOT_BEFORE_NS] > now_ns
        closed = (
            throttled
            or bool(limits.flags & (Flag.PAUSED | Flag.RETIRED))
            or 0 <= limits.capacity <= words[base + Channel.TOTAL]
            or bool(limits.flags & Flag.SEQUENTIAL and words[base + Channel.FAILED])
        )
        self.put_bit(self.layout.closed, channel, closed)
        if limits.throttle_ns:
            self.put_bit(self.layout.throttled, channel, throttled)

    def add_held(self, slot: int, channel: int, change: int, now_ns: int) -> None:
        """Change the permits that a database holds in a channel; the one store to HELD is what counts."""
        words = self.words
        words[self.cell_base(slot, channel) + Cell.HELD] += change
        for node in self.tree().paths[channel]:
            words[self.channel_base(node) + Channel.TOTAL] += change
            self.settle(node, now_ns)

    def not_before_ns(self, channel: int) -> int:
        """The monotonic moment before which a throttled channel starts nothing."""
        return self.words[self.channel_base(channel) + Channel.NOT_BEFORE_NS]

    def start_throttles(self, channel: int, now_ns: int) -> None:
        """A job was just let through a channel: its path's throttles begin to count."""
        tree = self.tree()
        for node in tree.paths[channel]:
            limits = tree.limits[node]
            if limits is not None and limits.throttle_ns:
                self.words[self.channel_base(node) + Channel.NOT_BEFORE_NS] = now_ns + limits.throttle_ns
                self.settle(node, now_ns)

    def set_failed(self, slot: int, channel: int, failed: int, now_ns: int) -> None:
        """Write how many jobs of a database are failed directly in a channel."""
        cell = self.cell_base(slot, channel) + Cell.FAILED
        change = failed - self.words[cell]
        if change:
            self.words[cell] = failed
            self.words[self.channel_base(channel) + Channel.FAILED] += change
            self.settle(channel, now_ns)

    def is_throttled(self) -> bool:
        """Whether any channel is closed by its throttle; without the lock."""
        return bool(self.read_bitmap(self.layout.throttled, self.layout.channels))

    def open_throttled(self, now_ns: int) -> None:
        """Reopen the channels whose throttle is over."""
        throttled = self.read_bitmap(self.layout.throttled, self.layout.channels)
        while throttled:
            low = throttled & -throttled
            throttled ^= low
            self.settle(low.bit_length() - 1, now_ns)

    def drop_wishes(self, slot: int) -> None:
        """A database waits for nothing any more."""
        base = self.slot_base(slot)
        for channel in range(self.words[Header.USED_CHANNELS]):
            self.put_wish(slot, channel, False)
        self.words[base + Slot.WISHES] = 0
        self.words[base + Slot.WAITING_SINCE_NS] = 0
        self.put_bit(self.layout.waiting, slot, False)

    def put_wish(self, slot: int, channel: int, value: bool) -> None:
        """Note whether a database waits in a channel."""
        wishers = self.channel_base(channel) + self.layout.channel_wishers
        self.put_bit(wishers, slot, value)
        self.put_bit(self.layout.active, channel, bool(self.read_bitmap(wishers, self.slots)))

    def wish_order(self, slot: int) -> list[int]:
        """The channels in which a database waits, its best job first."""
        base = self.slot_base(slot)
        start = (base + self.layout.slot_order) * WORD
        count = max(0, min(self.words[base + Slot.WISHES], self.layout.channels))
        return self.bytes[start : start + 2 * count].cast("H").tolist()

    def wake(self, slot: int) -> None:
        """Wake the worker of a slot, now or as soon as it looks."""
        os.eventfd_write(self.wakeups[slot], 1)

    def wake_all(self) -> None:
        """Wake every worker."""
        for slot in range(self.slots):
            if self.words[self.slot_base(slot) + Slot.PID]:
                self.wake(slot)

    # -- repair ------------------------------------------------------------------------------------------

    def _repair(self, now_ns: int) -> None:
        self.words[Header.DIRTY] = 1
        self._tree = None
        used = self.words[Header.USED_CHANNELS]
        for word in range(self.layout.active, self.layout.classes):
            self.bits[word] = 0
        for channel in range(used):
            base = self.channel_base(channel)
            self.words[base + Channel.TOTAL] = self.words[base + Channel.FAILED] = 0
            for word in range(base + self.layout.channel_wishers, base + self.layout.channel_size):
                self.bits[word] = 0
        for slot in range(self.slots):
            if self.words[self.slot_base(slot) + Slot.NAME_LENGTH]:
                self._repair_slot(slot, used)
        for channel in range(used):
            self.settle(channel, now_ns)
        self.words[Header.REPAIRS] += 1
        self.wake_all()

    def _repair_slot(self, slot: int, used: int) -> None:
        words, paths = self.words, self.tree().paths
        start = self.cell_base(slot, 0)
        row = words[start : start + used * CELL_WORDS].tolist()
        for channel, held in enumerate(row[Cell.HELD :: CELL_WORDS]):
            if held:
                for node in paths[channel]:
                    words[self.channel_base(node) + Channel.TOTAL] += held
        for channel, failed in enumerate(row[Cell.FAILED :: CELL_WORDS]):
            if failed:
                words[self.channel_base(channel) + Channel.FAILED] += failed
        order = [channel for channel in self.wish_order(slot) if channel < used]
        for channel in order:
            self.put_wish(slot, channel, True)
        base = self.slot_base(slot)
        self.put_bit(self.layout.waiting, slot, bool(order) and not words[base + Slot.GRANT])

    # -- turns (grants.py reads and writes them) -----------------------------------------------------------

    def turn_word(self, channel: int, weight_class: int) -> int:
        """First of the two words (cursor, pass) of one class in one channel."""
        return self.channel_base(channel) + self.layout.channel_turns + 2 * weight_class

    def class_bitmaps(self) -> list[int]:
        """Per class of weights, the databases that have it."""
        words = bitmap_words(self.slots)
        return [self.read_bitmap(self.layout.classes + k * words, self.slots) for k in range(MAX_CLASSES)]


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped (by a signal or a debugger); a process that is gone is not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            state = stat.read().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state in (b"T", b"t")
