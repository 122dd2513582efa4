"""Read-only views of the shared table: databases, channels, holders of permits.

Takes no lock and writes nothing: each word is consistent, but two words may be from different moments. Works in every
process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from ..states import TargetState
from .core import TableCore
from .layout import CELL_WORDS, CHANNEL_WORDS, SERVER_WORDS, SLOT_WORDS, Cell, Channel, Flag, Header, Server, Slot
from .statistics import Totals, outcomes_of, read_totals
from .words import Tree, bits


class SlotView(NamedTuple):
    """One database in the table; times are monotonic nanoseconds, 0 = none."""

    database: str
    pid: int
    epoch: int
    weight: int
    heartbeat_ns: int
    pending: int
    running: int
    failed: int
    waiting: int
    dispatched: int
    finished: int
    waiting_since_ns: int
    message: str
    #: Those of `pending` whose eta is in the future.
    not_due: int
    #: UTC microseconds since which the oldest due job has waited; 0: none waits.
    oldest_us: int
    #: Permits held, guaranteed, and allowed at most (0: no limit); whether the minimum is kept free.
    held: int
    minimum: int
    maximum: int
    reserve: bool
    #: Outcomes of this database's jobs, by JobOutcome.
    outcomes: tuple[int, ...]
    #: Value of `finished` one to two minutes ago, and the time of that; 0: not known yet.
    rate_since_ns: int
    rate_finished: int


class ChannelView(NamedTuple):
    """One shared channel; capacity None = no limit of its own."""

    name: str
    capacity: int | None
    running: int
    pending: int
    #: In it and its subchannels, like the other two.
    failed: int
    sequential: bool
    throttle_s: float
    paused: bool
    retired: bool
    throttled_until_ns: int
    #: For a sequential channel: the databases whose failed jobs stop it.
    stopped_by: tuple[str, ...]
    #: Starts allowed in any `rate_period_s`; 0: no rate.
    rate: int
    rate_period_s: float
    #: What it is guaranteed of its parent, whether that is kept free, and its weight beside others; 0: none.
    minimum: int
    reserve: bool
    weight: int
    #: Starts within the last period, and when the next is allowed; -1: past starts are still being read.
    rate_used: int
    rate_opens_ns: int


class Waiting(NamedTuple):
    """Jobs of one database waiting directly in one channel."""

    due: int
    not_due: int


class ServerView(NamedTuple):
    """One server that databases depend on; times are monotonic nanoseconds, 0 = none."""

    name: str
    state: TargetState
    failures: int
    #: Since when it is up or down.
    since_ns: int
    retry_ns: int
    reason: str
    #: How many databases depend on it.
    users: int
    #: Requests dropped since its last answer.
    unanswered: int = 0


class Holder(NamedTuple):
    """What one database has in a channel and its subchannels."""

    database: str
    running: int
    pending: int


class TableReader:
    """The reading side of the table."""

    def __init__(self, core: TableCore) -> None:
        self.core = core

    @property
    def slots(self) -> int:
        """Number of slots."""
        return self.core.slots

    def heartbeat_age_s(self, slot: int, now_ns: int) -> float:
        """Seconds since the last heartbeat of a slot's worker."""
        return max(0, now_ns - self.core.words[self.core.slot_base(slot) + Slot.HEARTBEAT_NS]) / 1e9

    def broker_age_s(self, now_ns: int) -> float:
        """Seconds since the last heartbeat of the cluster's broker."""
        return max(0, now_ns - self.core.words[Header.BROKER_HEARTBEAT_NS]) / 1e9

    def silent_holders(self, now_ns: int, silence_ns: int) -> list[int]:
        """Slots that hold permits without a heartbeat for this long, while another database has waited as long for one.

        This may be normal: a worker sleeps while its jobs run.
        """
        core, words = self.core, self.core.words
        long_ago_ns = now_ns - silence_ns
        since = Slot.WAITING_SINCE_NS
        waiting = bits(core.read_bitmap(core.layout.waiting, core.slots))
        patient = {slot for slot in waiting if 0 < words[core.slot_base(slot) + since] <= long_ago_ns}
        if not patient:
            return []
        tree = core.tree()
        silent = [s for s in self.occupied() if words[core.slot_base(s) + Slot.HEARTBEAT_NS] <= long_ago_ns]
        return [slot for slot in silent if patient - {slot} and any(self.row(tree, slot, Cell.HELD))]

    def slot_view(self, slot: int) -> SlotView:
        """The view of one database."""
        core, base = self.core, self.core.slot_base(slot)
        w = core.words[base : base + SLOT_WORDS].tolist()
        return SlotView(
            database=core.text(base + core.layout.slot_name, w[Slot.NAME_LENGTH]),
            pid=w[Slot.PID],
            epoch=w[Slot.EPOCH],
            weight=w[Slot.WEIGHT],
            heartbeat_ns=w[Slot.HEARTBEAT_NS],
            pending=w[Slot.PENDING],
            running=w[Slot.RUNNING],
            failed=w[Slot.FAILED],
            waiting=w[Slot.WAIT_DEPENDENCIES],
            dispatched=w[Slot.DISPATCHED],
            finished=w[Slot.FINISHED],
            waiting_since_ns=w[Slot.WAITING_SINCE_NS],
            message=core.text(base + core.layout.slot_message, w[Slot.MESSAGE_LENGTH]),
            not_due=sum(self.row(core.tree(), slot, Cell.NOT_DUE)),
            oldest_us=w[Slot.OLDEST_US],
            held=w[Slot.TOTAL],
            minimum=w[Slot.MIN],
            maximum=w[Slot.MAX],
            reserve=bool(w[Slot.RESERVE]),
            outcomes=outcomes_of(core, slot),
            rate_since_ns=w[Slot.RATE_SINCE_NS],
            rate_finished=w[Slot.RATE_FINISHED],
        )

    def slot_views(self) -> list[SlotView]:
        """The views of all databases that have a slot."""
        return [self.slot_view(slot) for slot in self.occupied()]

    def totals(self) -> Totals:
        """Totals over all databases since the table was created."""
        return read_totals(self.core)

    def waiting(self) -> dict[str, list[Waiting]]:
        """Database -> jobs waiting directly in each channel, in the order of channel_views()."""
        tree = self.core.tree()
        found = {}
        for slot in self.occupied():
            pending, not_due = self.row(tree, slot, Cell.PENDING), self.row(tree, slot, Cell.NOT_DUE)
            cells = [Waiting(max(0, each - later), later) for each, later in zip(pending, not_due, strict=True)]
            found[self._database(slot)] = cells
        return found

    def server_views(self) -> list[ServerView]:
        """The servers that databases depend on."""
        numbers = range(self.core.words[Header.USED_SERVERS])
        found = [self._server_view(self.core.server_base(number)) for number in numbers]
        return [view for view in found if view.name and view.users]

    def _server_view(self, base: int) -> ServerView:
        core = self.core
        w = core.words[base : base + SERVER_WORDS].tolist()
        return ServerView(
            name=core.server_name(base),
            state=TargetState(w[Server.STATE]),
            failures=w[Server.FAILURES],
            since_ns=w[Server.SINCE_NS],
            retry_ns=w[Server.RETRY_NS],
            reason=core.text(base + core.layout.server_reason, w[Server.REASON_LENGTH]),
            users=core.read_bitmap(base + core.layout.server_users, core.slots).bit_count(),
            unanswered=w[Server.UNANSWERED],
        )

    def channel_views(self) -> list[ChannelView]:
        """All shared channels, parents before children."""
        tree = self.core.tree()
        pending, failed = [0] * len(tree.names), [0] * len(tree.names)
        failed_in: dict[int, list[str]] = {}
        for slot in self.occupied():
            for node, waiting in self.sums(tree, slot, Cell.PENDING).items():
                pending[node] += waiting
            for channel, number in enumerate(self.row(tree, slot, Cell.FAILED)):
                if number:
                    failed_in.setdefault(channel, []).append(self._database(slot))
                    for node in tree.paths[channel]:
                        failed[node] += number
        return [
            self._channel_view(channel, name, pending[channel], failed[channel], failed_in.get(channel, []))
            for channel, name in enumerate(tree.names)
        ]

    def holders(self) -> dict[str, list[Holder]]:
        """Channel -> the databases in which something runs or waits in it or below; most running first."""
        tree = self.core.tree()
        found: dict[str, list[Holder]] = {}
        for slot in self.occupied():
            database = self._database(slot)
            running, pending = self.sums(tree, slot, Cell.HELD), self.sums(tree, slot, Cell.PENDING)
            for node in running.keys() | pending.keys():
                holder = Holder(database, running.get(node, 0), pending.get(node, 0))
                found.setdefault(tree.names[node], []).append(holder)
        for holders in found.values():
            holders.sort(key=lambda holder: (-holder.running, -holder.pending, holder.database))
        return found

    def sums(self, tree: Tree, slot: int, word: int) -> dict[int, int]:
        """Channel -> sum of one word of a slot's cells over the channel and its subchannels, if not 0."""
        sums: dict[int, int] = {}
        for channel, number in enumerate(self.row(tree, slot, word)):
            for node in tree.paths[channel] if number else ():
                sums[node] = sums.get(node, 0) + number
        return sums

    def occupied(self) -> Iterator[int]:
        return (s for s in range(self.slots) if self.core.words[self.core.slot_base(s) + Slot.NAME_LENGTH])

    def _database(self, slot: int) -> str:
        base = self.core.slot_base(slot)
        return self.core.text(base + self.core.layout.slot_name, self.core.words[base + Slot.NAME_LENGTH])

    def row(self, tree: Tree, slot: int, word: int) -> list[int]:
        """One word of each of a slot's cells, for the channels of this tree, as others may be added at any time."""
        start = self.core.cell_base(slot, 0)
        used = len(tree.names)
        return self.core.words[start : start + used * CELL_WORDS].tolist()[word::CELL_WORDS]

    def _channel_view(self, channel: int, name: str, pending: int, failed: int, failed_in: list[str]) -> ChannelView:
        base = self.core.channel_base(channel)
        w = self.core.words[base : base + CHANNEL_WORDS].tolist()
        flags = w[Channel.FLAGS]
        ring = None if flags & Flag.RETIRED else self.core.ring(channel)
        unread = self.core.words[Header.STARTS_UNREAD]
        return ChannelView(
            name=name,
            capacity=None if w[Channel.CONFIGURED] < 0 else w[Channel.CONFIGURED],
            running=w[Channel.TOTAL],
            pending=pending,
            failed=failed,
            sequential=bool(flags & Flag.SEQUENTIAL),
            throttle_s=w[Channel.THROTTLE_NS] / 1e9,
            paused=bool(flags & Flag.PAUSED),
            retired=bool(flags & Flag.RETIRED),
            throttled_until_ns=w[Channel.NOT_BEFORE_NS],
            stopped_by=tuple(sorted(failed_in)) if flags & Flag.SEQUENTIAL else (),
            minimum=w[Channel.MIN],
            reserve=bool(w[Channel.RESERVE]),
            weight=w[Channel.WEIGHT],
            rate=w[Channel.RATE] if ring is not None else 0,
            rate_period_s=w[Channel.RATE_NS] / 1e9,
            rate_used=0 if ring is None else ring.used(time.monotonic_ns()),
            rate_opens_ns=0 if ring is None else -1 if unread else ring.opens(),
        )
