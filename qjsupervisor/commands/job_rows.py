"""Reads a database's jobs for `jobs`: rows of queue_job and the channel facts derived from them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..config.values import is_unicode
from ..job import why_unsendable
from ..postgres import queries
from ..postgres.session import Session
from . import statements
from .why_waiting import JobFacts

#: A LIMIT that never limits.
_MOST = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which jobs to list."""

    uuids: tuple[str, ...] = ()
    state: str | None = None
    #: Complete name; includes its subchannels.
    channel: str | None = None
    #: Most jobs per database.
    limit: int = 100


class JobRow(NamedTuple):
    """One row of LIST_JOBS."""

    uuid: str
    state: str
    channel: str
    priority: int | None
    name: str | None
    retry: int | None
    max_retries: int | None
    exc_name: str | None
    exc_message: str | None
    dependencies: str | None
    created: str | None
    eta: str | None
    eta_in_s: float | None
    since_s: float | None
    ahead: int
    not_due: str | None
    age_s: float | None


def read_rows(connection: Session, wanted: Wanted, ageing_s: float = 0.0) -> list[JobRow]:
    """The wanted jobs; without a state or uuids, all that are not done or cancelled."""
    has_dependencies = "dependencies" in columns(connection, "queue_job")
    has_places = wanted.state in (None, "pending")
    statement = statements.LIST_JOBS.format(
        dependencies="job.dependencies::text" if has_dependencies else "NULL::text",
        rank=queries.AGED_RANK if ageing_s else "coalesce(job.priority, 10)",
        kept="MATERIALIZED" if has_places else "NOT MATERIALIZED",
    )
    params = {
        "uuids": list(wanted.uuids) or None,
        "states": None if wanted.state is None else [wanted.state],
        "channel": wanted.channel,
        "places": has_places,
        "limit": min(wanted.limit, _MOST),
        "ageing_s": ageing_s,
    }
    return [JobRow._make(row) for row in fetch(connection, statement, params)]


def to_jobs(connection: Session, rows: Sequence[JobRow]) -> Iterator[JobFacts]:
    """Convert rows for Explainer; one statement reads all the jobs they depend on."""
    parents = {row.uuid: parents_of(row.dependencies) for row in rows if row.state == "wait_dependencies"}
    undone = _undone(connection, {uuid for uuids in parents.values() for uuid in uuids})
    return (
        JobFacts(
            uuid=row.uuid,
            state=row.state,
            channel=row.channel,
            eta_in_s=row.eta_in_s,
            eta=row.eta,
            since_s=row.since_s if row.since_s is not None and math.isfinite(row.since_s) else None,
            parents=tuple(undone[uuid] for uuid in parents.get(row.uuid, ()) if uuid in undone),
            ahead=row.ahead,
            not_due=row.not_due,
            unsendable=why_unsendable(row.uuid),
        )
        for row in rows
    )


def parents_of(dependencies: str | None) -> list[str]:
    """The uuids in `depends_on`; [] if the JSON is anything else."""
    try:
        parsed: Any = json.loads(dependencies or "{}")
    except (ValueError, RecursionError):
        return []
    found = parsed.get("depends_on") if isinstance(parsed, dict) else None
    return [uuid for uuid in found if isinstance(uuid, str)] if isinstance(found, list) else []


def _undone(connection: Session, uuids: set[str]) -> dict[str, str]:
    """uuid -> description, for jobs that are not done: '<uuid> (failed)'."""
    if not uuids:
        return {}
    # A column or parameter can contain neither NUL nor a lone surrogate.
    askable = [uuid for uuid in uuids if "\0" not in uuid and is_unicode(uuid)]
    states = dict(fetch(connection, statements.LIST_STATES, {"uuids": askable}))
    return {uuid: f"{uuid} ({states.get(uuid, 'deleted')})" for uuid in uuids if states.get(uuid) != "done"}


def columns(connection: Session, table: str) -> set[str]:
    """The table's columns; empty if there is no such table."""
    return {name for (name,) in fetch(connection, statements.COLUMNS, {"table": table})}


def fetch(connection: Session, statement: str, params: dict[str, Any] | None = None) -> list[Any]:
    """All rows of a statement."""
    return connection.rows(statements.for_version(statement, connection.version), params or {})
