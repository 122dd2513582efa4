"""A worker's place in the shared table: what it holds, wants and may start.

One object per worker; it waits for nothing but the table's lock (TableCore.enter_waiting). It knows nothing about
jobs: `grants.Source` is its view of the worker's queue.
"""

from __future__ import annotations

import math
import os
import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress

from ..channelspec import ChannelSpec
from ..errors import SemaphoreError
from ..job import Key
from ..states import Fairness
from . import rates
from .channels import add_channel, places, read_spec, vacant, write_channel
from .core import TableCore
from .dead_workers import drop_demand
from .grants import Nothing, Scheduler, Source, give
from .layout import NEVER_NS, STARTS_KNOWN, STARTS_UNKNOWN, STARTS_UNREAD, WORD, Cell, Header, Slot
from .servers import ServerHealth, attach_servers
from .statistics import SlotStatistics
from .words import bitmap, bits

_PRIORITY = Fairness.PRIORITY
#: How many jobs, and for how long, a database may run in sequence on one permit while others wait.
SLICE_JOBS = 8
SLICE_NS = 100_000_000


class WorkerSlot:
    """The place of one database's worker in the table."""

    def __init__(self, core: TableCore, fairness: Fairness, slot: int) -> None:
        self.slot = slot
        self._core = core
        self._fairness = fairness
        self._base = self._core.slot_base(slot)
        self.statistics = SlotStatistics(self._core, slot)
        self._published = 0
        #: Header.REPAIRS at the last exchange; if it differs, write all our HELD words afresh.
        self._repairs = -1
        #: Header.GENERATION when the channels were last read.
        self.tree_generation = 0
        #: How often this worker's figures of waiting jobs were cleared, and must be reported again.
        self.resets = 0
        self._is_new = True
        #: Something was granted to us, or the table was repaired: an exchange is due.
        self._woken = True
        #: Permits were left for a database about to take its grant; when to look again, in case it does not.
        self._look_again_ns: int | None = None
        #: In channels with a rate: when jobs that were taken and not sent yet were counted.
        self._unsent: dict[int, list[int]] = {}
        #: The demand order as published.
        self._order: list[int] = []
        #: Permits reused since the last turn, and when its slice ends.
        self._kept = 0
        self._slice_ends_ns = 0

    def begin_again(self) -> None:
        """The source was replaced: the next exchange writes all it holds."""
        self._repairs = -1
        self._woken = self._is_new = True
        self._unsent = {}

    def is_due(self, source: Source) -> bool:
        """Whether an exchange could change anything: there is news here, or may be in the table."""
        wanted_channels = source.wanted_channels
        return (
            self._woken
            or bool(source.changed)
            or bool(source.new_heads and self._order_matters(source))
            or wanted_channels != self._published
            or bool(wanted_channels and self._core.words[Header.NEXT_OPEN_NS] <= time.monotonic_ns())
            or self._look_again_ns is not None
        )

    def _order_matters(self, source: Source) -> bool:
        """Whether others need our new heads: the order of our channels or, with `priority`, the keys."""
        return self._fairness is _PRIORITY or list(source.order()) != self._order

    def may_reuse_permit(self, channel: int) -> bool:
        """Whether a finished job's permit may go to the next job of the same channel without an exchange.

        Nobody else may have a better right to it. While others wait, a database keeps a permit for a slice of its
        turn (a few short jobs), unless one of them has been granted nothing yet. So a hand-over between two
        processes, which costs more than a short job, is not needed for each job. Reads the table without the lock.
        """
        core, words = self._core, self._core.words
        if self._woken or not words[Header.START_BARRIER] or words[Header.REPAIRS] != self._repairs:
            return False
        if core.leased and not core.may_start(time.monotonic_ns()):
            return False
        if core.is_over(channel) or core.has_rules(channel):
            return False
        others = ~(1 << self.slot)
        if words[Header.SHARES] and core.exceeds_share(self.slot):
            return False
        if self._fairness is _PRIORITY:
            # A database about to take its grant may have a better job, too.
            return not core.waiting_slots(-1) & others
        if not core.read_bitmap(core.layout.waiting, core.slots) & others:
            return True
        if words[Header.SHARES] or core.has_weights() or core.read_bitmap(core.layout.unserved, core.slots) & others:
            return False
        self._kept += 1
        return self._kept < SLICE_JOBS and time.monotonic_ns() < self._slice_ends_ns

    def has_room(self, channel: int) -> bool:
        """Whether a channel has a permit left, and no rule that counts starts. Reads the table without the lock."""
        core = self._core
        closed = core.read_bitmap(core.layout.closed, core.layout.channels)
        is_closed = closed and any(closed >> node & 1 for node in core.tree().paths[channel])
        return bool(core.words[Header.START_BARRIER]) and not is_closed and not core.has_rules(channel)

    def is_full(self) -> bool:
        """Whether nothing could start anywhere. Reads the table without the lock."""
        return self._core.is_full()

    def attach(self) -> None:
        """Take the slot. The predecessor's demand is dropped; what it held stays until the first exchange."""
        core, base = self._core, self._base
        with core.locked(self.slot) as now_ns:
            drop_demand(core, self.slot, now_ns)
            core.settle_share(self.slot)
            core.words[base + Slot.HEARTBEAT_NS] = now_ns
            core.words[base + Slot.PID] = os.getpid()
            core.words[base + Slot.RATE_SINCE_NS] = core.words[base + Slot.TREE] = 0

    def attach_servers(self, names: Sequence[str]) -> list[ServerHealth]:
        """Set the servers this database depends on; returns their shared health records in this order."""
        core = self._core
        with core.locked(self.slot):
            return attach_servers(core, self.slot, names)

    # -- permits -----------------------------------------------------------------------------------------

    def note_start(self, channel: int, age_ns: int) -> None:
        """A job was started in a channel this long ago, perhaps by an earlier supervisor."""
        core = self._core
        with core.locked(self.slot) as now_ns:
            rates.start_throttles(core, channel, now_ns - age_ns, now_ns)

    def exchange(self, source: Source) -> int:
        """Return the permits of ended jobs, take some for what could start, leave a demand for the rest.

        Returns how many jobs `source` was told to take; it wants no more when its `wanted_channels` is 0. Others that
        could start are granted and woken on the way.
        """
        core = self._core
        now_ns = core.enter_waiting(self.slot)
        try:
            self._write_back(source, now_ns)
            taken = self._take_grant(source, now_ns)
            self._look_again_ns = None
            rates.open_throttled(core, now_ns)
            if now_ns >= core.words[Header.LEASE_UNTIL_NS]:
                core.use_floors(now_ns)
            if core.may_start(now_ns):
                taken += self._take_turns(source, now_ns)
            self._publish(source, now_ns, served=taken > 0)
            if self._is_new:
                self._forget_former()
            core.words[self._base + Slot.TREE] = source.tree_generation
            if taken:
                self._kept, self._slice_ends_ns = 0, now_ns + SLICE_NS
        except BaseException:  # whatever it is: a lock that is kept would stop all databases
            core.abandon()
            raise
        core.leave()
        self._woken = False
        watches = core.words[Header.BROKER_WATCHES]
        if watches and (self._published or watches > 1):
            core.wake_broker()
        return taken

    def _forget_former(self) -> None:
        """The source was replaced: clear what the former one left in channels that only it knew."""
        core = self._core
        for channel in range(core.words[Header.USED_CHANNELS]):
            cell = core.cell_base(self.slot, channel)
            core.words[cell + Cell.PENDING] = core.words[cell + Cell.NOT_DUE] = 0
        self._is_new = False
        self.resets += 1

    @property
    def holds_any(self) -> bool:
        """Whether this slot holds permits, perhaps a predecessor's. Reads the table without the lock."""
        core = self._core
        cells = (core.cell_base(self.slot, channel) for channel in range(core.words[Header.USED_CHANNELS]))
        return any(core.words[cell + Cell.HELD] for cell in cells)

    # -- one capacity over several supervisors --------------------------------------------------------------

    @property
    def is_served(self) -> bool:
        """Whether jobs may start: in a cluster, only once the coordinator knows that they are counted here."""
        words, base = self._core.words, self._base
        return not self._core.leased or 0 < words[base + Slot.TERM] == words[base + Slot.SETTLED]

    @property
    def is_leased(self) -> bool:
        """Whether there is a cluster, and so a tenure to announce."""
        return self._core.leased

    def take_back(self) -> None:
        """In a cluster: we lead a database again that we had let go; the next exchange writes what runs."""
        self._core.words[self._base + Slot.LET_GO] = 0
        self.begin_again()

    def begin_tenure(self, term: int) -> None:
        """In a cluster: the running jobs are counted in the table. `term` grows with each leader of the database."""
        core, base = self._core, self._base
        with core.locked(self.slot):
            core.words[base + Slot.TERM] = term
        core.wake_broker()

    def end_tenure(self) -> None:
        """In a cluster: somebody else may lead the database from now on."""
        self._core.words[self._base + Slot.TERM] = 0

    def hand_over(self) -> None:
        """In a cluster: another runner leads. Our permits go once the coordinator keeps them for it."""
        core, base = self._core, self._base
        core.words[base + Slot.TERM] = 0
        core.words[base + Slot.LET_GO] = 1
        core.wake_broker()

    def let_go(self) -> None:
        """Without a queue: clear what a predecessor left, its permits and its failed jobs."""
        self.begin_again()
        self.exchange(Nothing())
        self.begin_again()
        for word in (Slot.PENDING, Slot.RUNNING, Slot.FAILED, Slot.WAIT_DEPENDENCIES, Slot.OLDEST_US):
            self.set_counter(word, 0)

    def _write_back(self, source: Source, now_ns: int) -> None:
        core = self._core
        if core.words[self._base + Slot.LET_GO]:
            return  # the coordinator is about to take it over unchanged
        if source.withdrawn:
            for channel, since_ns in self._unsent_of(source.withdrawn):
                rates.take_back_start(core, channel, since_ns, now_ns)
            source.withdrawn.clear()
        repairs = core.words[Header.REPAIRS]
        everything = repairs != self._repairs
        channels = range(core.words[Header.USED_CHANNELS]) if everything else sorted(source.changed)
        granted = core.words[self._base + Slot.GRANT] - 1
        for channel in channels:
            held = source.held.get(channel, 0) + (channel == granted)
            change = held - core.words[core.cell_base(self.slot, channel) + Cell.HELD]
            if change:
                core.add_held(self.slot, channel, change, now_ns)
            core.set_failed(self.slot, channel, source.failed.get(channel, 0), now_ns)
        self._repairs = repairs
        source.changed.clear()

    def _take_grant(self, source: Source, now_ns: int) -> int:
        """Take or return the permit that another process granted us."""
        core = self._core
        channel = core.words[self._base + Slot.GRANT] - 1
        if channel < 0:
            return 0
        core.put_grant(self.slot, -1)
        granted_ns = core.words[self._base + Slot.GRANTED_NS]
        wanted = source.wanted_channels >> channel & 1 and not core.is_over(channel)
        wanted = wanted and not core.exceeds_share(self.slot)
        counted_ns = rates.recount(core, channel, granted_ns, now_ns) if wanted else granted_ns
        if wanted and counted_ns and rates.restart_throttles(core, channel, granted_ns, now_ns):
            source.take(channel)
            if rates.rings(core, channel):
                self._unsent.setdefault(channel, []).append(counted_ns)
            return 1
        if counted_ns:
            rates.take_back_start(core, channel, counted_ns, now_ns)
        core.add_held(self.slot, channel, -1, now_ns)
        return 0

    def note_sent(self, channels: Sequence[int]) -> None:
        """Jobs taken in these channels are about to be sent, one per entry: rates count from now."""
        counted = self._unsent_of(channels)
        if not counted:
            return
        core = self._core
        with core.locked(self.slot) as now_ns:
            for channel, since_ns in counted:
                rates.delay_start(core, channel, since_ns, now_ns)

    def _unsent_of(self, channels: Sequence[int]) -> list[tuple[int, int]]:
        """When that many jobs in these channels were counted."""
        return [(channel, self._unsent[channel].pop(0)) for channel in channels if self._unsent.get(channel)]

    # -- starts before this table was ---------------------------------------------------------------------------

    @property
    def starts_unknown(self) -> bool:
        """Whether this database's earlier starts have not been read yet."""
        return self._core.words[self._base + Slot.STARTS] == STARTS_UNKNOWN

    @property
    def starts_known(self) -> bool:
        """Whether the rates include them."""
        return self._core.words[self._base + Slot.STARTS] == STARTS_KNOWN

    def pass_starts(self) -> None:
        """No rate needs the earlier starts. Without the lock, as nobody waited for them."""
        self._core.words[self._base + Slot.STARTS] = STARTS_KNOWN

    def forget_starts(self) -> None:
        """Another runner now starts jobs of this database."""
        self.end_starts({}, STARTS_UNKNOWN)

    def await_starts(self) -> None:
        """Earlier starts are being read: channels with a rate are closed until `end_starts`."""
        self.end_starts({}, STARTS_UNREAD)

    def end_starts(self, ages_s: Mapping[int, Sequence[float]], state: int = STARTS_KNOWN) -> None:
        """Add earlier starts (channel -> ages in seconds) to the rates, except those already counted."""
        core = self._core
        with core.locked(self.slot) as now_ns:
            by_ring: dict[int, list[int]] = {}
            for channel, ages in ages_s.items():
                for node, _ring in rates.rings(core, channel):
                    by_ring.setdefault(node, []).extend(now_ns - int(age_s * 1e9) for age_s in ages)
            for node, moments in by_ring.items():
                rates.add_past_starts(core, node, moments)
            rates.set_starts(core, self.slot, state, now_ns)
        core.wake_all()

    def _take_turns(self, source: Source, now_ns: int) -> int:
        core, taken = self._core, 0
        choice = Scheduler(core, self._fairness, self.slot, source, now_ns)
        while (grant := choice.next()) is not None:
            if grant.slot == self.slot:
                rated = rates.count_start(core, grant.channel, now_ns)
                core.add_held(self.slot, grant.channel, 1, now_ns)
                source.take(grant.channel)
                if rated:
                    self._unsent.setdefault(grant.channel, []).append(now_ns)
                taken += 1
            else:
                give(core, grant, now_ns)
        self._look_again_ns = choice.waits_until_ns
        return taken

    def _publish(self, source: Source, now_ns: int, *, served: bool) -> None:
        core, base, wanted, gone = self._core, self._base, source.wanted_channels, 0
        if source.new_heads or wanted != self._published:
            news = wanted ^ self._published
            for channel in bits(news):
                core.put_demand(self.slot, channel, bool(wanted >> channel & 1))
            gone = news & ~wanted
            if self._fairness is _PRIORITY:
                # Including those wanted again: their best job may have changed while nothing was wanted.
                self._publish_keys(source, wanted & news | wanted & bitmap(source.new_heads))
            self._order = list(source.order())
            order = array("H", self._order)
            start = (base + core.layout.slot_order) * WORD
            core.bytes[start : start + 2 * len(order)] = memoryview(order).cast("B")
            core.words[base + Slot.DEMAND] = len(order)
            self._published = wanted
            source.new_heads.clear()
        core.put_bit(core.layout.waiting, self.slot, bool(wanted))
        if gone and core.words[Header.NEXT_OPEN_NS] != NEVER_NS:
            rates.pass_watch(core, gone)
        if served or not wanted:
            core.put_bit(core.layout.unserved, self.slot, False)
        elif not core.words[base + Slot.WAITING_SINCE_NS]:
            core.put_bit(core.layout.unserved, self.slot, True)
        since = base + Slot.WAITING_SINCE_NS
        if not wanted:
            core.words[since] = 0
        elif served or not core.words[since]:
            core.words[since] = now_ns

    def _publish_keys(self, source: Source, channels: int) -> None:
        for channel in bits(channels):
            start = self._core.cell_base(self.slot, channel) + Cell.KEY
            key: Key = source.key(channel)
            for i, word in enumerate(key):
                self._core.words[start + i] = word

    def look_again_s(self, wanted: int) -> float:
        """When an exchange is due if nothing happens before (monotonic seconds); infinity: never.

        The end of the first throttle of one of the `wanted` channels (a bitmap), or the end of our patience with
        a database that does not take its grant.
        """
        core = self._core
        throttled = core.read_bitmap(core.layout.throttled, core.layout.channels)
        first_ns = rates.watch_until_ns(core, self.slot, throttled, wanted) if throttled else NEVER_NS
        if self._look_again_ns is not None:
            first_ns = min(first_ns, self._look_again_ns)
        return math.inf if first_ns == NEVER_NS else first_ns / 1e9

    # -- channels ----------------------------------------------------------------------------------------

    def channels(self) -> list[ChannelSpec | None]:
        """The shared channels. The position is the index used everywhere else; None: a retired channel.

        From now on their records are not reused, until an exchange with a source that knows fewer channels.
        """
        core, word = self._core, self._base + Slot.TREE
        with core.locked(self.slot):
            self.tree_generation = core.words[Header.GENERATION]
            core.words[word] = min(core.words[word] or self.tree_generation, self.tree_generation)
            return [read_spec(core, channel) for channel in range(len(core.tree().names))]

    def add_channel(self, spec: ChannelSpec, parent: int) -> int | None:
        """Share a channel made by an ancestor's defaults. Returns its index, or None if the table is full."""
        core = self._core
        with core.locked(self.slot) as now_ns, suppress(SemaphoreError):
            found = core.tree().index.get(spec.name)
            if found is None:
                found = places(core, [spec.name], vacant(core))[spec.name]
                add_channel(core, spec, found, parent, now_ns)
                core.words[Header.GENERATION] += 1
            elif read_spec(core, found) is None:  # a reload retired it, as it is in no configuration
                write_channel(core, found, spec, now_ns)
                core.words[Header.GENERATION] += 1
                self._woken = True  # somebody may wait there already
            core.settle_anew(found, now_ns)
            return found
        return None

    # -- what others may know ------------------------------------------------------------------------------

    @property
    def wakeup(self) -> int:
        """The eventfd written when something was granted to us."""
        return self._core.wakeups[self.slot]

    def drain_wakeup(self) -> None:
        """Empty the eventfd; the next exchange is due."""
        self._woken = True
        with suppress(BlockingIOError):
            os.eventfd_read(self.wakeup)

    def heartbeat(self, now_ns: int) -> None:
        """Write that this worker is alive."""
        self._core.words[self._base + Slot.HEARTBEAT_NS] = now_ns

    def set_counter(self, word: int, value: int) -> None:
        """Write one of the slot's own words (layout.Slot: PENDING, RUNNING, ...)."""
        self._core.words[self._base + word] = value

    def report_pending(self, channel: int, pending: int, not_due: int) -> None:
        """Write how many jobs wait directly in a channel, and how many of them are not due."""
        cell = self._core.cell_base(self.slot, channel)
        self._core.words[cell + Cell.PENDING] = pending
        self._core.words[cell + Cell.NOT_DUE] = not_due

    def set_message(self, message: str) -> None:
        """Set the reason shown by `status`; '' clears it."""
        core, base = self._core, self._base
        core.put_text(base + core.layout.slot_message, base + Slot.MESSAGE_LENGTH, message)
