"""The order of turns: whose job is next where no minimum and no weight of a channel decides.

Runs under the table's lock, as part of a Scheduler (grants.py), which says who enters. Knows no minimum (guarantees.py)
and writes nothing but the cursors and passes of the turns.

Turns. Round robin by slot number from a cursor, which never passes over a database that enters. So, of W databases
that enter a job in a channel at each of its decisions, each is picked once in W of them, at each level: a channel
that has room is reached within W decisions of the one above it, and a database within W grants in its own channel.

With weights, databases of equal weight form a class; classes are served by stride scheduling (each grant adds
1/(weight x members) to the class's pass, the smallest pass is next), and inside a class it is round robin. The
channel's clock is the pass that was served last: a class that was away rejoins there with its first grant, without
saved-up turns.
Source of stride scheduling: Waldspurger and Weihl, 1995, "Stride Scheduling".

With Fairness.PRIORITY there are no turns: the smallest order key of all entered jobs is next. A database that was
granted a permit a moment ago and has yet to take it may have a second job better than everybody else's,
known only to itself. If it could, granting stops until that database takes its permit, or until PICK_UP_NS passed.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..job import Key
from ..states import Fairness
from .core import TableCore
from .layout import Cell, Header, Slot
from .words import bitmap, bits

#: One turn of a class of weight 1 with one member.
_STRIDE = 1 << 24

_PRIORITY = Fairness.PRIORITY
#: How long others wait, with Fairness.PRIORITY, for a database to take its grant.
PICK_UP_NS = 50_000_000


class Grant(NamedTuple):
    """One permit: whose, and in which channel."""

    slot: int
    channel: int


class Demand(Protocol):
    """What the lock's holder itself wants, more recent than what it published in the table."""

    @property
    def wanted_channels(self) -> int:
        """Bitmap of the channels in which a job could start."""

    def best(self, candidates: int, /) -> int:
        """The channel of the best job among `candidates` (a bitmap that intersects `wanted_channels`)."""

    def key(self, channel: int, /) -> Key:
        """The order key of the best job in a channel."""


class Turns:
    """Chooses among those who enter, while the lock is held once. `slot` is the holder's own, -1 for the master."""

    def __init__(self, core: TableCore, fairness: Fairness, slot: int, demand: Demand, now_ns: int) -> None:
        self.core = core
        self._fairness = fairness
        self._slot = slot
        self._demand = demand
        self._own_bit = 1 << slot if slot >= 0 else 0
        self._tree = core.tree()
        self._now_ns = now_ns
        self._orders: dict[int, list[int]] = {}
        #: Databases that wait in some channels (a bitmap); nothing changes that meanwhile.
        self._asked: dict[int, int] = {}
        #: With several weights: the databases of each.
        self._classes = core.class_bitmaps() if core.words[Header.CLASSES] > 1 else None
        #: Channels in which somebody waits, and databases that wait: as of the first choice, later ones have fewer.
        self._active = self._others = 0
        #: Channels in which we want a permit and may take one.
        self._wanted = 0
        #: Permits are left for a database about to take its grant; when to look again, in case it does not.
        self.waits_until_ns: int | None = None

    def competing(self, candidates: int, others: int) -> int:
        """Of the databases `others`, and of us, those that wait in one of the candidate channels."""
        own = self._own_bit if self._wanted & candidates else 0
        if not others or not self._active & ~candidates:
            return others | own  # whoever waits does so in one of them
        found = self._asked.get(candidates)
        if found is None:
            found = self._asked[candidates] = self.core.waiting_slots(candidates, self._others)
        return found & others | own

    def best(self, slot: int, candidates: int) -> int:
        """The channel of a database's best startable job; -1 if there is none."""
        if slot == self._slot:
            return self._demand.best(candidates) if self._wanted & candidates else -1
        order = self._orders.get(slot)
        if order is None:
            order = self._orders[slot] = self.core.demand_order(slot)
        return next((channel for channel in order if candidates >> channel & 1), -1)

    def in_turn(self, candidates: int, others: int) -> Grant | None:
        """The next permit where no minimum and no weight decides: by turns, or by keys."""
        if self._fairness is _PRIORITY:
            return self._smallest_key(others, candidates)
        if not others and self._classes is None:
            return Grant(self._slot, self._demand.best(candidates)) if candidates & self._wanted else None
        competing = self.competing(candidates, others)
        return self._descend(competing, candidates) if competing else None

    def pick(self, node: int, candidates: int, others: int) -> Grant | None:
        """Whose job in or below `node` is next, by turns or by keys."""
        if self._fairness is _PRIORITY:
            return self._smallest_key(others, candidates)
        return self._turn(node, self.competing(candidates, others), candidates)

    def coming(self, candidates: int) -> int:
        """Bitmap of the databases that want something there and may be about to take what they were granted."""
        core = self.core
        granted = core.read_bitmap(core.layout.granted, core.slots) & ~self._own_bit
        if granted and core.words[Header.SHARES]:
            granted &= ~core.read_bitmap(core.layout.full, core.slots)
        return bitmap(slot for slot in bits(granted) if self._is_coming(slot) and self.best(slot, candidates) >= 0)

    def wait_for(self, coming: int) -> None:
        """Leave permits for these databases."""
        self.waits_until_ns = min(self._granted_ns(slot) for slot in bits(coming)) + PICK_UP_NS

    def _smallest_key(self, others: int, candidates: int) -> Grant | None:
        # A database with demand that does not wait was granted something: its next key is not below its old one.
        asked = self.core.waiting_slots(candidates) & ~self._own_bit
        own = self._own_bit if self._wanted & candidates else 0
        keyed = []
        if self.core.words[Header.SHARES]:
            asked &= ~self.core.read_bitmap(self.core.layout.full, self.core.slots)
        for slot in bits(asked | own):
            channel = self.best(slot, candidates)
            if channel >= 0 and (slot == self._slot or others >> slot & 1 or self._is_coming(slot)):
                keyed.append((self._key(slot, channel), slot, channel))
        if not keyed:
            return None
        _key, slot, channel = min(keyed)
        if slot == self._slot or others >> slot & 1:
            return Grant(slot, channel)
        if others & asked or own:
            self.waits_until_ns = self._granted_ns(slot) + PICK_UP_NS
        return None

    def _is_coming(self, slot: int) -> bool:
        """Whether a database may still take its grant in time."""
        return self._now_ns - self._granted_ns(slot) < PICK_UP_NS

    def _granted_ns(self, slot: int) -> int:
        return self.core.words[self.core.slot_base(slot) + Slot.GRANTED_NS]

    def _key(self, slot: int, channel: int) -> Key:
        if slot == self._slot:
            return self._demand.key(channel)
        start = self.core.cell_base(slot, channel) + Cell.KEY
        priority, created_us, job_id = self.core.words[start : start + 3].tolist()
        return priority, created_us, job_id

    def _descend(self, competing: int, candidates: int) -> Grant | None:
        node, rivals = 0, competing
        while True:
            found = self._turn(node, rivals, candidates)
            if found is None:
                return None
            if found.channel == node:
                return found
            node = self._step(node, found.channel)
            rivals = self.competing(candidates & self._tree.below[node], competing & ~self._own_bit)

    def _step(self, node: int, channel: int) -> int:
        """The child of `node` on the way down to `channel`."""
        path = self._tree.paths[channel]
        return path[path.index(node) - 1]

    def _turn(self, node: int, rivals: int, candidates: int) -> Grant | None:
        """Whose turn it is in `node`, among the rivals whose best job is in it or below it."""
        below = self._tree.below[node]
        while rivals:
            weight_class = self._class_in_turn(node, rivals) if self._classes else 0
            members = rivals & self._classes[weight_class] if self._classes else rivals
            slot = _next_bit(members or rivals, self.core.words[self.core.turn_word(node, weight_class)])
            channel = self.best(slot, candidates)
            if channel >= 0 and below >> channel & 1:
                self.core.words[self.core.turn_word(node, weight_class)] = slot + 1
                if self._classes:
                    self._count_turn(node, slot, weight_class, self._entering(node, members, candidates))
                return Grant(slot, channel)
            rivals &= ~(1 << slot)
        return None

    def _entering(self, node: int, members: int, candidates: int) -> int:
        """How many of these databases have their best job in `node` or below it."""
        if node == 0:
            return members.bit_count()
        below = self._tree.below[node]
        best = (self.best(slot, candidates) for slot in bits(members))
        return sum(channel >= 0 and below >> channel & 1 for channel in best)

    def _class_in_turn(self, node: int, rivals: int) -> int:
        core, words = self.core, self.core.words
        passes = [
            (words[core.turn_word(node, k) + 1], k) for k, members in enumerate(self._classes or ()) if members & rivals
        ]
        return min(passes, default=(0, 0))[1]

    def _count_turn(self, node: int, slot: int, weight_class: int, members: int) -> None:
        core, words = self.core, self.core.words
        weight = max(1, words[core.slot_base(slot) + Slot.WEIGHT])
        at, clock = core.turn_word(node, weight_class) + 1, core.clock_word(node)
        served = max(words[clock], words[at])
        words[clock] = served
        words[at] = served + _STRIDE // (weight * max(1, members))


def _next_bit(bitmap: int, cursor: int) -> int:
    """The first set bit at or after `cursor`, else the first one; `bitmap` is not empty."""
    rest = bitmap >> cursor << cursor or bitmap
    return (rest & -rest).bit_length() - 1
