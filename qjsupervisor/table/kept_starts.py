"""Saves and restores the starts counted by rates, for the state file across restarts of the supervisor.

{"at": UTC seconds, "channels": {NAME: [how many starts a moment stands for, [UTC seconds, ...]], ...}}
"""

from __future__ import annotations

import math
from typing import Any

from ..channelspec import inherited, parent_name
from .channels import SPARE_CHANNELS, add_channel, places, read_spec
from .core import TableCore
from .layout import Channel, Header

#: Most starts kept over all channels; the latest win.
MOST_KEPT = 20_000


def keep(core: TableCore, now_s: float, wall_s: float) -> dict[str, Any] | None:
    """The starts to keep, or None if no channel has a rate. Takes no lock: rows record what is counted meanwhile."""
    now_ns, tree = int(now_s * 1e9), core.tree()
    rings = {name: limits.ring for name, limits in zip(tree.names, tree.limits, strict=True) if limits is not None}
    found: dict[str, tuple[int, list[int]]] = {}
    for name, ring in rings.items():
        if ring is not None and name:
            within = [moment for moment in ring.stamps() if moment + ring.window > now_ns]
            found[name] = (ring.per, within)
    if not found:
        return None
    every = sorted((moment for _per, moments in found.values() for moment in moments), reverse=True)
    oldest = every[MOST_KEPT - 1] if len(every) > MOST_KEPT else 0
    channels = {
        name: [per, [round(wall_s - (now_ns - moment) / 1e9, 3) for moment in moments if moment >= oldest]]
        for name, (per, moments) in found.items()
    }
    return {"at": wall_s, "channels": channels}


def restore(core: TableCore, kept: Any, now_s: float, wall_s: float) -> bool:
    """Restore kept starts before any worker exists. False if any of it is invalid."""
    if kept is None:
        return True
    try:
        at_s, channels = float(kept["at"]), kept["channels"].items()
        known = {str(name): (int(per), [float(each) for each in moments]) for name, (per, moments) in channels}
    except (AttributeError, TypeError, ValueError, KeyError, OverflowError):
        return False
    if not all(math.isfinite(each) for each in (at_s, *(m for _per, moments in known.values() for m in moments))):
        return False
    now_ns = int(now_s * 1e9)
    for name, (per, moments) in known.items():
        channel = _channel(core, name, now_ns)
        ring = None if channel is None else core.ring(channel)
        if channel is not None and ring is not None and 0 < per <= 1000:
            # A clock set back meanwhile must not cause a wait longer than a period.
            past = [now_ns - max(0, int((wall_s - moment) * 1e9)) for moment in moments]
            ring.add_past(moment for moment in past for _ in range(per) if moment > 0)
            base = core.channel_base(channel)
            core.words[base + Channel.STARTS_KNOWN_NS] = now_ns - max(0, int((wall_s - at_s) * 1e9))
            core.settle(channel, now_ns)
    return True


def _channel(core: TableCore, name: str, now_ns: int) -> int | None:
    """The channel of that name, recreated if an ancestor's defaults had created it."""
    index = core.tree().index
    if name in index:
        return index[name]
    above = parent_name(name)
    while above is not None and above not in index:
        above = parent_name(above)
    spec = None if above is None else read_spec(core, index[above])
    left = core.layout.channels - core.words[Header.USED_CHANNELS]
    if above is None or spec is None or spec.rate_default is None or spec.made or left < SPARE_CHANNELS // 2:
        return None
    channel = places(core, [name], [])[name]
    add_channel(core, inherited(name, spec, made=True), channel, index[above], now_ns)
    core.words[Header.GENERATION] += 1
    return channel
