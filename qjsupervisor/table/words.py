"""Access to the shared table's words: records, bitmaps, texts, the tree of channels. Layout: layout.py.

Knows no lock and no rule; the invariants are in derived.py.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ..errors import SemaphoreError
from ..rates import RING_WORDS, Ring, window_of
from .layout import CELL_WORDS, MAGIC, NAME_BYTES, WORD, Channel, Flag, Header, Layout, Server, bitmap_words


class ChannelLimits(NamedTuple):
    """What can close a channel; None is used for channels that nothing can close."""

    capacity: int
    flags: int
    throttle_ns: int
    #: Its last starts; None: no rate.
    ring: Ring | None
    #: It may be closed for a time and reopen by itself.
    paced: bool


class WeightClass(NamedTuple):
    """Branches of one weight; `passes_of` picks theirs out of the passes of all channels."""

    weight: int
    #: How far a start moves the pass of one of them.
    stride: int
    branches: Sequence[int]
    passes_of: Callable[[Sequence[int]], Sequence[int]]


class BranchRules(NamedTuple):
    """What a channel has as a branch of its parent."""

    minimum: int
    reserve: int
    weight: int


class Tree:
    """The channels as seen by one process; rebuilt when Header.GENERATION changes."""

    def __init__(
        self, names: list[str], parents: list[int], limits: list[ChannelLimits | None], rules: dict[int, BranchRules]
    ) -> None:
        """`rules`: of the channels that have some."""
        self.names = names
        self.limits = limits
        #: Whether any channel has a rate.
        self.has_rings = any(found is not None and found.ring is not None for found in limits)
        #: Records without a channel have no name.
        self.index = {name: i for i, name in enumerate(names) if name}
        #: From the channel itself up to root.
        self.paths: list[tuple[int, ...]] = []
        #: Bitmap of the channel and its subchannels.
        self.below = [1 << i for i in range(len(names))]
        #: Bitmap of the channels that have subchannels.
        self.inner = 0
        for i, parent in enumerate(parents):
            path = [i]
            while parent >= 0:
                path.append(parent)
                self.below[parent] |= 1 << i
                self.inner |= 1 << parent
                parent = parents[parent]
            self.paths.append(tuple(path))
        self._apply(rules, parents)

    def _apply(self, rules: dict[int, BranchRules], parents: list[int]) -> None:
        #: Whether any channel has a minimum.
        self.has_minimums = any(each.minimum for each in rules.values())
        #: Bitmap of the channels with weights directly below them.
        self.weighted = bitmap(parents[channel] for channel, each in rules.items() if each.weight)
        #: What each channel counts as beside others of its parent; 1 where nothing is given.
        self.weights = [max(1, rules[channel].weight) if channel in rules else 1 for channel in range(len(parents))]
        #: Channel with weights below it, and candidates there -> their branches by weight; see branches.py.
        self.weight_classes: dict[tuple[int, int], list[WeightClass]] = {}
        #: Channels with minimums below them, the deepest first.
        least = [channel for channel, each in rules.items() if each.minimum]
        self.guarantors = sorted({node for channel in least for node in self.paths[channel][1:]}, reverse=True)
        #: Bitmap of the channels in which a start counts for more than a capacity: those of either kind.
        self.ruled = self.weighted | bitmap(self.guarantors)
        #: Channels directly below each channel, where there are such rules.
        self.children: list[list[int]] = [[] for _ in parents] if rules else []
        for channel, parent in enumerate(parents if rules else ()):
            if parent >= 0:
                self.children[parent].append(channel)


class TableWords:
    """The mapping itself, created once by the master and used on both sides of every fork."""

    def __init__(self, slots: int, channels: int, servers: int = 0) -> None:
        if sys.byteorder != "little":
            raise SemaphoreError("the shared table needs a little-endian machine (x86-64, arm64, riscv64, ppc64le)")
        self.layout = layout = Layout(slots, channels, servers)
        self.slots = slots
        self.mapping = mmap.mmap(-1, (layout.total_bytes + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE)
        self.bytes = memoryview(self.mapping)
        #: Signed words; bitmaps go through `bits`.
        self.words = self.bytes.cast("q")
        self.bits = self.bytes.cast("Q")
        self._tree: Tree | None = None
        self._tree_generation = -1
        self.words[Header.SLOTS] = slots
        self.words[Header.CHANNELS] = channels
        self.words[Header.MAGIC] = MAGIC

    def channel_base(self, channel: int) -> int:
        """First word of a channel's record."""
        return self.layout.channel + channel * self.layout.channel_size

    def slot_base(self, slot: int) -> int:
        """First word of a slot's record."""
        return self.layout.slot + slot * self.layout.slot_size

    def cell_base(self, slot: int, channel: int) -> int:
        """First word of the cell of one database in one channel."""
        return self.layout.cell + (slot * self.layout.channels + channel) * CELL_WORDS

    def server_base(self, number: int) -> int:
        """First word of a server's record."""
        return self.layout.server + number * self.layout.server_size

    def server_name(self, base: int) -> str:
        """The name of the server whose record begins there; '' if it has none."""
        return self.text(base + self.layout.server_name, self.words[base + Server.NAME_LENGTH])

    def read_bitmap(self, word: int, bits: int) -> int:
        """The bitmap of `bits` bits starting at `word`, as one integer."""
        start = word * WORD
        return int.from_bytes(self.bytes[start : start + (bits + 63 >> 6) * WORD], "little")

    def put_bit(self, word: int, bit: int, value: bool) -> None:
        """Set or clear one bit of the bitmap starting at `word`; the lock is held."""
        at, mask = word + (bit >> 6), 1 << (bit & 63)
        old = self.bits[at]
        new = old | mask if value else old & ~mask
        if new != old:
            self.bits[at] = new

    def text(self, word: int, length: int) -> str:
        """The text of `length` bytes at `word`; never fails, since readers do not take the lock."""
        start = word * WORD
        return bytes(self.bytes[start : start + max(0, min(length, NAME_BYTES))]).decode("utf-8", "replace")

    def put_text(self, word: int, length_word: int, text: str) -> None:
        """Store `text`, truncated to fit, its length last."""
        data = text.encode("utf-8", "replace")[:NAME_BYTES]
        self.words[length_word] = 0
        self.bytes[word * WORD : word * WORD + len(data)] = data
        self.words[length_word] = len(data)

    def tree(self) -> Tree:
        """The channels, read again if one was added or changed."""
        generation = self.words[Header.GENERATION]
        if self._tree is None or generation != self._tree_generation:
            self._tree = self._read_tree()
            self._tree_generation = generation
        return self._tree

    def _read_tree(self) -> Tree:
        names: list[str] = []
        parents: list[int] = []
        limits: list[ChannelLimits | None] = []
        rules: dict[int, BranchRules] = {}
        for channel in range(self.words[Header.USED_CHANNELS]):
            base = self.channel_base(channel)
            names.append(self.text(base + self.layout.channel_name, self.words[base + Channel.NAME_LENGTH]))
            parents.append(self.words[base + Channel.PARENT])
            ring, throttle_ns = self.ring(channel), self.words[base + Channel.THROTTLE_NS]
            capacity, flags = self.words[base + Channel.CAPACITY], self.words[base + Channel.FLAGS]
            found = ChannelLimits(capacity, flags, throttle_ns, ring, bool(throttle_ns) or ring is not None)
            closable = found.flags & (Flag.PAUSED | Flag.RETIRED | Flag.SEQUENTIAL)
            limits.append(found if closable or found.capacity >= 0 or found.paced else None)
            least, reserve, weight = self.words[base + Channel.MIN : base + Channel.WEIGHT + 1].tolist()
            if least or weight:
                rules[channel] = BranchRules(least, reserve, weight)
        return Tree(names, parents, limits, rules)

    def ring(self, channel: int) -> Ring | None:
        """The last starts of a channel, in nanoseconds, or None if it has no rate."""
        base = self.channel_base(channel)
        starts, period_ns = self.words[base + Channel.RATE], self.words[base + Channel.RATE_NS]
        if not starts:
            return None
        window_ns = window_of(period_ns, 1_000_000_000)
        return Ring(self.words, self.layout.ring + channel * RING_WORDS, starts, window_ns)

    def turn_word(self, channel: int, weight_class: int) -> int:
        """First of the two words (cursor, pass) of one class in one channel."""
        return self.channel_base(channel) + self.layout.channel_turns + 2 * weight_class

    def clock_word(self, channel: int) -> int:
        """The word of a channel that holds the pass served last."""
        return self.channel_base(channel) + self.layout.channel_clock

    def class_bitmaps(self) -> list[int]:
        """For each class of weights in use, the bitmap of its databases."""
        words = bitmap_words(self.slots)
        used = self.words[Header.CLASSES]
        return [self.read_bitmap(self.layout.classes + k * words, self.slots) for k in range(used)]


def bits(word: int) -> Iterator[int]:
    """The numbers of the set bits of a bitmap, ascending."""
    while word:
        low = word & -word
        yield low.bit_length() - 1
        word ^= low


def bitmap(numbers: Iterable[int]) -> int:
    """The bitmap with these bits set."""
    found = 0
    for number in numbers:
        found |= 1 << number
    return found
