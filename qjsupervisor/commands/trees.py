"""The channel tree that holds for one database: of the configuration, or of its own queue_job_channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from psycopg2.extensions import connection as Connection

from ..channelspec import ROOT, ChannelSpec
from ..channelstring import checked, complete_tree
from ..config import Config
from ..states import Mode
from . import statements
from .jobrows import columns, fetch

_SETTINGS = {"capacity", "sequential", "throttle", "paused", "capacity_default", "sequential_default"}


class NoTree(ValueError):
    """Per-database mode, and the database has no tree that could be used; the message says why."""


def tree_of(connection: Connection, config: Config, database: str) -> Mapping[str, ChannelSpec]:
    """Channels by complete name; raises NoTree."""
    if config.mode is Mode.SERVER_WIDE:
        return {spec.name: spec for spec in config.channels}
    missing = _SETTINGS - columns(connection, "queue_job_channel")
    if missing:
        raise NoTree(
            "max_capacity needs the channel settings of queue_job 18.0.4: queue_job_channel has no column "
            + ", ".join(sorted(missing))
        )
    specs: dict[str, ChannelSpec] = {}
    for row in fetch(connection, statements.LIST_CHANNELS):
        spec = _spec(*row)
        specs[spec.name] = spec
    specs[ROOT] = _capped(specs.get(ROOT, ChannelSpec(name=ROOT, capacity=None)), config.db_capacity(database))
    return {spec.name: spec for spec in complete_tree(specs)}


def _spec(
    name: str,
    capacity: int | None,
    sequential: bool | None,
    throttle_s: int | None,
    paused: bool | None,
    capacity_default: int | None,
    sequential_default: bool | None,
) -> ChannelSpec:
    if name.split(".")[0] != ROOT:
        raise NoTree(f"channel {name!r} is not below root")
    if min(capacity or 0, throttle_s or 0, capacity_default or 0) < 0:
        raise NoTree(f"channel {name!r} has a negative capacity or throttle")
    spec = ChannelSpec(
        name=name,
        capacity=capacity or None,
        sequential=bool(sequential),
        throttle_s=throttle_s or 0,
        paused=bool(paused),
        capacity_default=capacity_default or None,
        sequential_default=bool(sequential_default),
    )
    try:
        return checked(spec)
    except ValueError as error:
        raise NoTree(f"channel {name!r}: {error}") from error


def _capped(root: ChannelSpec, most: int | None) -> ChannelSpec:
    return root if most is None else replace(root, capacity=min(most, root.capacity or most))
