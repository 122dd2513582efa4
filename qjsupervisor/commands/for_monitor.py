"""Implements monitor.ports.JobAccess with the code of `jobs` and `requeue`, in short sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.settings import Config
from .job_rows import Wanted, columns, fetch
from .jobs import entries
from .requeue import Selection, requeue
from .session import session

#: Jobs of each kind shown on a page.
SHOWN = 50
#: Limit for a statement whatever the table's size, because somebody waits at a browser.
_LIMIT_S = 5.0


def list_jobs(config: Config, database: str, status: Mapping[str, Any]) -> Mapping[str, Any]:
    """See monitor.ports.JobAccess; each job has the form of `jobs --json`."""
    with session(config, database, "monitor") as connection:
        connection.limit_s = _LIMIT_S
        fetch(connection, f"SET statement_timeout = '{_LIMIT_S:g}s'")
        fetch(connection, "SET default_transaction_read_only = on")
        failed = entries(connection, config, database, status, Wanted(state="failed", limit=SHOWN))
        waiting = entries(connection, config, database, status, Wanted(limit=SHOWN))
    return {"failed": failed, "waiting": [job for job in waiting if job["state"] != "failed"], "error": ""}


def requeue_failed(config: Config, database: str, uuids: Sequence[str] | None) -> tuple[int, int]:
    """See monitor.ports.JobAccess."""
    with session(config, database, "monitor") as connection:
        has_locks = bool(columns(connection, "queue_job_lock"))
        wanted = Selection(uuids=tuple(uuids or ()), state="failed")
        outcomes = requeue(connection, wanted, has_locks=has_locks)
    moved = sum(outcome.moved for outcome in outcomes)
    return moved, max(len(outcomes), len(uuids or ())) - moved
