"""Probes one database: can its jobs be run, and if not, why? Used by the scout and by `check`.

It only reads, and every wait has a limit. The connection is asynchronous with its own deadlines, because neither
connect_timeout nor statement_timeout ends a wait for a server process that is stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..errors import DatabaseError, DatabaseGone, ServerDown
from ..postgres import queries as worker_queries
from ..postgres.eligibility import ProbeResult, Verdict, in_transition, is_neutralized, judge
from ..postgres.failures import ADMIN_SHUTDOWN
from ..postgres.lead_queries import LEADER_LOCK
from ..postgres.session import Session
from ..states import Mode
from . import queries

CONNECT_TIMEOUT_S = 5.0
#: For all statements of one probe together.
STATEMENT_TIMEOUT_S = 10.0


class Probe(NamedTuple):
    """What a probe found. `reason` explains every verdict but READY; `warnings` list what will not work well."""

    database: str
    verdict: Verdict
    reason: str | None
    warnings: tuple[str, ...] = ()
    #: An administrator ended the session, or stopped the server.
    was_ended: bool = False
    #: Its PostgreSQL, if that cannot be reached at all.
    server_down: str = ""
    #: The server refuses the connection, for a wrong password perhaps.
    was_refused: bool = False
    #: It has no job to run, count or show, so it needs no worker; False if not asked.
    rests: bool = False
    #: None if the database could not be queried.
    facts: ProbeResult | None = None


@contextmanager
def opened(database: str, dsn: Mapping[str, Any], connect_s: float, statements_s: float) -> Iterator[Session]:
    """A session whose statements may take `statements_s` in total. Raises DatabaseUnavailable or DatabaseGone."""
    session = Session(database, dsn, connect_s=connect_s)
    session.connect()
    try:
        session.limit_s, session.deadline_s = statements_s, time.monotonic() + statements_s
        yield session
    finally:
        session.close()


def probe(
    database: str,
    dsn: Mapping[str, Any],
    mode: Mode,
    *,
    connect_s: float = CONNECT_TIMEOUT_S,
    statements_s: float = STATEMENT_TIMEOUT_S,
    ask_leader: bool = False,
    ask_rest: bool = False,
    serve_neutralized: bool = False,
) -> Probe:
    """Probe one database. Blocks for at most connect_s + statements_s, plus the time of name resolution.

    `ask_leader`: also find out who holds the leader lock, which costs the server about a third of the rest.
    `ask_rest`: also whether it needs a worker.
    """
    try:
        with opened(database, dsn, connect_s, statements_s) as session:
            facts = gather(session, statements_s, ask_leader)
            verdict, reason, warnings = judge(facts, mode, serve_neutralized=serve_neutralized)
            rests = ask_rest and verdict is Verdict.READY and _rests(session)
    except DatabaseGone as error:
        return Probe(database=database, verdict=Verdict.ABSENT, reason=str(error))
    except DatabaseError as error:
        return Probe(
            database=database,
            verdict=Verdict.UNREACHABLE,
            reason=str(error),
            was_ended=error.sqlstate == ADMIN_SHUTDOWN,
            server_down=error.server if isinstance(error, ServerDown) else "",
            was_refused=error.refused and error.sqlstate is None and not isinstance(error, ServerDown),
        )
    return Probe(database=database, verdict=verdict, reason=reason, warnings=warnings, rests=rests, facts=facts)


def _rests(session: Session) -> bool:
    """Whether there is nothing for a worker; whatever keeps us from knowing, a worker will find out."""
    try:
        return bool(session.rows(queries.RESTS)[0][0])
    except DatabaseError:
        return False


def gather(session: Session, statements_s: float, ask_leader: bool) -> ProbeResult:
    """Query everything that judge() needs."""
    begin = queries.BEGIN.format(timeout_ms=int(statements_s * 1000))
    (row,) = session.rows(f"{begin}; {queries.FACTS}")
    role, version, in_recovery, read_only, encoding, has_modules, has_jobs, started, oid, policies = row
    elsewhere = None if has_jobs else session.rows(queries.ELSEWHERE)[0][0]
    columns = _columns(session.rows(queries.COLUMNS))
    module_columns = columns.get("ir_module_module", {})
    readable = all(module_columns.get(name, (False, False))[0] for name in ("name", "state"))
    modules = dict(session.rows(worker_queries.MODULES)) if has_modules and readable else {}
    neutralized, uuid = _parameters(session, columns.get("ir_config_parameter"))
    trigger = session.rows(worker_queries.TRIGGER) if has_jobs else []
    halves = {"high": LEADER_LOCK >> 32, "low": LEADER_LOCK & 0xFFFFFFFF}
    leader = session.rows(queries.LEADER, halves) if ask_leader else []
    return ProbeResult(
        role=role,
        server_version=version,
        in_recovery=in_recovery,
        read_only=read_only,
        encoding=encoding,
        module_table=has_modules,
        module_readable=readable,
        module_state=modules.get("queue_job"),
        modules=in_transition(modules),
        neutralized=neutralized,
        hidden_in=elsewhere,
        columns=columns,
        trigger_enabled=trigger[0][0] if trigger else None,
        trigger_complete=bool(trigger and trigger[0][1]),
        leader=_who(leader[0]) if leader else None,
        started=started,
        oid=oid,
        uuid=uuid,
        policies=tuple(policies),
    )


def _parameters(session: Session, columns: Mapping[str, tuple[bool, bool]] | None) -> tuple[bool | None, str | None]:
    """(whether the database is a neutralised copy, its database.uuid); None if unreadable.

    `columns`: those of ir_config_parameter.
    """
    if columns is None:
        return False, None
    if not all(columns.get(name, (False, False))[0] for name in ("key", "value")):
        return None, None
    found = dict(session.rows(queries.PARAMETERS))
    return is_neutralized([(found.get("database.is_neutralized"),)]), found.get("database.uuid")


def changes_backend(database: str, dsn: Mapping[str, Any], connect_s: float = CONNECT_TIMEOUT_S) -> bool:
    """Whether there is a pooler in transaction mode in between. LISTEN and session locks do not work through one.

    Without a pooler, or in session mode, we stay on one server process while another session of ours is busy.
    Raises DatabaseError.
    """
    with (
        opened(database, dsn, connect_s, STATEMENT_TIMEOUT_S) as one,
        opened(database, dsn, connect_s, STATEMENT_TIMEOUT_S) as other,
    ):
        before = one.rows(queries.BACKEND_PID)
        # The pooler gives the most recently returned server connection to the next transaction.
        other.rows("BEGIN READ ONLY")
        other.rows(queries.BACKEND_PID)
        return one.rows(queries.BACKEND_PID) != before


def _columns(rows: Sequence[tuple[Any, ...]]) -> dict[str, dict[str, tuple[bool, bool]]]:
    """table -> column -> (may SELECT, may UPDATE)."""
    found: dict[str, dict[str, tuple[bool, bool]]] = {}
    for table, column, may_select, may_update in rows:
        found.setdefault(table, {})[column] = (may_select, may_update)
    return found


def _who(row: tuple[Any, ...]) -> str:
    pid, application, user = row
    known = ", ".join(f"{name} {value}" for name, value in (("application", application), ("role", user)) if value)
    return f"server process {pid}" + (f" ({known})" if known else "")
