"""Builds the channel tree of a database, from the shared table or its own `queue_job_channel`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..backlog.backlog import Backlog
from ..backlog.names import Shared, only_root
from ..channelspec import ROOT, ChannelSpec
from ..config.channel_string import with_options
from ..errors import DatabaseUnfit
from ..postgres import queries
from ..postgres.database import Database
from ..table.slot import WorkerSlot

if TYPE_CHECKING:
    from ..config.settings import WorkerSettings


def shared_tree(
    worker_slot: WorkerSlot, *, window: int, on_full: Callable[[str], None] = lambda _channel: None
) -> Backlog:
    """The server-wide tree: configured channels and those created by defaults are all shared.

    `on_full`: called with the first channel for which the shared table has no room.
    """
    told = False

    def add(spec: ChannelSpec, parent: int) -> int | None:
        nonlocal told
        index = worker_slot.add_channel(spec, parent)
        if index is None and not told:
            told = True
            on_full(spec.name)
        return index

    specs = worker_slot.channels()
    shared = {spec.name: index for index, spec in enumerate(specs) if spec is not None}
    # Channels created by defaults come last, since an ancestor may have been configured since.
    known = sorted((spec for spec in specs if spec is not None), key=lambda spec: spec.made)
    backlog = Backlog(known, Shared(shared, keep_limits=False, add=add), window)
    backlog.tree_generation = worker_slot.tree_generation
    return backlog


def own_tree(settings: WorkerSettings, rows: list[tuple[Any, ...]]) -> Backlog:
    """The database's own tree, of which only root's overall limit is shared. `rows`: queries.CHANNELS.

    Raises DatabaseUnfit for a tree that queue_job would not accept.
    """
    specs = {spec.name: spec for spec in (_spec(settings, row) for row in rows)}
    root = specs.get(ROOT) or ChannelSpec(name=ROOT, capacity=None)
    limits = [limit for limit in (root.capacity, settings.root_capacity) if limit is not None]
    specs[ROOT] = replace(root, capacity=min(limits, default=None))
    try:
        given = with_options(tuple(specs.values()), settings.rules.channel_options)
    except ValueError as error:
        raise DatabaseUnfit(settings.database, f"channel_options do not go with its channel tree: {error}") from None
    return Backlog(given, only_root(), settings.window)


def build_tree(
    settings: WorkerSettings, worker_slot: WorkerSlot, database: Database, on_full: Callable[[str], None]
) -> Backlog:
    """The tree for the configured mode, read from the database if it has its own. Raises DatabaseError."""
    if not settings.mode.has_own_tree(database.has_channel_table):
        return shared_tree(worker_slot, window=settings.window, on_full=on_full)
    if not database.has_channel_table:
        raise DatabaseUnfit(
            settings.database,
            "channels per database need queue_job 18.0.4 or newer in it: upgrade it, or configure `channels`",
        )
    return own_tree(settings, database.rows(queries.CHANNELS))


def _spec(settings: WorkerSettings, row: tuple[Any, ...]) -> ChannelSpec:
    name, capacity, sequential, throttle, paused, capacity_default, sequential_default = row
    name = name or ""

    def refuse(why: str) -> DatabaseUnfit:
        return DatabaseUnfit(settings.database, f"its channel tree is invalid: channel {name!r} {why}")

    if name != ROOT and not name.startswith(ROOT + "."):
        raise refuse("is not below 'root'")
    for label, value in (("capacity", capacity), ("throttle", throttle), ("default capacity", capacity_default)):
        if value is not None and value < 0:
            raise refuse(f"has a negative {label}: {value}")
    if sequential and capacity != 1:
        raise refuse(f"is sequential, which needs capacity 1, not {capacity or 0}")
    if sequential_default and capacity_default not in (None, 0, 1):
        raise refuse(f"makes sequential subchannels, which needs default capacity 1, not {capacity_default}")
    return ChannelSpec(
        name=name,
        capacity=capacity or None,
        sequential=bool(sequential),
        throttle_s=throttle or 0,
        paused=bool(paused),
        capacity_default=capacity_default or None,
        sequential_default=bool(sequential_default),
    )
