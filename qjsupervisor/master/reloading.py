"""What a new configuration changes in a running supervisor, and what needs a restart. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ..config.settings import Config
from ..states import Mode

#: Fixed at start: open files, and the size and rules of the shared table.
_FIXED = (
    "control_socket", "state_dir", "pidfile", "max_databases", "fairness", "fairness_weights", "cluster",
    "cluster_database", "coordination_floor",
)  # fmt: skip
#: Their meaning depends on the mode, which is fixed at start too.
_OF_THE_MODE = ("channels", "max_capacity", "db_max_capacity")
_OF_THE_MONITOR = ("monitor", "monitor_token", "monitor_user", "monitor_password", "connection", "db_names")
LOGGING = ("log_file", "log_level", "log_format", "log_jobs")


class ReloadEffect(NamedTuple):
    """The effect of a reload."""

    #: The configuration in force from now on: the new one, except for what cannot change.
    config: Config
    #: Options that differ and need a restart.
    needs_restart: tuple[str, ...]
    channels: bool
    logging: bool
    monitor: bool
    #: What databases are guaranteed and limited to.
    shares: bool
    #: Whether running workers must be told.
    rules: bool


def compare(old: Config, new: Config) -> ReloadEffect:
    """The change from one configuration to the next."""
    fixed = [name for name in _FIXED if getattr(old, name) != getattr(new, name)]
    if old.mode is not new.mode and Mode.PER_DATABASE in (old.mode, new.mode):
        fixed.append("mode")
        fixed += [name for name in _OF_THE_MODE if getattr(old, name) != getattr(new, name)]
    effective = replace(new, **{name: getattr(old, name) for name in fixed})
    return ReloadEffect(
        config=effective,
        needs_restart=tuple(fixed),
        channels=old.channels != effective.channels,
        shares=old.db_shares != effective.db_shares,
        logging=any(getattr(old, name) != getattr(effective, name) for name in LOGGING),
        monitor=any(getattr(old, name) != getattr(effective, name) for name in _OF_THE_MONITOR),
        rules=old.rules != effective.rules,
    )
