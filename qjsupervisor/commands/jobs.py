"""`jobs`: lists the jobs of one or all databases and why each waiting job waits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..channelspec import complete_name
from ..config.load import Config
from ..errors import DatabaseError, DatabaseUnfit
from ..postgres import queries
from ..postgres.session import Session
from ..worker.past_starts import past_starts_params
from . import client, statements
from .databases import Done, in_all
from .job_rows import JobRow, Wanted, fetch, read_rows, to_jobs
from .output import duration, print_document, print_line, print_lines
from .session import session
from .trees import Specs, own_specs
from .why_waiting import Explainer, JobFacts, Reason, TreeFacts

__all__ = ["Wanted", "entries", "run"]

_EXIT_NOT_FOUND = 1
_SHOWN_MESSAGE = 200


class Listed(NamedTuple):
    """One job and why it waits."""

    row: JobRow
    job: JobFacts
    reasons: list[Reason]


class FoundJobs(NamedTuple):
    """The jobs found in one database."""

    #: Number of all its jobs by state.
    counts: Mapping[str, int]
    rows: Sequence[JobRow]
    #: The same jobs, explained lazily, as there may be hundreds of thousands.
    listed: Iterator[Listed]


def run(config: Config, database: str | None, wanted: Wanted, *, as_json: bool) -> int:
    """Print the jobs of one database, or (None) of all.

    Exit status 1 if a requested uuid was not found or a database could not be asked.
    """
    status = client.status_or_none(config)
    if database is None:
        return _run_all(config, status, wanted, as_json=as_json)
    found = _find(config, database, status, wanted)
    absent = _absent(wanted, found.rows)
    if as_json:
        head = {"database": database, "supervisor": status is not None, "counts": found.counts}
        print_document(head, "jobs", (_entry(*each) for each in found.listed), lambda: {"not_found": absent})
    else:
        _print_jobs(found)
        _print_counts(database, found)
        for uuid in absent:
            print_line(f"{uuid}: not in {database}, or not as it was asked for")
    return _EXIT_NOT_FOUND if absent else 0


def _find(config: Config, database: str, status: Mapping[str, Any] | None, wanted: Wanted) -> FoundJobs:
    with session(config, database, "jobs") as connection:
        counts = dict(fetch(connection, statements.COUNT_STATES))
        rows = read_rows(connection, wanted, config.rules.ageing_s)
        return FoundJobs(counts, rows, _listed(connection, config, database, status, rows))


def _absent(wanted: Wanted, rows: Iterable[JobRow]) -> list[str]:
    there = {row.uuid for row in rows} if wanted.uuids else set()
    return [uuid for uuid in wanted.uuids if uuid not in there]


def entries(
    connection: Session, config: Config, database: str, status: Mapping[str, Any] | None, wanted: Wanted
) -> list[dict[str, Any]]:
    """The jobs in the form of `jobs --json`, under "jobs"."""
    rows = read_rows(connection, wanted, config.rules.ageing_s)
    return [_entry(*each) for each in _listed(connection, config, database, status, rows)]


def _listed(
    connection: Session, config: Config, database: str, status: Mapping[str, Any] | None, rows: Sequence[JobRow]
) -> Iterator[Listed]:
    """Query the database at once; the iterator no longer needs it."""
    explainer = Explainer(status, _read_tree(connection, config, database))
    jobs = to_jobs(connection, rows)
    return (Listed(row, job, explainer.explain(job)) for row, job in zip(rows, jobs, strict=True))


# -- all databases -------------------------------------------------------------------------------------------------


class _Sum:
    """Totals over all databases."""

    def __init__(self, wanted: Wanted) -> None:
        self._missing = set(wanted.uuids)
        self.counts: Counter[str] = Counter()
        self.databases = self.listed = self.having = 0
        self.errors: list[DatabaseError] = []

    def results(self, found: Iterable[Done[FoundJobs]]) -> Iterator[tuple[str, FoundJobs]]:
        """Yield the databases that could be asked, adding up as it goes."""
        for done in found:
            if done.error is not None:
                self.errors.append(done.error)
            if done.result is not None:
                self._missing.difference_update(row.uuid for row in done.result.rows if self._missing)
                self.counts.update(done.result.counts)
                self.databases += 1
                self.having += bool(done.result.rows)
                self.listed += len(done.result.rows)
                yield done.database, done.result

    @property
    def missing(self) -> list[str]:
        return sorted(self._missing)


def _run_all(config: Config, status: Mapping[str, Any] | None, wanted: Wanted, *, as_json: bool) -> int:
    total = _Sum(wanted)
    found = total.results(in_all(config, lambda name: _find(config, name, status, wanted)))
    if as_json:
        documents = (
            {"database": name, "counts": each.counts, "jobs": [_entry(*job) for job in each.listed]}
            for name, each in found
        )
        print_document({"supervisor": status is not None}, "databases", documents, lambda: _tail(total))
    else:
        for name, each in found:
            if each.rows:
                _print_jobs(each)
                _print_counts(name, each)
                print_line()
        _print_total(total)
    return _EXIT_NOT_FOUND if total.missing or total.errors else 0


def _tail(total: _Sum) -> dict[str, Any]:
    errors = [{"database": error.database, "error": str(error)} for error in total.errors]
    return {"counts": total.counts, "not_found": total.missing, "errors": errors}


def _print_total(total: _Sum) -> None:
    counts = ", ".join(f"{count} {state}" for state, count in sorted(total.counts.items())) or "no jobs"
    plural = "" if total.having == 1 else "s"
    print_line(f"{total.databases} databases: {counts}; {total.listed} shown, of {total.having} database{plural}")
    for error in total.errors:
        print_line(f"not asked: {error}")
    for uuid in total.missing:
        print_line(f"{uuid}: in no database, or not as it was asked for")


# -- one database --------------------------------------------------------------------------------------------------


def _read_tree(connection: Session, config: Config, database: str) -> TreeFacts:
    try:
        own = own_specs(connection, config, database)
    except DatabaseUnfit as error:
        raise DatabaseUnfit(database, f"{database}: its jobs do not run: {error}") from error
    specs = {spec.name: spec for spec in config.channels} if own is None else own
    longest_throttle_s = max(spec.throttle_s for spec in specs.values())
    has_minimums = own is not None and any(spec.minimum for spec in own.values())
    return TreeFacts(
        database=database,
        specs=specs,
        is_own=own is not None,
        max_runtimes=config.rules.max_runtimes,
        running=dict(fetch(connection, statements.COUNT_RUNNING)),
        waiting=dict(fetch(connection, statements.COUNT_DUE)) if has_minimums else {},
        failed=dict(fetch(connection, statements.LIST_FAILED)),
        last_start_s=_last_starts(connection, longest_throttle_s) if longest_throttle_s else {},
        starts_s=_starts(connection, own) if own is not None else {},
    )


def _last_starts(connection: Session, within_s: int) -> dict[str, float]:
    """Complete channel name -> seconds since its last start."""
    found: dict[str, float] = {}
    for channel, age_s in fetch(connection, queries.LAST_STARTS, {"within_s": within_s}):
        name = complete_name(channel)
        found[name] = min(age_s, found.get(name, math.inf))
    return found


def _starts(connection: Session, specs: Specs) -> dict[str, list[float]]:
    """Complete channel name -> seconds since each start in the last period, for channels with a rate."""
    found: dict[str, list[float]] = {}
    params = past_starts_params([spec for spec in specs.values() if spec.rate or spec.rate_default])
    for channel, age_s in fetch(connection, queries.PAST_STARTS, params) if params else ():
        found.setdefault(complete_name(channel), []).append(age_s)
    return found


def _entry(row: JobRow, job: JobFacts, reasons: Sequence[Reason]) -> dict[str, Any]:
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
    """Replace infinite numbers, which JSON does not have."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in details.items()
    }


def _why(row: JobRow, reasons: Sequence[Reason]) -> str:
    if row.state == "failed":
        message = (row.exc_message or "").strip()[:_SHOWN_MESSAGE]
        return ": ".join(part for part in (row.exc_name, message) if part)
    return "; ".join(reason.text for reason in reasons)


def _print_jobs(found: FoundJobs) -> None:
    for each in found.listed:
        print_lines(_lines(*each))


def _print_counts(database: str, found: FoundJobs) -> None:
    total = ", ".join(f"{count} {state}" for state, count in found.counts.items()) or "no jobs"
    print_line(f"{database}: {total}" + (f"; {len(found.rows)} shown" if found.rows else ""))


def _lines(row: JobRow, job: JobFacts, reasons: Sequence[Reason]) -> list[str]:
    """The uuid, which people copy, comes first; what the job is and why it waits follow on their own lines."""
    age_s = row.age_s if row.age_s is not None and math.isfinite(row.age_s) else None
    place = f"place {row.ahead + 1}" if row.state == "pending" and (job.eta_in_s or 0) <= 0 else ""
    facts = (row.uuid, row.state, f"age {duration(age_s)}", place)
    what = f"{row.name or '(no name)'}, channel {row.channel}, priority {row.priority}"
    why = _why(row, reasons)
    return ["  ".join(filter(None, facts)), f"    {what}", *([f"    {why}"] if why else [])]
