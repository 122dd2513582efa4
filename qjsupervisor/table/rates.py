"""Rates and throttles of channels in the shared table: counting starts, and who learns when a channel opens again.

Runs under the table's lock. A rate is a ring of the last starts (../rates.py), a throttle is one moment. The functions
here move these moments and wake whoever watches the clock; `TableCore.settle` closes a channel by them. They choose
nobody (grants.py) and keep nothing over a restart (kept_starts.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..rates import Ring
from .core import TableCore
from .layout import NEVER_NS, STARTS_UNREAD, Channel, Header, Slot
from .words import Tree, bits

#: A grant taken later than this is counted anew, since others may have started meanwhile.
LATE_NS = 50_000_000
#: How long the substitute waits for the worker that watches the clock for all.
SUBSTITUTE_NS = 1_000_000_000


def count_start(core: TableCore, channel: int, now_ns: int) -> bool:
    """Count a start in the throttles and rates of a channel's path. Returns whether there are rates."""
    tree, rated = core.tree(), False
    for node in tree.paths[channel]:
        limits = tree.limits[node]
        if limits is not None and limits.paced:
            if limits.throttle_ns:
                start_throttle(core, node, limits.throttle_ns, now_ns)
            if limits.ring is not None:
                limits.ring.count(now_ns)
                rated = True
            core.settle(node, now_ns)
            # Those who wait here wake by themselves when it opens, so they must learn when that is.
            if limits.throttle_ns:
                _wake_waiting(core, tree.below[node])
            elif core.not_before_ns(node) > now_ns:
                wake_watchers(core, tree.below[node])
    return rated


def rings(core: TableCore, channel: int) -> list[tuple[int, Ring]]:
    """The channels of a path that have a rate, with their last starts."""
    tree = core.tree()
    if not tree.has_rings:
        return []
    found = [(node, tree.limits[node]) for node in tree.paths[channel]]
    return [(node, limits.ring) for node, limits in found if limits is not None and limits.ring is not None]


def delay_start(core: TableCore, channel: int, since_ns: int, now_ns: int) -> None:
    """A job counted at `since_ns` is sent only now."""
    for node, ring in rings(core, channel):
        if _knows(core, node, since_ns):
            ring.delay(since_ns, now_ns)
        else:
            ring.add_past([now_ns])
            wake_watchers(core, core.tree().below[node])
        core.settle(node, now_ns)


def take_back_start(core: TableCore, channel: int, since_ns: int, now_ns: int) -> None:
    """A job counted at `since_ns` is not sent after all."""
    for node, ring in rings(core, channel):
        if not _knows(core, node, since_ns):
            continue
        ring.take_back(since_ns, now_ns)
        core.settle(node, now_ns)
        if core.not_before_ns(node) > now_ns:  # earlier than those who wait have been told
            wake_watchers(core, core.tree().below[node])


def recount(core: TableCore, channel: int, since_ns: int, now_ns: int) -> int:
    """A job counted at `since_ns` is taken only now. Returns when it counts, or 0 if there is no room now."""
    rated = rings(core, channel)
    unread = bool(rated and core.words[Header.STARTS_UNREAD])
    is_over = unread or any(ring.is_over(now_ns) for _node, ring in rated)
    if not is_over and now_ns - since_ns < LATE_NS:
        return since_ns
    take_back_start(core, channel, since_ns, now_ns)
    if unread or any(ring.opens() > now_ns for _node, ring in rated):
        return 0
    for node, ring in rated:
        ring.count(now_ns)
        core.settle(node, now_ns)
    return now_ns


def add_past_starts(core: TableCore, channel: int, moments_ns: Iterable[int]) -> None:
    """Add starts made by others to a channel's ring, except those it already has."""
    ring = core.ring(channel)
    known_ns = core.words[core.channel_base(channel) + Channel.STARTS_KNOWN_NS]
    if ring is not None:
        ring.add_past(moment_ns for moment_ns in moments_ns if moment_ns > max(0, known_ns))


def set_starts(core: TableCore, slot: int, state: int, now_ns: int) -> None:
    """Write whether a database's earlier starts are known."""
    word = core.slot_base(slot) + Slot.STARTS
    core.words[Header.STARTS_UNREAD] += (state == STARTS_UNREAD) - (core.words[word] == STARTS_UNREAD)
    core.words[word] = state
    for channel, limits in enumerate(core.tree().limits):
        if limits is not None and limits.ring is not None:
            core.settle(channel, now_ns)


def start_throttles(core: TableCore, channel: int, started_ns: int, now_ns: int) -> None:
    """A job started in a channel then: the throttles of its path count from that time."""
    tree = core.tree()
    for node in tree.paths[channel]:
        limits = tree.limits[node]
        if limits is not None and limits.throttle_ns:
            start_throttle(core, node, limits.throttle_ns, started_ns)
            core.settle(node, now_ns)
            _wake_waiting(core, tree.below[node])


def start_throttle(core: TableCore, node: int, throttle_ns: int, started_ns: int) -> None:
    word = core.channel_base(node) + Channel.NOT_BEFORE_NS
    core.words[word] = max(core.words[word], started_ns + throttle_ns)


def restart_throttles(core: TableCore, channel: int, granted_ns: int, now_ns: int) -> bool:
    """A job granted at `granted_ns` is taken only now, and its throttles count from now.

    False: another one started meanwhile, so this one must wait. Rates count from when it is sent.
    """
    tree = core.tree()
    for node in tree.paths[channel]:
        limits = tree.limits[node]
        if limits is not None and limits.throttle_ns:
            until_ns = core.words[core.channel_base(node) + Channel.NOT_BEFORE_NS]
            if until_ns > max(now_ns, granted_ns + limits.throttle_ns):
                return False
    start_throttles(core, channel, now_ns, now_ns)
    return True


def open_throttled(core: TableCore, now_ns: int) -> None:
    """Reopen channels whose throttle or rate no longer closes them."""
    if core.words[Header.NEXT_OPEN_NS] > now_ns:
        return
    core.words[Header.NEXT_OPEN_NS] = NEVER_NS
    for channel in bits(core.read_bitmap(core.layout.throttled, core.layout.channels)):
        core.settle(channel, now_ns)


def pass_watch(core: TableCore, channels: int) -> None:
    """A database that may have watched the clock for others no longer waits in these channels."""
    tree = core.tree()
    for channel in bits(core.read_bitmap(core.layout.throttled, core.layout.channels)):
        if tree.below[channel] & channels:
            wake_watchers(core, tree.below[channel])


def wake_watchers(core: TableCore, channels: int) -> None:
    """The time at which these channels open has changed: wake those who watch the clock for all who wait."""
    for slot in {*watchers(core, channels)} - {-1}:
        core.wake(slot)


def watchers(core: TableCore, channels: int) -> tuple[int, int]:
    """The slots that watch the clock for all who wait in these channels; -1: nobody waits.

    The second is a substitute, in case the first is stopped.
    """
    waiting = core.waiting_slots(channels) & core.read_bitmap(core.layout.waiting, core.slots)
    return (waiting & -waiting).bit_length() - 1, waiting.bit_length() - 1


def _wake_waiting(core: TableCore, channels: int) -> None:
    for slot in bits(core.waiting_slots(channels)):
        core.wake(slot)


def _knows(core: TableCore, node: int, since_ns: int) -> bool:
    """Whether the ring has a start counted then; not if the rate was removed and set again meanwhile."""
    return since_ns >= int(core.words[core.channel_base(node) + Channel.RATE_SINCE_NS])


def watch_until_ns(core: TableCore, slot: int, throttled: int, wanted: int) -> int:
    """When a slot must see whether one of its `wanted` channels opened; NEVER_NS: never.

    `throttled`: the bitmap of all channels that time alone closes.
    """
    tree, first_ns = core.tree(), NEVER_NS
    for opens_ns, channel in sorted((core.not_before_ns(c), c) for c in bits(throttled) if tree.below[c] & wanted):
        if opens_ns >= first_ns:
            break
        patience_ns = _patience_ns(core, slot, channel, tree)
        if patience_ns is not None:
            first_ns = min(first_ns, opens_ns + patience_ns)
    return first_ns


def _patience_ns(core: TableCore, slot: int, channel: int, tree: Tree) -> int | None:
    """How long after a throttled channel opens to check it; None: others do.

    For a rate, only two of those waiting check. It opens for each start of a busy channel: all of them would wake
    each time, and one would be served.
    """
    limits = tree.limits[channel]
    if limits is None or limits.throttle_ns:
        return 0
    first, substitute = watchers(core, tree.below[channel])
    if slot == first or first < 0:
        return 0
    return SUBSTITUTE_NS if slot == substitute else None
