"""Says what would happen to each database: the scout's own probe plus checks only `check` takes time for."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from ..channelspec import ChannelSpec
from ..config.load import Config
from ..config.settings import APPLICATION_NAME
from ..errors import DatabaseError, DatabaseUnfit
from ..odoo.target import header_problem
from ..postgres.eligibility import Verdict
from ..scout.probe import Probe, changes_backend
from ..scout.scout import list_databases, scan, scan_limit_s
from ..text import channel_settings
from .check_odoo import read_facts, warnings_of
from .session import session
from .trees import Specs, own_specs, specs_without_effect

_PARALLEL = 8
#: Most channels named in one warning.
_NAMED = 5


class CheckOutcome(enum.Enum):
    """What would happen to a database's jobs."""

    RUNS = "would run"
    STANDBY = "standby"
    #: No queue_job, so nothing to run.
    ABSENT = "absent"
    BLOCKED = "blocked"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseReport:
    """One database."""

    name: str
    outcome: CheckOutcome
    reason: str | None = None
    warnings: tuple[str, ...] = ()
    #: Its own channel tree, in per-database mode.
    channels: tuple[ChannelSpec, ...] = ()
    #: database.uuid, if readable.
    uuid: str | None = None
    #: Its jobs would not run although they should.
    is_problem: bool = False


def check_databases(config: Config) -> list[DatabaseReport]:
    """Check all databases, ordered by name. Raises DatabaseError if they cannot be listed."""
    names = list_databases(config)
    probes = scan(config, names, time.monotonic() + scan_limit_s(len(names)), ask_leader=True)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        return sorted(pool.map(lambda found: report(config, found), probes), key=lambda each: each.name)


def report(config: Config, found: Probe) -> DatabaseReport:
    """What the scout's verdict means; a database that would be served is examined further."""
    if found.verdict is Verdict.READY:
        return _closer(config, found)
    # A database named in db_name that does not exist is a mistake; one without queue_job is not.
    is_problem = found.verdict is not Verdict.ABSENT or found.facts is None
    return DatabaseReport(
        name=found.database,
        outcome=CheckOutcome(found.verdict.value),
        reason=found.reason,
        warnings=found.warnings,
        is_problem=is_problem,
    )


def _closer(config: Config, found: Probe) -> DatabaseReport:
    name = found.database
    try:
        if changes_backend(name, config.dsn(name), config.connect_timeout_s):
            return _blocked(found, _POOLED)
        with session(config, name, "check") as connection:
            tree = own_specs(connection, config, name) or {}
            readable = found.facts is not None and found.facts.may_read_channel_settings
            facts = read_facts(connection)
            passed_over = specs_without_effect(connection, config, name) if readable else {}
    except DatabaseUnfit as error:
        return _blocked(found, str(error))
    except DatabaseError as error:
        return DatabaseReport(name=name, outcome=CheckOutcome.UNREACHABLE, reason=str(error), is_problem=True)
    leader = found.facts.leader if found.facts is not None else None
    channels = tuple(tree.values())
    more = (*warnings_of(facts), *_passed_over(passed_over), *_unheard(config, name))
    found = found._replace(warnings=(*found.warnings, *more))
    if leader is None or f"application {APPLICATION_NAME}" in leader:
        # Held by our own running supervisor, or by one on another machine that shares the work.
        reason = None if leader is None else f"its jobs are dispatched by a supervisor: {leader}"
        return DatabaseReport(
            name=name,
            outcome=CheckOutcome.RUNS,
            reason=reason,
            warnings=found.warnings,
            channels=channels,
            uuid=facts.uuid,
        )
    reason = f"another job runner holds the leader lock: {leader}; switch it off (README, Moving from OCA's)"
    return DatabaseReport(
        name=name,
        outcome=CheckOutcome.STANDBY,
        reason=reason,
        warnings=found.warnings,
        channels=channels,
        is_problem=True,
        uuid=facts.uuid,
    )


#: Why pgbouncer's transaction mode does not work.
_POOLED = (
    "a connection pooler in transaction mode is in between: LISTEN and the leader lock cannot work there;"
    " connect to PostgreSQL itself (jobrunner_db_host, jobrunner_db_port), or set pool_mode = session"
)


def _blocked(found: Probe, reason: str) -> DatabaseReport:
    return DatabaseReport(
        name=found.database,
        outcome=CheckOutcome.BLOCKED,
        reason=reason,
        warnings=found.warnings,
        is_problem=True,
    )


def _passed_over(specs: Specs) -> Iterator[str]:
    """Warn about channel settings made in Odoo that have no effect."""
    named = [f"{name} ({', '.join(_settings(spec))})" for name, spec in specs.items()]
    if named:
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        yield (
            f"its own channel settings have no effect, because `channels` is set: {', '.join(named[:_NAMED])}{more};"
            " take `channels` away, or set the same there"
        )


def _unheard(config: Config, database: str) -> Iterator[str]:
    """Warn about a name that cannot be sent to Odoo 19 or later; up to 18 it is only sent in the query."""
    why = header_problem(database)
    if why and (config.odoo.version is None or config.odoo.reads_environment):
        yield (
            "Odoo 19 and later run none of its jobs: they take the database from the header X-Odoo-Database, which"
            f" cannot carry its name: {why}; rename the database"
        )


def _settings(spec: ChannelSpec) -> list[str]:
    capacity = [] if spec.capacity is None else [f"capacity {spec.capacity}"]
    return capacity + channel_settings(asdict(spec))


def that_run(reports: Iterable[DatabaseReport]) -> Iterator[DatabaseReport]:
    """The databases that would get a worker."""
    return (each for each in reports if each.outcome in (CheckOutcome.RUNS, CheckOutcome.STANDBY))
