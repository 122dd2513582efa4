"""The interface through which the monitor reads and requeues jobs; commands/for_monitor.py implements it.

The monitor may not import commands, so it receives the implementation at start. Nothing is imported before use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..config.settings import Config


class JobAccess(Protocol):
    """Each call opens its own short session, may block, and raises QJSupervisorError."""

    def list_jobs(self, config: Config, database: str, status: Mapping[str, Any]) -> Mapping[str, Any]:
        """{"waiting": [...], "failed": [...], "error": ""} with the first few of each; the session is read-only."""

    def requeue(self, config: Config, database: str, uuids: Sequence[str] | None) -> tuple[int, int]:
        """Set failed jobs back to pending, these or (None) all. Returns (requeued, left alone)."""
