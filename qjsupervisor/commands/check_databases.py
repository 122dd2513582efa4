"""What would become of each database: the scout's own look, and what only `check` takes the time for."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..channelspec import ChannelSpec
from ..config.load import Config
from ..config.settings import APPLICATION_NAME
from ..errors import DatabaseError, DatabaseUnfit
from ..postgres.eligibility import Verdict
from ..scout.probe import Probe, changes_backend
from ..scout.scout import SCAN_DEADLINE_S, list_databases, scan
from ..states import Mode
from .session import session
from .trees import tree_of

_PARALLEL = 8


class Outcome(enum.Enum):
    """What would happen to a database's jobs."""

    RUNS = "would run"
    STANDBY = "standby"
    #: No queue_job: nothing is to be run.
    ABSENT = "absent"
    BLOCKED = "blocked"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseReport:
    """One database."""

    name: str
    outcome: Outcome
    reason: str | None = None
    warnings: tuple[str, ...] = ()
    #: Its own tree, in per-database mode.
    channels: tuple[ChannelSpec, ...] = ()
    #: Its jobs would not run, and somebody should do something.
    is_problem: bool = False


def check_databases(config: Config) -> list[DatabaseReport]:
    """All databases by name; raises DatabaseError where they cannot be listed."""
    names = list_databases(config)
    probes = scan(config, names, time.monotonic() + SCAN_DEADLINE_S, ask_leader=True)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        return sorted(pool.map(lambda found: report(config, found), probes), key=lambda each: each.name)


def report(config: Config, found: Probe) -> DatabaseReport:
    """What the scout's verdict means, with a closer look where it is good."""
    if found.verdict is Verdict.READY:
        return _closer(config, found)
    # A database named in db_name that does not exist is a slip; one without queue_job is not.
    is_problem = found.verdict is not Verdict.ABSENT or found.facts is None
    return DatabaseReport(
        name=found.database,
        outcome=Outcome(found.verdict.value),
        reason=found.reason,
        warnings=found.warnings,
        is_problem=is_problem,
    )


def _closer(config: Config, found: Probe) -> DatabaseReport:
    name = found.database
    try:
        if changes_backend(name, config.dsn(name)):
            return _blocked(found, _POOLED)
        tree = _own_tree(config, name)
    except DatabaseUnfit as error:
        return _blocked(found, str(error))
    except DatabaseError as error:
        return DatabaseReport(name=name, outcome=Outcome.UNREACHABLE, reason=str(error), is_problem=True)
    leader = found.facts.leader if found.facts is not None else None
    channels = tuple(tree.values())
    if leader is None or f"application {APPLICATION_NAME}" in leader:
        # Our own running supervisor, or one on another machine that shares the work.
        reason = None if leader is None else f"its jobs are dispatched by a supervisor: {leader}"
        return DatabaseReport(
            name=name, outcome=Outcome.RUNS, reason=reason, warnings=found.warnings, channels=channels
        )
    reason = f"another job runner holds the leader lock: {leader}; switch it off (README, Moving from OCA's)"
    return DatabaseReport(
        name=name,
        outcome=Outcome.STANDBY,
        reason=reason,
        warnings=found.warnings,
        channels=channels,
        is_problem=True,
    )


#: What pgbouncer's pool_mode does that matters here.
_POOLED = (
    "a connection pooler in transaction mode is in between: LISTEN and the leader lock cannot work there;"
    " connect to PostgreSQL itself (jobrunner_db_host, jobrunner_db_port), or set pool_mode = session"
)


def _blocked(found: Probe, reason: str) -> DatabaseReport:
    return DatabaseReport(
        name=found.database,
        outcome=Outcome.BLOCKED,
        reason=reason,
        warnings=found.warnings,
        is_problem=True,
    )


def _own_tree(config: Config, name: str) -> Mapping[str, ChannelSpec]:
    if config.mode is Mode.SERVER_WIDE:
        return {}
    with session(config, name, "check") as connection:
        return tree_of(connection, config, name)


def that_run(reports: Iterable[DatabaseReport]) -> Iterator[DatabaseReport]:
    """Those that would have a worker."""
    return (each for each in reports if each.outcome in (Outcome.RUNS, Outcome.STANDBY))
