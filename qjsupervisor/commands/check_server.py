"""Checks for room: PostgreSQL connections, file descriptors, slots for databases."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import NamedTuple

from ..config.load import Config
from ..errors import DatabaseError
from . import statements
from .findings import Finding, problem, warning
from .job_rows import fetch
from .session import session

#: Connections of the scout and of commands.
_BESIDE_WORKERS = 8
#: Descriptors for log, libraries, control socket, selector etc.
_OTHER_DESCRIPTORS = 64


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
    except DatabaseError as error:
        yield warning(f"connections of the server were not counted: {error}")
        return
    yield from judge_connections(Connections._make(row), len(databases))


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
