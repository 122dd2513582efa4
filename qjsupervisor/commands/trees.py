"""The channel tree that holds for one database: of the configuration, or of its own queue_job_channel."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg2.extensions import connection as Connection

from ..channelspec import ChannelSpec
from ..config.load import Config
from ..errors import DatabaseUnfit
from ..postgres import queries
from ..postgres.eligibility import CHANNEL_COLUMNS
from ..states import Mode
from ..worker.trees import own_tree
from .job_rows import columns, fetch


def tree_of(connection: Connection, config: Config, database: str) -> Mapping[str, ChannelSpec]:
    """Channels by complete name, as the database's worker has them; raises DatabaseUnfit."""
    if config.mode is Mode.SERVER_WIDE:
        return {spec.name: spec for spec in config.channels}
    missing = set(CHANNEL_COLUMNS) - columns(connection, "queue_job_channel")
    if missing:
        raise DatabaseUnfit(
            database,
            "max_capacity needs the channel settings of queue_job 18.0.4: queue_job_channel has no column "
            + ", ".join(sorted(missing)),
        )
    tree = own_tree(config.worker_settings(database), fetch(connection, queries.CHANNELS))
    return {name: node.spec for name, node in tree.nodes.items()}
