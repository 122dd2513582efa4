"""The channel tree that applies to a database: the configuration's, or that of its own queue_job_channel."""

from __future__ import annotations

from collections.abc import Mapping

from ..channelspec import ChannelSpec
from ..config.load import Config
from ..errors import DatabaseUnfit
from ..postgres import queries
from ..postgres.eligibility import CHANNEL_COLUMNS
from ..postgres.session import Session
from ..states import Mode
from ..worker.trees import own_tree
from .job_rows import columns, fetch

Specs = Mapping[str, ChannelSpec]


def own_specs(connection: Session, config: Config, database: str) -> Specs | None:
    """The database's own channels by complete name, as its worker uses them.

    None if those of the configuration apply. Raises DatabaseUnfit.
    """
    if config.mode is Mode.SERVER_WIDE:
        return None
    missing = _missing_columns(connection)
    if not config.mode.has_own_tree(not missing):
        return None
    if missing:
        raise DatabaseUnfit(
            database,
            "max_capacity needs the channel settings of queue_job 18.0.4: queue_job_channel has no column "
            + ", ".join(sorted(missing)),
        )
    return _read(connection, config, database)


def specs_without_effect(connection: Session, config: Config, database: str) -> Specs:
    """Channels with settings in the database that are ignored because `channels` is set."""
    if config.mode is not Mode.SERVER_WIDE:
        return {}
    try:
        specs = _read(connection, config, database)
    except DatabaseUnfit:  # invalid, but not used
        return {}
    return {name: spec for name, spec in specs.items() if spec != ChannelSpec(name=name, capacity=None)}


def _missing_columns(connection: Session) -> set[str]:
    return set(CHANNEL_COLUMNS) - columns(connection, "queue_job_channel")


def _read(connection: Session, config: Config, database: str) -> Specs:
    tree = own_tree(config.worker_settings(database), fetch(connection, queries.CHANNELS))
    return {name: node.spec for name, node in tree.nodes.items()}
