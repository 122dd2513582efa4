"""What databases are guaranteed and limited to: `db_capacity = prod_*:min=2:max=8,*:max=2`.  Pure."""

from __future__ import annotations

import math
from dataclasses import replace

from ..channelspec import Share
from .channel_string import HIGHEST_CAPACITY
from .values import entries, first_match, integer_in, shown

#: (glob over databases, its share); the first match wins.
Shares = tuple[tuple[str, Share], ...]
_ALLOWED = "allowed: PATTERN[:min=SIZE][:max=SIZE][:reserve], where SIZE is a number or a percentage of root"


def parse_shares(text: str) -> Shares:
    """The entries, percentages as they are written. Raises ValueError that names the entry."""
    return tuple(_parse(entry) for entry in entries(text))


def _parse(entry: str) -> tuple[str, Share]:
    pattern, *items = (part.strip() for part in entry.split(":"))
    share = Share()
    try:
        if not pattern or not items:
            raise ValueError(_ALLOWED)
        seen: set[str] = set()
        for item in items:
            key, equals, value = (part.strip() for part in item.partition("="))
            if key in seen:
                raise ValueError(f"{key} is given twice")
            seen.add(key)
            if key in ("min", "max") and equals:
                size = parse_size(key, value)
                share = replace(share, minimum=size) if key == "min" else replace(share, maximum=size)
            elif key == "reserve" and not equals:
                share = replace(share, reserve=True)
            else:
                raise ValueError(f"{shown(item)} is no setting; {_ALLOWED}")
        if share.reserve and not share.minimum:
            raise ValueError("reserve keeps a minimum free, and there is no min")
    except ValueError as error:
        raise ValueError(f"entry {shown(entry)}: {error}") from None
    return pattern, share


def parse_size(key: str, value: str) -> int:
    """'8' -> 8, '50%' -> -50: a percentage, to be resolved by `size_of`. Raises ValueError."""
    try:
        if value.endswith("%"):
            return -integer_in(1, 100)(value[:-1])
        return integer_in(1 if key == "max" else 0, HIGHEST_CAPACITY)(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}; or a percentage, as in 50%") from None


def size_of(size: int, of: int | None, whose: str) -> int:
    """A size as a number; a percentage is rounded up, and at least 1. Raises ValueError."""
    if size >= 0:
        return size
    if of is None:
        raise ValueError(f"{-size}% of {whose}, which has no limit; allowed there: a number")
    return max(1, math.ceil(of * -size / 100))


def resolved(shares: Shares, capacity: int | None) -> Shares:
    """The same in numbers, for a root of this capacity. Raises ValueError for what cannot be."""
    found = []
    for pattern, share in shares:
        try:
            least = size_of(share.minimum, capacity, "root")
            most = None if share.maximum is None else size_of(share.maximum, capacity, "root")
            if most is not None and least > most:
                raise ValueError(f"min is {least}, {least - most} more than max, which is {most}")
            if capacity is not None and least > capacity:
                raise ValueError(f"min is {least}, {least - capacity} more than root has, which is {capacity}")
        except ValueError as error:
            raise ValueError(f"entry {shown(pattern)}: {error}") from None
        found.append((pattern, Share(least, most, share.reserve)))
    return tuple(found)


def excess(shares: Shares, databases: tuple[str, ...], capacity: int | None) -> str:
    """By how much the minimums of these databases do not fit the root's capacity; '' where they do."""
    least = {name: share.minimum for name in databases if (share := first_match(shares, name)) and share.minimum}
    total = sum(least.values())
    if capacity is None or total <= capacity:
        return ""
    return f"the minimums of {len(least)} databases are {total}, {total - capacity} more than root has ({capacity})"
