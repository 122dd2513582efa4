"""What databases are guaranteed and limited to: `db_capacity = prod_*:min=2:max=8,*:max=2`.  Pure."""

from __future__ import annotations

from dataclasses import replace

from ..channelspec import Share
from .sizes import parse_size, size_of
from .values import entries, first_match, shown

#: (glob over databases, its share); the first match wins.
Shares = tuple[tuple[str, Share], ...]
_ALLOWED = "allowed: PATTERN[:min=SIZE][:max=SIZE][:reserve], where SIZE is a number or a percentage of root"


def parse_shares(text: str) -> Shares:
    """The entries, percentages as they are written. Raises ValueError that names the entry."""
    found: dict[str, Share] = {}
    for entry in entries(text):
        pattern, share = _parse(entry)
        if pattern in found:
            raise ValueError(f"entry {shown(entry)}: pattern {shown(pattern)} is given twice; keep one")
        found[pattern] = share
    return tuple(found.items())


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
                raise ValueError(f"{key} is given twice; keep one")
            seen.add(key)
            if key in ("min", "max") and equals:
                size = _size(key, value)
                share = replace(share, minimum=size) if key == "min" else replace(share, maximum=size)
            elif key == "reserve" and not equals:
                share = replace(share, reserve=True)
            else:
                raise ValueError(f"{shown(item)} is no setting; {_ALLOWED}")
        if share.reserve and not share.minimum:
            raise ValueError("reserve keeps a minimum free, and there is no min; add min=N, or remove it")
    except ValueError as error:
        raise ValueError(f"entry {shown(entry)}: {error}") from None
    return pattern, share


def _size(key: str, value: str) -> int:
    try:
        return parse_size(key, value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


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
