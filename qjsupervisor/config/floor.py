"""What a supervisor of a cluster keeps: `coordination_floor = root:2,root.mail:1`.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..channelspec import ROOT, ChannelSpec, complete_name, parent_name
from .sizes import HIGHEST_CAPACITY
from .values import entries, integer_in, shown

_ALLOWED = "allowed: a number of permits of root, or CHANNEL:NUMBER, separated by commas"


def parse_floor(text: str) -> Mapping[str, int]:
    """Permits by complete channel name. Raises ValueError that names the entry."""
    found: dict[str, int] = {}
    for entry in entries(text):
        name, _, number = (part.strip() for part in (entry if ":" in entry else ":" + entry).partition(":"))
        try:
            floor = integer_in(0, HIGHEST_CAPACITY)(number)
        except ValueError as error:
            raise ValueError(f"entry {shown(entry)}: {error}; {_ALLOWED}") from None
        name = complete_name(name) if name else ROOT
        if name in found:
            raise ValueError(f"entry {shown(entry)}: {shown(name)} is given twice; keep one")
        found[name] = floor
    return {name: floor for name, floor in found.items() if floor}


def check_floor(floor: Mapping[str, int], channels: Sequence[ChannelSpec]) -> None:
    """Raises ValueError where a channel cannot have that floor."""
    specs = {spec.name: spec for spec in channels}
    for name, permits in floor.items():
        spec = specs.get(name)
        if spec is None or spec.capacity is None:
            raise ValueError(f"channel {name} has no capacity, and so no part of it to keep; allowed: limited channels")
        if spec.sequential or spec.throttle_s or spec.rate is not None:
            raise ValueError(f"channel {name} needs the coordinator for each start: it is sequential, or limits starts")
        if permits > spec.capacity:
            raise ValueError(f"channel {name} has a capacity of {spec.capacity}, less than {permits}")
        above = parent_name(name)
        while above is not None:
            has_limit = above in specs and specs[above].capacity is not None
            if has_limit and floor.get(above, 0) < permits:
                raise ValueError(f"channel {name} keeps {permits}, {above} above it {floor.get(above, 0)}: not less")
            above = parent_name(above)
