"""Channels in the shared table: adding and writing their records. The caller holds the lock (or is alone)."""

from __future__ import annotations

from collections.abc import Sequence

from ..channelspec import ROOT, ChannelSpec, Rate, parent_name
from ..errors import SemaphoreError
from .core import TableCore
from .layout import CELL_WORDS, CHANNEL_WORDS, NAME_BYTES, Channel, Flag, Header, Slot

#: Records beyond the configured channels: for a reload that adds some, and for capacity_default.
SPARE_CHANNELS = 256


def places(core: TableCore, names: Sequence[str], free: Sequence[int]) -> dict[str, int]:
    """A record for each of these new channels, parents before children. Raises SemaphoreError without room.

    `free`: records that nobody uses, ascending. A parent's index is smaller than that of each child.
    """
    index, left, unused = dict(core.tree().index), list(free), core.words[Header.USED_CHANNELS]
    found = {}
    for name in names:
        if len(name.encode()) > NAME_BYTES:
            raise SemaphoreError(f"the channel name {name[:40]!r}... is longer than {NAME_BYTES} bytes")
        parent = index.get(parent_name(name) or "", -1)
        channel = next((each for each in left if each > parent), unused)
        if channel == unused == core.layout.channels:
            raise SemaphoreError(
                f"no room for channel {name!r}: the table was made for {core.layout.channels} channels at the start;"
                " restart qjsupervisor to make a larger one"
            )
        if channel == unused:
            unused += 1
        else:
            left.remove(channel)
        found[name] = index[name] = channel
    return found


def vacant(core: TableCore) -> list[int]:
    """The records that belonged to a channel and are free now."""
    words = range(core.words[Header.USED_CHANNELS])
    return [channel for channel in words if not core.words[core.channel_base(channel) + Channel.NAME_LENGTH]]


def forgotten(core: TableCore) -> list[int]:
    """Retired channels that no worker knows any more and in which nothing runs or waits; children first.

    None in a cluster, where the coordinator knows channels by name and may lease us permits of one that is gone.
    """
    words, tree = core.words, core.tree()
    trees = [words[core.slot_base(slot) + Slot.TREE] for slot in range(core.slots)]
    oldest = min((each for each in trees if each), default=words[Header.GENERATION])
    found: list[int] = []
    kept = 0
    for channel in reversed(range(0 if core.leased else len(tree.names))):
        base = core.channel_base(channel)
        is_used = (
            not words[base + Channel.FLAGS] & Flag.RETIRED
            or words[base + Channel.RETIRED_AT] > oldest
            or words[base + Channel.TOTAL]
            or core.read_bitmap(base + core.layout.waiting_slots_in, core.slots)
            or tree.below[channel] & kept
        )
        if is_used:
            kept |= 1 << channel
        elif tree.names[channel]:
            found.append(channel)
    return found


def vacate(core: TableCore, channel: int) -> None:
    """Remove a forgotten channel's name from its record; the caller increments Header.GENERATION."""
    base = core.channel_base(channel)
    core.words[base + Channel.NAME_LENGTH] = 0
    core.words[base + Channel.PARENT] = 0


def retire(core: TableCore, channel: int) -> None:
    """Mark a channel as no longer configured; the caller increments Header.GENERATION by one."""
    base = core.channel_base(channel)
    if core.words[base + Channel.FLAGS] != Flag.RETIRED:
        core.words[base + Channel.RETIRED_AT] = core.words[Header.GENERATION] + 1
        core.words[base + Channel.FLAGS] = Flag.RETIRED
        core.words[base + Channel.MIN] = core.words[base + Channel.RESERVE] = core.words[base + Channel.WEIGHT] = 0


def add_channel(core: TableCore, spec: ChannelSpec, channel: int, parent: int, now_ns: int) -> None:
    """Give a channel the record that `places` found for it.

    The record is complete before it counts: a process killed in between leaves no half-configured channel.
    """
    base = core.channel_base(channel)
    if channel < core.words[Header.USED_CHANNELS]:
        _clear(core, channel)
    core.words[base + Channel.PARENT] = parent
    core.put_text(base + core.layout.channel_name, base + Channel.NAME_LENGTH, spec.name)
    write_channel(core, channel, spec, now_ns)
    core.words[Header.USED_CHANNELS] = max(core.words[Header.USED_CHANNELS], channel + 1)


def _clear(core: TableCore, channel: int) -> None:
    """Clear a vacant record, except for the mark that it is retired."""
    base = core.channel_base(channel)
    for word in range(base, base + core.layout.channel_name):
        if word != base + Channel.FLAGS:
            core.words[word] = 0
    for slot in range(core.slots):
        cell = core.cell_base(slot, channel)
        for word in range(cell, cell + CELL_WORDS):
            core.words[word] = 0


def write_channel(core: TableCore, channel: int, spec: ChannelSpec, now_ns: int) -> None:
    """Put a channel's settings in force; the caller increments Header.GENERATION and settles afterwards."""
    base = core.channel_base(channel)
    words = core.words
    throttle_ns = spec.throttle_s * 1_000_000_000
    words[base + Channel.CONFIGURED] = limit = _limit(spec.capacity, spec.name == ROOT)
    if core.leased:  # the broker decides what we may use of it; at first nothing
        words[Header.FLOORED] = 0
        waits_for_token = (throttle_ns or spec.rate) and not words[base + Channel.TOKEN]
        limit = 0 if waits_for_token else min(limit, words[base + Channel.RIGHT])
    words[base + Channel.CAPACITY] = limit
    words[base + Channel.THROTTLE_NS] = throttle_ns
    # The last start counts by the new throttle where that is shorter.
    words[base + Channel.NOT_BEFORE_NS] = min(words[base + Channel.NOT_BEFORE_NS], now_ns + throttle_ns)
    _write_rate(core, channel, spec.rate, now_ns)
    default = spec.rate_default
    words[base + Channel.RATE_DEFAULT] = default.starts if default else 0
    words[base + Channel.RATE_DEFAULT_NS] = int(default.period_s * 1e9) if default else 0
    words[base + Channel.CAPACITY_DEFAULT] = _limit(spec.capacity_default, False)
    words[base + Channel.MIN], words[base + Channel.RESERVE] = spec.minimum, int(spec.reserve)
    words[base + Channel.WEIGHT] = spec.weight
    words[base + Channel.FLAGS] = (
        Flag.SEQUENTIAL * spec.sequential
        + Flag.PAUSED * spec.paused
        + Flag.SEQUENTIAL_DEFAULT * spec.sequential_default
        + Flag.MADE * spec.made
    )


def _write_rate(core: TableCore, channel: int, rate: Rate | None, now_ns: int) -> None:
    """Replace the rate; the new one keeps the starts that the old one counted."""
    base, words = core.channel_base(channel), core.words
    old = core.ring(channel)
    starts, period_ns = (rate.starts, int(rate.period_s * 1e9)) if rate else (0, 0)
    if (starts, period_ns) == (words[base + Channel.RATE], words[base + Channel.RATE_NS]):
        return
    known = old.moments() if old is not None else []
    if old is None:
        words[base + Channel.RATE_SINCE_NS] = now_ns
    words[base + Channel.RATE], words[base + Channel.RATE_NS] = starts, period_ns
    new = core.ring(channel)
    if new is not None and (old is None or (old.per, old.size) != (new.per, new.size)):
        new.clear()
        new.add_past(known)


def _limit(capacity: int | None, is_root: bool) -> int:
    """The word for a capacity: -1 = no limit. 0 means 'no limit of its own', except at root, where nothing runs."""
    if capacity is None or (capacity == 0 and not is_root):
        return -1
    return capacity


def read_spec(core: TableCore, channel: int) -> ChannelSpec | None:
    """A channel's settings as in force; None if it is no longer configured."""
    base = core.channel_base(channel)
    w = core.words[base : base + CHANNEL_WORDS].tolist()
    flags = w[Channel.FLAGS]
    if flags & Flag.RETIRED:
        return None
    return ChannelSpec(
        name=core.tree().names[channel],
        capacity=None if w[Channel.CONFIGURED] < 0 else w[Channel.CONFIGURED],
        sequential=bool(flags & Flag.SEQUENTIAL),
        throttle_s=w[Channel.THROTTLE_NS] // 1_000_000_000,
        paused=bool(flags & Flag.PAUSED),
        capacity_default=None if w[Channel.CAPACITY_DEFAULT] < 0 else w[Channel.CAPACITY_DEFAULT],
        sequential_default=bool(flags & Flag.SEQUENTIAL_DEFAULT),
        rate=_rate(w[Channel.RATE], w[Channel.RATE_NS]),
        rate_default=_rate(w[Channel.RATE_DEFAULT], w[Channel.RATE_DEFAULT_NS]),
        made=bool(flags & Flag.MADE),
        minimum=w[Channel.MIN],
        reserve=bool(w[Channel.RESERVE]),
        weight=w[Channel.WEIGHT],
    )


def _rate(starts: int, period_ns: int) -> Rate | None:
    return Rate(starts, period_ns / 1e9) if starts else None
