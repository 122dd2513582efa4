"""What the monitor can have done in a database; commands/for_monitor.py does it, with what `jobs` and `requeue` have.

The monitor lies below the commands, so it is given this at its start. None of it is imported before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..config.settings import Config


class JobAccess(Protocol):
    """Short sessions of the monitor's own; each call may wait, and raises QJSupervisorError."""

    def list_jobs(self, config: Config, database: str, status: Mapping[str, Any]) -> Mapping[str, Any]:
        """{"waiting": [...], "failed": [...], "error": ""}, at most some of each; the session is read-only."""

    def requeue(self, config: Config, database: str, uuids: Sequence[str] | None) -> tuple[int, int]:
        """Put failed jobs back to pending, these or (None) all: how many were, and how many were left alone."""
