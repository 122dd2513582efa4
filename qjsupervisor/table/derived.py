"""The words of the shared table that follow from others: sums of permits, what is closed, who waits, who lacks what.

Called under the table's lock (core.py), after every change of the truth: HELD, FAILED, the demand orders, the settings
of channels and databases. Decides nothing, wakes nobody. Layout and writers of each word: layout.py.

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
"""

from __future__ import annotations

from ..channelspec import Share
from .layout import NEVER_NS, WORD, Cell, Channel, Flag, Header, Slot, bitmap_words
from .words import TableWords


class DerivedWords(TableWords):
    """The words, each change of which settles what follows from it."""

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
