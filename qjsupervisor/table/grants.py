"""Chooses who gets the next permit. Runs under the table's lock, in the process that freed or wants a permit.

The Scheduler does not wait, wake or log; it returns one (slot, channel) at a time. `give` hands it over.
The rule. Each waiting database enters its best job that could start (the first channel of its demand order with
room on its whole path). From root down to that job's channel, each channel has its own turn among the databases
that enter a job in it or below it (turns.py): root's turn picks a database and so a branch; inside the branch its own
turn decides, and so on. With a single cursor at root, a database that has root's turn whenever a narrow subchannel is
free would keep that subchannel forever.

Shares. A database that holds its maximum does not enter. What minimums and weights say comes before any turn:
guarantees.py.

Cost: a few big-integer operations, and a look at the databases that are asked. Nothing walks over all channels unless
one with waiting jobs is closed, nor over all databases but for Fairness.PRIORITY, which compares the keys of those that
wait. Guarantees are asked only where somebody is below a minimum, or a weight is set. `scripts/exchange` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..job import Key
from . import rates
from .core import TableCore
from .guarantees import Guarantees
from .layout import Channel, Header, Slot
from .turns import Demand, Grant, Turns
from .words import bits


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


class Scheduler(Turns):
    """Chooses permits while the lock is held once: who enters, then who goes before the turns, then the turns."""

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

    def _candidates(self, others: int) -> int:
        """Channels with a waiting job and room on their whole path."""
        core, layout, tree = self.core, self.core.layout, self._tree
        closed = core.read_bitmap(layout.closed, layout.channels)
        if closed & 1:
            return 0
        # Where there are minimums, a database about to take a grant may want more below its own.
        asks = others or tree.has_minimums or core.words[Header.SHARES]
        active = core.read_bitmap(layout.active, layout.channels) if asks else 0
        if not self._others:
            self._others, self._active = others, active
        candidates = (active | self._wanted) & ~closed
        for node in bits(closed & tree.inner):
            candidates &= ~tree.below[node]
        return candidates


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
