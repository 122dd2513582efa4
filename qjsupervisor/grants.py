"""Who gets the next permit. Runs under the table's lock, in whichever process freed or wants one.

It must not wait, wake or log; it answers with one (slot, channel) at a time and moves the cursors.

The rule. Each waiting database enters its best job that could start (the first channel of its wish order that has
room on its whole path). From the root down to that job's channel, each channel has a turn of its own among
the databases that enter a job in it or below it: the root's turn picks a database, and so a branch; inside the
branch the branch's own turn decides, and so on. One cursor at the root alone would let a database that
happens to have the root's turn whenever a narrow subchannel is free take that subchannel for ever.

Turns. Round robin by slot number from a cursor. With weights, databases of equal weight form a class; classes
are served by stride scheduling (each grant adds 1/(weight x members) to the class's pass, the smallest pass is
next), and inside a class it is round robin. A class that was away rejoins at the level of the others.
Source of stride scheduling: Waldspurger and Weihl, 1995, "Stride Scheduling".

With Fairness.PRIORITY there are no turns: the smallest order key of all entered jobs is next.

Cost: a few big-integer operations for the waiting channels, and a look at the databases that are asked; nothing walks
over all databases, but for Fairness.PRIORITY, which compares the keys of those that wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from .layout import Cell, Slot
from .states import Fairness
from .tablecore import TableCore

#: (priority, date_created in microseconds, id): smaller first.
Key = tuple[int, int, int]

#: One turn of a class of weight 1 with one member.
_STRIDE = 1 << 32


class Grant(NamedTuple):
    """One permit: whose, and in which channel."""

    slot: int
    channel: int


class Wishes(Protocol):
    """What the process that holds the lock wants itself; fresher than what it published in the table."""

    @property
    def mask(self) -> int:
        """Bitmap of the channels in which it has a job that could start."""

    def best(self, candidates: int, /) -> int:
        """The channel of its best job among `candidates` (a bitmap that meets `mask`)."""

    def key(self, channel: int, /) -> Key:
        """The order key of its best job in a channel."""


class NoWishes:
    """Somebody who only grants to others (the master)."""

    mask = 0

    def best(self, _candidates: int) -> int:
        raise AssertionError("asked for a channel without a wish")

    def key(self, _channel: int) -> Key:
        raise AssertionError("asked for a key without a wish")


class Round:
    """The choice of permits during one holding of the lock. `slot` is the holder's own, -1 for the master."""

    def __init__(self, core: TableCore, fairness: Fairness, slot: int, wishes: Wishes) -> None:
        self._core = core
        self._fairness = fairness
        self._slot = slot
        self._wishes = wishes
        self._own_bit = 1 << slot if slot >= 0 else 0
        self._tree = core.tree()
        self._orders: dict[int, list[int]] = {}

    def next(self) -> Grant | None:
        """Who gets the next permit, or None when nobody who waits could start. Moves the cursors of its path."""
        core, layout = self._core, self._core.layout
        others = core.read_bitmap(layout.waiting, layout.slots) & ~self._own_bit
        if not others and not self._wishes.mask:
            return None
        candidates = self._candidates(others)
        if not candidates:
            return None
        if not others:
            return Grant(self._slot, self._wishes.best(candidates)) if candidates & self._wishes.mask else None
        entrants = self._entrants(candidates, others)
        if not entrants:
            return None
        if self._fairness is Fairness.PRIORITY:
            return self._smallest_key(entrants, candidates)
        return self._descend(entrants, candidates)

    def _candidates(self, others: int) -> int:
        """Channels with a waiting job and room on the whole path."""
        core, layout, tree = self._core, self._core.layout, self._tree
        closed = core.read_bitmap(layout.closed, layout.channels)
        if closed & 1:
            return 0
        waiting = core.read_bitmap(layout.active, layout.channels) if others else 0
        candidates = (waiting | self._wishes.mask) & ~closed
        for node in bits(closed & tree.inner):
            candidates &= ~tree.below[node]
        return candidates

    def _entrants(self, candidates: int, others: int) -> int:
        """Databases that wait in one of the candidate channels."""
        core, layout = self._core, self._core.layout
        found = self._own_bit if self._wishes.mask & candidates else 0
        everybody = others | found
        for channel in bits(candidates):
            if found == everybody:
                break
            wishers = core.channel_base(channel) + layout.channel_wishers
            found |= core.read_bitmap(wishers, layout.slots) & others
        return found

    def _best(self, slot: int, candidates: int) -> int:
        """The channel of a database's best job that could start; -1 if there is none."""
        if slot == self._slot:
            return self._wishes.best(candidates) if self._wishes.mask & candidates else -1
        order = self._orders.get(slot)
        if order is None:
            order = self._orders[slot] = self._core.wish_order(slot)
        return next((channel for channel in order if candidates >> channel & 1), -1)

    def _smallest_key(self, entrants: int, candidates: int) -> Grant | None:
        entered = ((slot, self._best(slot, candidates)) for slot in bits(entrants))
        keyed = [(self._key(slot, channel), slot, channel) for slot, channel in entered if channel >= 0]
        return Grant(*min(keyed)[1:]) if keyed else None

    def _key(self, slot: int, channel: int) -> Key:
        if slot == self._slot:
            return self._wishes.key(channel)
        start = self._core.cell_base(slot, channel) + Cell.KEY
        priority, created_us, job_id = self._core.words[start : start + 3].tolist()
        return priority, created_us, job_id

    def _descend(self, entrants: int, candidates: int) -> Grant | None:
        node, rivals = 0, entrants
        while True:
            found = self._turn(node, rivals, candidates)
            if found is None:
                return None
            if found.channel == node:
                return found
            node = self._step(node, found.channel)
            rivals = self._entrants(candidates & self._tree.below[node], entrants & ~self._own_bit)

    def _step(self, node: int, channel: int) -> int:
        """The child of `node` on the way down to `channel`."""
        path = self._tree.paths[channel]
        return path[path.index(node) - 1]

    def _turn(self, node: int, rivals: int, candidates: int) -> Grant | None:
        """Whose turn it is in `node`, among the rivals whose best job lies in it or below it."""
        below = self._tree.below[node]
        while rivals:
            slot, weight_class = self._first_in_turn(node, rivals)
            channel = self._best(slot, candidates)
            if channel >= 0 and below >> channel & 1:
                self._count_turn(node, slot, weight_class, rivals)
                return Grant(slot, channel)
            rivals &= ~(1 << slot)
        return None

    def _first_in_turn(self, node: int, rivals: int) -> tuple[int, int]:
        core, words = self._core, self._core.words
        classes = core.class_bitmaps()
        best_class, best_pass = 0, -1
        for weight_class, members in enumerate(classes):
            if members & rivals:
                its_pass = words[core.turn_word(node, weight_class) + 1]
                if best_pass < 0 or its_pass < best_pass:
                    best_class, best_pass = weight_class, its_pass
        cursor = words[core.turn_word(node, best_class)]
        return _next_bit(rivals & classes[best_class] or rivals, cursor), best_class

    def _count_turn(self, node: int, slot: int, weight_class: int, rivals: int) -> None:
        core, words = self._core, self._core.words
        at = core.turn_word(node, weight_class)
        words[at] = slot + 1
        classes = core.class_bitmaps()
        rivalling = [k for k, members in enumerate(classes) if members & rivals]
        if len(rivalling) < 2:
            return
        members = (classes[weight_class] & rivals).bit_count()
        weight = max(1, words[core.slot_base(slot) + Slot.WEIGHT])
        served = words[at + 1]
        words[at + 1] = served + _STRIDE // (weight * members)
        # A class that was away must not have saved up turns: nobody lags behind the one just served.
        for other in rivalling:
            other_pass = core.turn_word(node, other) + 1
            words[other_pass] = max(words[other_pass], served)


def give(core: TableCore, grant: Grant, now_ns: int) -> None:
    """Grant to another process: the permit is its own from the first store on; then it is woken."""
    base = core.slot_base(grant.slot)
    core.add_held(grant.slot, grant.channel, 1, now_ns)
    core.words[base + Slot.GRANT] = grant.channel + 1
    core.put_bit(core.layout.waiting, grant.slot, False)
    core.words[base + Slot.WAITING_SINCE_NS] = 0
    core.start_throttles(grant.channel, now_ns)
    core.wake(grant.slot)


def grant_all(core: TableCore, choice: Round, now_ns: int) -> None:
    """Grant to others as long as somebody could start; for a holder of the lock that wants nothing itself."""
    while (grant := choice.next()) is not None:
        give(core, grant, now_ns)


def bits(bitmap: int) -> Iterator[int]:
    """The numbers of the set bits, ascending."""
    while bitmap:
        low = bitmap & -bitmap
        yield low.bit_length() - 1
        bitmap ^= low


def _next_bit(bitmap: int, cursor: int) -> int:
    """The first set bit at or after `cursor`, else the first of all; `bitmap` is not empty."""
    rest = bitmap >> cursor << cursor or bitmap
    return (rest & -rest).bit_length() - 1
