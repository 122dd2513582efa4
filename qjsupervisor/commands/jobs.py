"""`jobs`: the jobs of one database, and for each that waits, why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..channelspec import complete_name
from ..config.load import Config
from ..errors import DatabaseUnfit
from ..postgres import queries
from ..postgres.session import Session
from . import client, statements
from .job_rows import Row, Wanted, fetch, read_rows, to_jobs
from .output import duration, print_json, print_line, print_lines
from .session import session
from .trees import own_specs
from .why_waiting import Job, Reason, Tree, explain

__all__ = ["Wanted", "entries", "run"]

_EXIT_NOT_FOUND = 1
_SHOWN_MESSAGE = 200


class Listed(NamedTuple):
    """One job and why it waits."""

    row: Row
    job: Job
    reasons: list[Reason]


def run(config: Config, database: str, wanted: Wanted, *, as_json: bool) -> int:
    """Print the jobs; exit status 1 if uuids were asked for and one of them is not there."""
    status = client.status_or_none(config)
    with session(config, database, "jobs") as connection:
        counts = dict(fetch(connection, statements.COUNT_STATES))
        listed = _listed(connection, config, database, status, wanted)
    absent = [uuid for uuid in wanted.uuids if uuid not in {each.row.uuid for each in listed}]
    if as_json:
        print_json(_document(database, status, counts, listed, absent))
    else:
        _print(database, counts, listed, absent)
    return _EXIT_NOT_FOUND if absent else 0


def entries(
    connection: Session, config: Config, database: str, status: Mapping[str, Any] | None, wanted: Wanted
) -> list[dict[str, Any]]:
    """The jobs as `jobs --json` has them, under "jobs"."""
    return [_entry(*each) for each in _listed(connection, config, database, status, wanted)]


def _listed(
    connection: Session, config: Config, database: str, status: Mapping[str, Any] | None, wanted: Wanted
) -> list[Listed]:
    rows = read_rows(connection, wanted, config.rules.ageing_s)
    tree = _read_tree(connection, config, database)
    jobs = to_jobs(connection, rows)
    return [Listed(row, job, explain(job, status, tree)) for row, job in zip(rows, jobs, strict=True)]


def _read_tree(connection: Session, config: Config, database: str) -> Tree:
    try:
        own = own_specs(connection, config, database)
    except DatabaseUnfit as error:
        raise DatabaseUnfit(database, f"{database}: its jobs do not run: {error}") from error
    specs = {spec.name: spec for spec in config.channels} if own is None else own
    longest_throttle_s = max(spec.throttle_s for spec in specs.values())
    return Tree(
        database=database,
        specs=specs,
        is_own=own is not None,
        max_runtimes=config.rules.max_runtimes,
        running=dict(fetch(connection, statements.COUNT_RUNNING)),
        failed=dict(fetch(connection, statements.LIST_FAILED)),
        last_start_s=_last_starts(connection, longest_throttle_s) if longest_throttle_s else {},
    )


def _last_starts(connection: Session, within_s: int) -> dict[str, float]:
    """Seconds since the last start, by complete name of the channel."""
    found: dict[str, float] = {}
    for channel, age_s in fetch(connection, queries.LAST_STARTS, {"within_s": within_s}):
        name = complete_name(channel)
        found[name] = min(age_s, found.get(name, math.inf))
    return found


def _document(
    database: str,
    status: Mapping[str, Any] | None,
    counts: Mapping[str, int],
    listed: Sequence[Listed],
    absent: Sequence[str],
) -> dict[str, Any]:
    return {
        "database": database,
        "supervisor": status is not None,
        "counts": counts,
        "jobs": [_entry(*each) for each in listed],
        "not_found": list(absent),
    }


def _entry(row: Row, job: Job, reasons: Sequence[Reason]) -> dict[str, Any]:
    return {
        "uuid": row.uuid,
        "state": row.state,
        "channel": row.channel,
        "priority": row.priority,
        "name": row.name,
        "retry": row.retry,
        "max_retries": row.max_retries,
        "date_created": row.created,
        "eta": row.eta,
        "since_s": job.since_s,
        "exc_name": row.exc_name,
        "exc_message": row.exc_message,
        "why": _why(row, reasons),
        "reasons": [{"code": reason.code, "text": reason.text, **_finite(reason.details)} for reason in reasons],
    }


def _finite(details: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinity."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in details.items()
    }


def _why(row: Row, reasons: Sequence[Reason]) -> str:
    if row.state == "failed":
        message = (row.exc_message or "").strip()[:_SHOWN_MESSAGE]
        return ": ".join(part for part in (row.exc_name, message) if part)
    return "; ".join(reason.text for reason in reasons)


def _print(database: str, counts: Mapping[str, int], listed: Sequence[Listed], absent: Sequence[str]) -> None:
    for each in listed:
        print_lines(_lines(*each))
    total = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no jobs"
    print_line(f"{database}: {total}" + (f"; {len(listed)} shown" if listed else ""))
    for uuid in absent:
        print_line(f"{uuid}: not in {database}, or not as it was asked for")


def _lines(row: Row, job: Job, reasons: Sequence[Reason]) -> list[str]:
    """The uuid, which is what one copies, first; what the job is and why it waits on lines of their own."""
    age_s = row.age_s if row.age_s is not None and math.isfinite(row.age_s) else None
    place = f"place {row.ahead + 1}" if row.state == "pending" and (job.eta_in_s or 0) <= 0 else ""
    facts = (row.uuid, row.state, f"age {duration(age_s)}", place)
    what = f"{row.name or '(no name)'}, channel {row.channel}, priority {row.priority}"
    why = _why(row, reasons)
    return ["  ".join(filter(None, facts)), f"    {what}", *([f"    {why}"] if why else [])]
