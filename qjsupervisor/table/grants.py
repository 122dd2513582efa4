"""Chooses who gets the next permit. Runs under the table's lock, in the process that freed or wants a permit.

It does not wait, wake or log; it returns one (slot, channel) at a time and moves the cursors.
The rule. Each waiting database enters its best job that could start (the first channel of its demand order with
room on its whole path). From root down to that job's channel, each channel has its own turn among the databases
that enter a job in it or below it: root's turn picks a database and so a branch; inside the branch its own turn
decides, and so on. With a single cursor at root, a database that has root's turn whenever a narrow subchannel is
free would keep that subchannel forever.

Turns. Round robin by slot number from a cursor, which never passes over a database that enters. So, of W databases
that enter a job in a channel at each of its decisions, each is picked once in W of them, at each level: a channel
that has room is reached within W decisions of the one above it, and a database within W grants in its own channel.

With weights, databases of equal weight form a class; classes are served by stride scheduling (each grant adds
1/(weight x members) to the class's pass, the smallest pass is next), and inside a class it is round robin. The
channel's clock is the pass that was served last: a class that was away rejoins there with its first grant, without
saved-up turns.
Source of stride scheduling: Waldspurger and Weihl, 1995, "Stride Scheduling".

Shares. A database that holds its maximum does not enter. What minimums and weights say comes before any turn:
guarantees.py.

With Fairness.PRIORITY there are no turns: the smallest order key of all entered jobs is next. A database that was
granted a permit a moment ago and has yet to take it may have a second job better than everybody else's,
known only to itself. If it could, granting stops until that database takes its permit, or until PICK_UP_NS passed.

Cost: a few big-integer operations, and a look at the databases that are asked. Nothing walks over all channels unless
one with waiting jobs is closed, nor over all databases but for Fairness.PRIORITY, which compares the keys of those that
wait. Guarantees are asked only where somebody is below a minimum, or a weight is set. `scripts/exchange` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..job import Key
from ..states import Fairness
from . import rates
from .core import TableCore
from .guarantees import Grant, Guarantees
from .layout import Cell, Channel, Header, Slot
from .words import bitmap, bits

#: One turn of a class of weight 1 with one member.
_STRIDE = 1 << 24

_PRIORITY = Fairness.PRIORITY
#: How long others wait, with Fairness.PRIORITY, for a database to take its grant.
PICK_UP_NS = 50_000_000


class Demand(Protocol):
    """What the lock's holder itself wants, more recent than what it published in the table."""

    @property
    def wanted_channels(self) -> int:
        """Bitmap of the channels in which a job could start."""

    def best(self, candidates: int, /) -> int:
        """The channel of the best job among `candidates` (a bitmap that intersects `wanted_channels`)."""

    def key(self, channel: int, /) -> Key:
        """The order key of the best job in a channel."""


class Source(Demand, Protocol):
    """The worker's queue, queried while the table's lock is held: it answers at once, without I/O."""

    #: Number of jobs holding a permit, by shared channel (absolute numbers).
    held: dict[int, int]
    #: Failed jobs by shared channel.
    failed: dict[int, int]
    #: Channels in which one of these numbers changed; emptied by each exchange.
    changed: set[int]
    #: Channels whose best job changed; emptied by each exchange.
    new_heads: set[int]
    #: Channels of jobs that were taken but are not sent after all, one entry per job; emptied by each exchange. Holds
    #: at least those in channels with a rate.
    withdrawn: list[int]
    #: WorkerSlot.tree_generation as of which it knows channels; 0: it only uses root.
    tree_generation: int

    def take(self, channel: int) -> None:
        """Start the best job of a channel with a permit (counted in `held`, but not as `changed`)."""

    def order(self) -> Sequence[int]:
        """The channels with demand, best job first."""


class NoDemand:
    """The demand of a process that only grants to others: the master, or a worker that holds nothing (`Nothing`)."""

    wanted_channels = 0

    def best(self, _candidates: int) -> int:
        raise AssertionError("asked for a channel without a demand")

    def key(self, _channel: int) -> Key:
        raise AssertionError("asked for a key without a demand")


class Nothing(NoDemand):
    """The Source of a worker without a queue: it holds nothing."""

    tree_generation = 0

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.failed: dict[int, int] = {}
        self.changed: set[int] = set()
        self.new_heads: set[int] = set()
        self.withdrawn: list[int] = []

    def take(self, _channel: int) -> None:
        raise AssertionError("given a permit without a demand")

    def order(self) -> Sequence[int]:
        return ()


class Scheduler:
    """Chooses permits while the lock is held once. `slot` is the holder's own, -1 for the master."""

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

    def next(self) -> Grant | None:
        """The next permit, or None if no waiting database could start a job. Moves the cursors of its path."""
        core, layout = self.core, self.core.layout
        others = core.read_bitmap(layout.waiting, layout.slots) & ~self._own_bit
        self._wanted = self._demand.wanted_channels
        if core.words[Header.SHARES]:
            full = core.read_bitmap(layout.full, layout.slots)
            others &= ~full
            self._wanted = 0 if full & self._own_bit else self._wanted
        if not others and not self._wanted:
            return None
        candidates = self._candidates(others)
        if not candidates:
            return None
        if self._has_claims(candidates, others):
            return Guarantees(self).next(candidates, others)
        return self.in_turn(candidates, others)

    def _has_claims(self, candidates: int, others: int) -> bool:
        """Whether somebody may go before the order of turns."""
        tree = self._tree
        if tree.weighted or (tree.has_minimums and self._has_short(candidates)):
            return True
        return bool(self.core.words[Header.SHARES]) and self._has_needy(others)

    def _has_short(self, candidates: int) -> bool:
        """Whether a channel below its minimum has candidates, or permits are kept for one."""
        core = self.core
        if core.words[core.channel_base(0) + Channel.KEPT]:
            return True
        short = core.read_bitmap(core.layout.short, core.layout.channels)
        return bool(short & (candidates | self._tree.inner))

    def _has_needy(self, others: int) -> bool:
        """Whether a database below its minimum wants something, or permits are kept for one."""
        core, layout = self.core, self.core.layout
        if core.words[Header.RESERVED]:
            return True
        needy = core.read_bitmap(layout.needy, layout.slots)
        own = self._own_bit if self._wanted else 0
        return bool(needy & (others | own | core.read_bitmap(layout.granted, layout.slots)))

    def in_turn(self, candidates: int, others: int) -> Grant | None:
        """The next permit where no minimum and no weight decides: by turns, or by keys."""
        if self._fairness is _PRIORITY:
            return self._smallest_key(others, candidates)
        if not others and self._classes is None:
            return Grant(self._slot, self._demand.best(candidates)) if candidates & self._wanted else None
        competing = self.competing(candidates, others)
        return self._descend(competing, candidates) if competing else None

    def _candidates(self, others: int) -> int:
        """Channels with a waiting job and room on their whole path."""
        core, layout, tree = self.core, self.core.layout, self._tree
        closed = core.read_bitmap(layout.closed, layout.channels)
        if closed & 1:
            return 0
        active = core.read_bitmap(layout.active, layout.channels) if others else 0
        if not self._others:
            self._others, self._active = others, active
        candidates = (active | self._wanted) & ~closed
        for node in bits(closed & tree.inner):
            candidates &= ~tree.below[node]
        return candidates

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

    def _granted_ns(self, slot: int) -> int:
        return self.core.words[self.core.slot_base(slot) + Slot.GRANTED_NS]

    def _is_coming(self, slot: int) -> bool:
        """Whether a database may still take its grant in time."""
        return self._now_ns - self._granted_ns(slot) < PICK_UP_NS

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


def give(core: TableCore, grant: Grant, now_ns: int) -> None:
    """Grant to another process: the store to HELD transfers the permit; then the process is woken.

    If we die in between, a throttle or rate counted without a start only costs time, whereas a GRANT written first
    could let two jobs start. A HELD without a GRANT is taken back by its owner when Header.REPAIRS changes.
    """
    base = core.slot_base(grant.slot)
    rates.count_start(core, grant.channel, now_ns)
    core.words[base + Slot.GRANTED_NS] = now_ns
    core.add_held(grant.slot, grant.channel, 1, now_ns)
    core.put_grant(grant.slot, grant.channel)
    core.put_bit(core.layout.waiting, grant.slot, False)
    core.put_bit(core.layout.unserved, grant.slot, False)
    core.words[base + Slot.WAITING_SINCE_NS] = 0
    core.wake(grant.slot)


def grant_all(core: TableCore, choice: Scheduler, now_ns: int) -> None:
    """Grant to others while any could start; for a lock holder that wants nothing itself."""
    while (grant := choice.next()) is not None:
        give(core, grant, now_ns)


def _next_bit(bitmap: int, cursor: int) -> int:
    """The first set bit at or after `cursor`, else the first one; `bitmap` is not empty."""
    rest = bitmap >> cursor << cursor or bitmap
    return (rest & -rest).bit_length() - 1
