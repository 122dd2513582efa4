"""The shared semaphore table: permits for all databases, as the master and the workers use it.

Layout: layout.py. Invariants: derived.py. grants.py chooses who is next. There are two sides:
`SemaphoreTable` is the master's (and, for reading, everybody's), `WorkerSlot` a worker's.
A worker makes one call, `WorkerSlot.exchange`: it reports what ended and what it wants, takes what it may have, and at
the same time grants permits to others, each by one store to the grantee's HELD word. From that store on the permit
belongs to the grantee. At most one permit per database is outstanding, so a stopped worker withholds at most one from
the others, besides those of its running jobs. Between two exchanges a permit may pass from a finished job to the next
one of the same database and channel (`WorkerSlot.may_reuse_permit`), unseen by the table.

Who repairs what, when a process dies
    a worker, outside the lock     its permits stay (its jobs run in Odoo); the master drops its demand and an untaken
                                   grant (`try_after_death`); its successor writes what its database says
                                   (`WorkerSlot`, first exchange)
    a worker, inside the lock      as above, and the next one to lock repairs what is derived (TableCore)
    a worker, and its database
    cannot be read again           its successor (`WorkerSlot.let_go`), or the master where there is none
                                   (`try_give_up`), gives its permits up: at once where another runner leads,
                                   otherwise after a bounded time
    a worker stopped in the lock   continued by the first process that waits (TableCore.enter_waiting), killed if that
                                   does not help; or killed by the master, within a second
    the master, stopped in it      continued, likewise; never killed
    the master                     its workers see the end of their pipes and stop; the table is gone with them

The master never waits for the lock: its `try_...` methods return False when it is taken, to be called again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..channelspec import ChannelSpec, Share, complete_tree, parent_name
from ..errors import SemaphoreError
from ..states import Fairness
from . import kept_starts, rates
from .channels import SPARE_CHANNELS, add_channel, forgotten, places, retire, vacant, vacate, write_channel
from .core import TableCore
from .dead_workers import release
from .grants import NoDemand, Scheduler, grant_all
from .layout import MAX_CLASSES, SLOT_WORDS, Header, Slot, bitmap_words
from .slot import WorkerSlot
from .statistics import clear_outcomes
from .stuck_holder import is_stopped
from .views import ChannelView, Holder, ServerView, SlotView, TableReader

__all__ = ["ChannelView", "Holder", "SemaphoreTable", "ServerView", "SlotView", "WorkerSlot"]

#: Records for servers (Odoo, PostgreSQL), since each database may have some of its own.
SERVERS_PER_SLOT, SPARE_SERVERS = 4, 64
#: A holder of the lock that makes no progress for this long is killed.
STUCK_NS = 1_000_000_000


class SemaphoreTable(TableReader):
    """The table as used by its creator, the master; the reading half works in every process."""

    def __init__(
        self, channels: Sequence[ChannelSpec], *, slots: int, fairness: Fairness, leased: bool = False
    ) -> None:
        servers = SERVERS_PER_SLOT * slots + SPARE_SERVERS
        super().__init__(TableCore(slots, len(complete_tree(channels)) + SPARE_CHANNELS, servers, leased=leased))
        self.fairness = fairness
        self._weights: list[int] = []
        self._holder: tuple[int, int, int] | None = None
        if not self.try_configure(channels):
            raise SemaphoreError("the table's lock is taken before anybody knows it")

    def worker_slot(self, slot: int) -> WorkerSlot:
        """A worker's slot; called in the worker, after the fork."""
        return WorkerSlot(self.core, self.fairness, slot)

    # -- the master's side -------------------------------------------------------------------------------

    def assign(self, slot: int, database: str, weight: int, share: Share | None = None) -> None:
        """Assign a free slot to a database."""
        core, base = self.core, self.core.slot_base(slot)
        core.words[base + Slot.EPOCH] += 1
        core.words[base + Slot.WEIGHT] = weight
        if weight not in self._weights:
            if len(self._weights) == MAX_CLASSES:
                raise SemaphoreError(f"more than {MAX_CLASSES} different fairness weights were in use since the start")
            self._weights.append(weight)
            core.words[Header.CLASSES] = len(self._weights)
        self._put_class(slot, weight)
        core.put_share(slot, share or Share())
        clear_outcomes(core, slot)
        core.put_text(base + core.layout.slot_name, base + Slot.NAME_LENGTH, database)

    def _put_class(self, slot: int, weight: int | None) -> None:
        for k, each in enumerate(self._weights):
            self.core.put_bit(self.core.layout.classes + k * bitmap_words(self.core.slots), slot, each == weight)

    def try_vacate(self, slot: int) -> bool:
        """Free the slot and permits of a database that is no longer served and whose worker was reaped."""

        def leave(now_ns: int) -> None:
            release(self.core, slot, now_ns, give_up=True)
            self.core.put_share(slot, Share())
            self.core.settle_share(slot)

        if not self._try(leave):
            return False
        base = self.core.slot_base(slot)
        epoch = self.core.words[base + Slot.EPOCH]
        for word in range(base, base + SLOT_WORDS):
            self.core.words[word] = 0
        self.core.words[base + Slot.EPOCH] = epoch
        self._put_class(slot, None)
        return True

    @property
    def start_barrier_open(self) -> bool:
        """Whether the start barrier is open."""
        return bool(self.core.words[Header.START_BARRIER])

    def open_start_barrier(self) -> None:
        """Open the start barrier: permits are granted from now on."""
        if not self.start_barrier_open:
            self.core.words[Header.START_BARRIER] = 1
            self.core.wake_all()

    def try_configure(self, channels: Sequence[ChannelSpec]) -> bool:
        """Put settings in force in place, adding new channels and retiring missing ones. False: lock busy.

        Raises SemaphoreError if the table has no room for the channels.
        """
        return self._try(lambda now_ns: self._configure(complete_tree(channels), now_ns))

    def try_adjust(self, channels: Sequence[ChannelSpec]) -> bool:
        """Change only the limits of these channels, ignoring unknown ones. False: lock busy."""
        return self._try(lambda now_ns: self._adjust(channels, now_ns))

    def kept_starts(self, now_s: float, wall_s: float) -> dict[str, Any] | None:
        """The starts counted by rates, for the state file."""
        return kept_starts.keep(self.core, now_s, wall_s)

    def restore_starts(self, kept: Any, now_s: float, wall_s: float) -> bool:
        """Restore them before any worker exists. False if they are invalid."""
        return kept_starts.restore(self.core, kept, now_s, wall_s)

    def try_share(self, shares: Mapping[int, Share]) -> bool:
        """Change the minimums and maximums of databases, by slot. False: lock busy."""

        def change(_now_ns: int) -> None:
            for slot, share in shares.items():
                self.core.put_share(slot, share)
                self.core.settle_share(slot)

        return self._try(change)

    def check_room(self, channels: Sequence[ChannelSpec]) -> None:
        """Raise SemaphoreError if the table has no room for these channels besides those it holds."""
        core, known = self.core, self.core.tree().index
        new = [spec.name for spec in complete_tree(channels) if spec.name not in known]
        places(core, new, sorted([*vacant(core), *forgotten(core)]))

    def try_after_death(self, slot: int) -> bool:
        """After reaping a worker: drop its demand and untaken grant, grant anew, wake all. False: lock busy."""
        return self._try(lambda now_ns: release(self.core, slot, now_ns, give_up=False))

    def try_give_up(self, slot: int) -> bool:
        """Return the permits of a database that cannot be read again, although its jobs may run. False: lock busy."""
        return self._try(lambda now_ns: release(self.core, slot, now_ns, give_up=True))

    def stuck_owner(self, now_ns: int) -> int | None:
        """Process id of a holder of the lock that must be killed: stopped, or without progress for a second."""
        owner, sequence = self.core.mutex.owner(), self.core.words[Header.SEQUENCE]
        if not owner:
            self._holder = None
            return None
        if self._holder is None or self._holder[:2] != (owner, sequence):
            self._holder = (owner, sequence, now_ns)
            return owner if is_stopped(owner) and self._still_held_by(owner, sequence) else None
        return owner if now_ns - self._holder[2] >= STUCK_NS else None

    def _still_held_by(self, owner: int, sequence: int) -> bool:
        return self.core.mutex.owner() == owner and self.core.words[Header.SEQUENCE] == sequence

    def _try(self, change: Callable[[int], None]) -> bool:
        """Call `change` with the time (monotonic nanoseconds) under the lock, then grant and wake. False: lock busy."""
        now_ns = time.monotonic_ns()
        if not self.core.enter(now_ns):
            return False
        try:
            change(now_ns)
            self._grant_to_others(now_ns)
        except BaseException:  # whatever it is, keeping the lock would stop all databases
            self.core.abandon()
            raise
        self.core.leave()
        self.core.wake_all()
        return True

    def _grant_to_others(self, now_ns: int) -> None:
        rates.open_throttled(self.core, now_ns)
        if self.core.may_start(now_ns):
            grant_all(self.core, Scheduler(self.core, self.fairness, -1, NoDemand(), now_ns), now_ns)

    def _adjust(self, channels: Sequence[ChannelSpec], now_ns: int) -> None:
        core, index = self.core, self.core.tree().index
        known = [(index[spec.name], spec) for spec in channels if spec.name in index]
        for channel, spec in known:
            write_channel(core, channel, spec, now_ns)
        core.words[Header.GENERATION] += 1
        for channel, _spec in known:
            core.settle_anew(channel, now_ns)

    def _configure(self, channels: Sequence[ChannelSpec], now_ns: int) -> None:
        core = self.core
        index = dict(core.tree().index)
        wanted = {spec.name for spec in channels}
        left = [channel for channel in forgotten(core) if core.tree().names[channel] not in wanted]
        new = [spec.name for spec in channels if spec.name not in index]
        found = places(core, new, sorted([*vacant(core), *left]))
        for channel in left:
            del index[core.tree().names[channel]]
            vacate(core, channel)
        rated = {channel for channel in index.values() if core.ring(channel) is not None}
        for spec in channels:
            if spec.name in index:
                write_channel(core, index[spec.name], spec, now_ns)
            else:
                index[spec.name] = channel = found[spec.name]
                add_channel(core, spec, channel, index.get(parent_name(spec.name) or "", -1), now_ns)
        for name, channel in index.items():
            if name not in wanted:
                retire(core, channel)
        core.words[Header.GENERATION] += 1
        for slot in self.occupied():
            self._count_grant(slot, rated, now_ns)
        for channel in index.values():
            core.settle_anew(channel, now_ns)

    def _count_grant(self, slot: int, rated: set[int], now_ns: int) -> None:
        """Count grants not taken yet in new rates."""
        core, base = self.core, self.core.slot_base(slot)
        grant = core.words[base + Slot.GRANT]
        for node, ring in rates.rings(core, grant - 1) if grant else ():
            if node not in rated:
                ring.add_past([now_ns])
                core.words[base + Slot.GRANTED_NS] = now_ns
