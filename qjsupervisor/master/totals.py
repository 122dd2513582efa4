"""Sums over databases, for `status`: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..states import Wakefulness, WorkerState

_COUNTS = ("pending", "running", "failed", "not_due", "waiting_dependencies", "overdue")


def totals(databases: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of entries of the status under "databases"; `states`, `phases`: how many databases are in each."""
    views = list(databases)
    states: dict[str, int] = {}
    for view in views:
        states[str(view.get("state"))] = states.get(str(view.get("state")), 0) + 1
    return {
        "databases": len(views),
        "ready": states.get(WorkerState.READY.value, 0),
        "states": states,
        "phases": {each.value: sum(view.get("phase") == each.value for view in views) for each in Wakefulness},
        **{key: sum(view.get(key) or 0 for view in views) for key in _COUNTS},
        "per_minute": round(sum(view.get("per_minute") or 0 for view in views), 1),
        "oldest_pending_s": max((view.get("oldest_pending_s") or 0 for view in views), default=0),
    }
