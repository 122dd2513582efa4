"""The metrics with one value per database, channel or target: their names, help texts and places in the status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .waiting import is_stopped

View = Mapping[str, Any]


class Measure(NamedTuple):
    """One metric: `key` locates its value in the status; `_total` is appended to a counter's name."""

    name: str
    key: str | Callable[[View], object]
    text: str
    counter: bool = False

    def value(self, view: View) -> object:
        """Its value for one database, channel or target."""
        return view.get(self.key) if isinstance(self.key, str) else self.key(view)


def _of_share(key: str) -> Callable[[View], object]:
    """Getter for one field of a database's share (minimum, maximum)."""
    return lambda database: (database.get("share") or {}).get(key)


def _of_rate(key: str) -> Callable[[View], object]:
    """Getter for one field of a channel's rate."""
    return lambda channel: (channel.get("rate") or {}).get(key)


DATABASE = (
    Measure("database_pending", "pending", "Waiting jobs, for whatever reason."),
    Measure("database_not_due", "not_due", "Waiting jobs whose eta is in the future."),
    Measure("database_running", "running", "Jobs dispatched to Odoo and not finished."),
    Measure("database_failed", "failed", "Jobs in state failed."),
    Measure("database_dispatched", "dispatched", "Jobs dispatched to Odoo.", counter=True),
    Measure("database_restarts", "restarts", "Restarts of the database's worker.", counter=True),
    Measure("database_heartbeat_age_seconds", "heartbeat_age_s", "Time since the worker's last turn."),
    Measure("database_wait_seconds", "wait_s", "How long the database's best job has waited for a permit."),
    Measure("database_held", "held", "1 while the database is new and waits for `resume` (new_databases = hold)."),
    Measure("database_overdue", "overdue", "Jobs that have exceeded max_runtime of their channel."),
    Measure(
        "database_modules_seconds", "modules_for_s", "How long a module has been half installed; jobs wait for it."
    ),
    Measure(
        "database_upgrade_overdue",
        "upgrade_overdue",
        "1 while a module has been half installed for longer than upgrade_timeout.",
    ),
    Measure("database_oldest_pending_seconds", "oldest_pending_s", "How long the oldest due job has waited."),
    Measure(
        "database_stopped_channels",
        lambda view: len(view.get("stopped") or ()),
        "Sequential channels stopped by failed jobs of the database, its own and server-wide ones.",
    ),
    Measure("database_guaranteed", _of_share("min"), "Guaranteed number of jobs at once (db_capacity)."),
    Measure("database_limit", _of_share("max"), "Largest number of jobs at once (db_capacity)."),
    Measure("database_paused", "paused", "1 while an operator has paused the whole database."),
)
CHANNEL = (
    Measure("channel_capacity", "capacity", "Jobs that may run at once; +Inf: no limit of its own."),
    Measure("channel_running", "running", "Jobs running in the channel and its subchannels."),
    Measure("channel_pending", "pending", "Jobs waiting in the channel and its subchannels."),
    Measure("channel_failed", "failed", "Jobs in state failed in the channel and its subchannels."),
    Measure("channel_paused", "paused", "1 while the channel is paused."),
    Measure("channel_guaranteed", "minimum", "Guaranteed number of jobs at once (min)."),
    Measure(
        "channel_weight", "weight", "Share of starts relative to other channels of its parent, if it has a weight."
    ),
    Measure("channel_rate_limit", _of_rate("starts"), "Starts allowed by the channel's rate per period."),
    Measure("channel_rate_period_seconds", _of_rate("period_s"), "Period of the channel's rate."),
    Measure("channel_rate_used", _of_rate("used"), "Starts within the last period, if the channel has a rate."),
    Measure("channel_closed", "closed", "1 while the schedule closes the channel."),
    Measure("channel_stopped", is_stopped, "1 while the channel is sequential and stopped at a failed job."),
)
TARGET = (
    Measure("target_failures", "failures", "Failed requests since the last one that succeeded."),
    Measure(
        "target_unanswered",
        "unanswered",
        "Requests dropped since its last answer, because their jobs were over without one.",
    ),
    Measure("target_retry_seconds", "retry_in_s", "Time until a target that is down is probed again."),
)
