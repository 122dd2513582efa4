"""Checks for room: PostgreSQL connections, file descriptors, slots for databases."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import NamedTuple

from ..config.load import Config
from ..errors import DatabaseError
from ..text import seconds
from . import statements
from .findings import Finding, note, problem, warning
from .job_rows import fetch
from .session import session

#: Connections of the scout and of commands.
_BESIDE_WORKERS = 8
#: Descriptors for log, libraries, control socket, selector etc.
_OTHER_DESCRIPTORS = 64
#: From then on an idle session reports what it wrote.
POSTGRESQL_15 = 150000


class Connections(NamedTuple):
    """One row of CONNECTIONS."""

    max_connections: int
    reserved: int
    #: -1: no limit for the role.
    role_limit: int
    used_by_others: int


def check_server(config: Config, databases: list[str]) -> Iterator[Finding]:
    """Findings about the server of the first database, and about this machine."""
    if len(databases) > config.max_databases:
        yield problem(
            f"{len(databases)} databases would have a worker, max_databases allows {config.max_databases}:"
            " the others get none; raise it and start anew"
        )
    yield from judge_descriptors(
        resource.getrlimit(resource.RLIMIT_NOFILE)[1], config, min(len(databases), config.max_databases)
    )
    if not databases:
        return
    try:
        with session(config, databases[0], "check") as connection:
            (row,) = fetch(connection, statements.CONNECTIONS)
            version = connection.version
    except DatabaseError as error:
        yield warning(f"connections of the server were not counted: {error}")
        return
    yield from judge_connections(Connections._make(row), len(databases))
    yield from judge_sleep(config, version)


def judge_connections(server: Connections, databases: int) -> Iterator[Finding]:
    """Whether the server has a connection for each database besides those Odoo uses."""
    needed = databases + _BESIDE_WORKERS
    room = server.max_connections - server.reserved
    if databases > room:
        yield problem(
            f"{databases} databases need a connection each, PostgreSQL has {room}"
            f" (max_connections = {server.max_connections}): raise max_connections"
        )
    elif needed + server.used_by_others > room:
        yield warning(
            f"{needed} connections are needed (one for each database, and {_BESIDE_WORKERS}), others use"
            f" {server.used_by_others} now, PostgreSQL has {room}: raise max_connections"
        )
    if 0 <= server.role_limit < needed:
        yield warning(
            f"{needed} connections are needed, the role may have {server.role_limit}: ALTER ROLE ... CONNECTION LIMIT"
        )


def judge_sleep(config: Config, version: int) -> Iterator[Finding]:
    """What will happen to databases without jobs. `version`: the server's, as libpq has it."""
    idle_s, sleep_s = config.rules.idle_timeout_s, config.sleep_timeout_s
    if idle_s is None:
        if sleep_s is not None:
            yield warning("sleep_timeout has no effect without idle_timeout")
        return
    yield note(
        f"idle_timeout = {seconds(idle_s)}: a database without jobs for so long dozes: its worker ends, and the porter"
        " keeps its connection and waits for the next job"
    )
    if sleep_s is None:
        return
    if version < POSTGRESQL_15:
        yield warning(
            f"sleep_timeout has no effect with PostgreSQL {version // 10000}, it takes 15 or later: databases only doze"
        )
    else:
        yield note(
            f"sleep_timeout = {seconds(sleep_s)}: after so long it has no connection either: its next job starts within"
            " a second, or up to 11 seconds late"
        )


def judge_descriptors(hard_limit: int, config: Config, databases: int) -> Iterator[Finding]:
    """Check the descriptor limit: the master needs one per slot and two per worker, a worker one per slot and job."""
    if hard_limit == resource.RLIM_INFINITY:
        return
    capacity = config.channels[0].capacity or 0
    needed = config.max_databases + max(2 * databases, capacity) + _OTHER_DESCRIPTORS
    if needed > hard_limit:
        yield warning(
            f"about {needed} file descriptors are needed in one process, its limit is {hard_limit}:"
            " raise it (LimitNOFILE, ulimit -Hn), or lower max_databases"
        )
