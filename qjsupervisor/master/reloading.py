"""What a new configuration changes in a running supervisor, and what only a restart can. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ..config.settings import Config
from ..states import Mode

#: Laid down at start: files that are held, the size and the rules of the shared table.
_FIXED = ("control_socket", "pidfile", "max_databases", "fairness", "fairness_weights", "cluster", "cluster_database")
#: With or without max_capacity these mean something else: then the mode is fixed too.
_OF_THE_MODE = ("channels", "max_capacity", "db_max_capacity")
_OF_THE_MONITOR = ("monitor", "monitor_token", "monitor_user", "monitor_password", "connection", "db_names")
LOGGING = ("log_file", "log_level", "log_format")


class Change(NamedTuple):
    """What becomes of a reload."""

    #: What holds from now on: the new one, but for what cannot change.
    config: Config
    #: Options that differ and need a restart.
    needs_restart: tuple[str, ...]
    channels: bool
    logging: bool
    monitor: bool
    #: What running workers are told.
    rules: bool


def compare(old: Config, new: Config) -> Change:
    """The change from one configuration to the next."""
    fixed = [name for name in _FIXED if getattr(old, name) != getattr(new, name)]
    if old.mode is not new.mode and Mode.PER_DATABASE in (old.mode, new.mode):
        fixed.append("mode")
        fixed += [name for name in _OF_THE_MODE if getattr(old, name) != getattr(new, name)]
    effective = replace(new, **{name: getattr(old, name) for name in fixed})
    return Change(
        config=effective,
        needs_restart=tuple(fixed),
        channels=old.channels != effective.channels,
        logging=any(getattr(old, name) != getattr(effective, name) for name in LOGGING),
        monitor=any(getattr(old, name) != getattr(effective, name) for name in _OF_THE_MONITOR),
        rules=old.rules != effective.rules,
    )
