"""`check`: the effect of minimums and weights of channels and databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase

from ..channelspec import ROOT, ChannelSpec, Share, parent_name
from ..config.settings import Config
from ..config.shares import excess
from ..config.sizes import minimums_below, size_text
from ..states import Mode
from ..text import rate, share
from .findings import Finding, note, warning


def about_minimums(config: Config, databases: Sequence[str]) -> Iterator[Finding]:
    """Whether the minimums of served databases fit into root besides those of channels."""
    capacity = config.channels[0].capacity
    over = excess(config.db_shares, tuple(databases), capacity)
    if over:
        yield warning(f"db_capacity: {over}: not all of them have their minimum when all wait")
        return
    of_databases = sum(config.share(name).minimum for name in databases)
    of_channels = sum(minimums_below(config.channels)[ROOT].values())
    total = of_databases + of_channels
    if of_databases and of_channels and capacity is not None and total > capacity:
        yield warning(
            f"the minimums of databases ({of_databases}) and of channels ({of_channels}) are {total} together,"
            f" {total - capacity} more than root has ({capacity}): both are kept only by jobs that count for both"
        )


def about_db_capacity(config: Config, databases: Sequence[str]) -> Iterator[Finding]:
    """What each pattern gives, and to how many of the served databases."""
    if not config.db_shares:
        return
    globs = [glob for glob, _share in config.db_shares]
    fits = Counter(next((glob for glob in globs if fnmatchcase(name, glob)), None) for name in databases)
    said = [
        f"{glob} {_share(given)} ({fits[glob] or 'no'} database{'s' * (fits[glob] != 1)})"
        for glob, given in config.db_shares
        if given.minimum or given.maximum
    ]
    yield note(f"db_capacity, jobs at once of each database: {', '.join(said)}; the first pattern that fits counts")


def about_shares(config: Config) -> Iterator[Finding]:
    """What comes first, and how starts are shared."""
    given = config.channels if config.mode is Mode.SERVER_WIDE else config.rules.channel_options
    least = [f"{spec.name} {size_text(spec.minimum)}{_kept(spec)}" for spec in given if spec.minimum]
    whose = "" if config.mode is Mode.SERVER_WIDE else ", in each database"
    if least:
        yield note(f"minimums{whose}: {', '.join(least)}; a channel that waits below its minimum comes first")
    rates = [f"{spec.name} {rate(asdict(spec.rate))}" for spec in given if spec.rate]
    rates += [f"each other channel below {s.name} {rate(asdict(s.rate_default))}" for s in given if s.rate_default]
    if rates:
        yield note(f"rates{whose or ', over all databases'}: {', '.join(rates)} at most, in any window")
    for parent in dict.fromkeys(parent_name(spec.name) or ROOT for spec in given if spec.weight):
        weights = {spec.name: max(1, spec.weight) for spec in given if parent_name(spec.name) == parent}
        starts = ", ".join(f"{name} {weight}" for name, weight in weights.items())
        yield note(f"weights below {parent}{whose}: {starts}, and 1 for what else waits there: so many starts in turn")


def _share(given: Share) -> str:
    return share({"min": given.minimum, "max": given.maximum, "reserve": given.reserve})


def _kept(spec: ChannelSpec) -> str:
    return " (kept free)" if spec.reserve else ""
