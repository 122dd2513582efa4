"""Permits by channel: adding and taking away. Pure."""

from __future__ import annotations

#: Without zeros.
Counts = dict[str, int]


def add(counts: Counts, more: Counts) -> None:
    """Add to `counts`."""
    for channel, n in more.items():
        counts[channel] = counts.get(channel, 0) + n


def take_away(counts: Counts, less: Counts) -> None:
    """Take away from `counts`, as far as it is there."""
    for channel, n in less.items():
        left = counts.pop(channel, 0) - n
        if left > 0:
            counts[channel] = left


def minus(counts: Counts, less: Counts) -> Counts:
    """What is left of `counts`."""
    return {c: n - less.get(c, 0) for c, n in counts.items() if n > less.get(c, 0)}


def plus(counts: Counts, more: Counts) -> Counts:
    """Both together."""
    total = dict(counts)
    add(total, more)
    return total
