"""Scout: lists the databases, looks into each, and answers on a pipe. Short-lived, a child of the master.

Must not change anything, in no database. A database or a host that hangs costs one of PARALLEL threads its time
and the others nothing; what has not answered by SCAN_DEADLINE_S counts as unreachable, and the process ends.
"""

from __future__ import annotations

import queue
import select
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ..config.settings import Config
from ..control import Pipe
from ..errors import DatabaseError, DatabaseUnavailable
from ..postgres.eligibility import Verdict, can_be_counted
from ..states import EX_OK
from . import queries
from .probe import STATEMENT_TIMEOUT_S, Probe, opened, probe

#: For a whole scan.
SCAN_DEADLINE_S = 45.0
#: Connections at once: a small part of PostgreSQL's usual 100.
PARALLEL = 12
#: Names of one message.
_NAMES_AT_ONCE = 200


def run_scout(config: Config, pipe: Pipe) -> int:
    """Scan once, and tell the master. The messages are in control's docstring."""
    deadline_s = time.monotonic() + SCAN_DEADLINE_S
    try:
        names = list_databases(config)
    except DatabaseError as error:
        _send(pipe, {"error": f"the databases cannot be listed: {error}"})
        return EX_OK
    for start in range(0, len(names), _NAMES_AT_ONCE):
        _send(pipe, {"listed": names[start : start + _NAMES_AT_ONCE]})
    for found in scan(config, [name for name in names if name not in config.untouched], deadline_s):
        _send(pipe, as_message(found, config))
    _send(pipe, {"done": True})
    return EX_OK


def list_databases(config: Config) -> list[str]:
    """The databases to look into: those named by db_name, or all that Odoo would list; and the globs hold.

    Blocks for a bounded time. DatabaseUnavailable where PostgreSQL cannot be asked; DatabaseGone where
    maintenance_db does not exist.
    """
    names = [entry.name for entry in config.db_names] if config.db_names else _discover(config)
    return [name for name in dict.fromkeys(names) if config.selects(name)]


def scan(config: Config, names: list[str], deadline_s: float, *, ask_leader: bool = False) -> Iterator[Probe]:
    """Look into each database, in parallel; each answer as soon as it is there, all by `deadline_s`.

    `ask_leader`: see probe().
    """
    wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
    answers: queue.SimpleQueue[Probe] = queue.SimpleQueue()
    # Databases with a URI of their own last: a host that nobody can resolve holds a thread for long.
    uris = {entry.name for entry in config.db_names if entry.uri}
    for name in sorted(names, key=lambda each: each in uris):
        wanted.put(name)

    def work() -> None:
        with suppress(queue.Empty):
            while True:
                name = wanted.get_nowait()
                answers.put(_probe(config, name, ask_leader))

    for _ in range(min(PARALLEL, len(names))):
        # Daemons: one that the resolver holds must not hold the process.
        threading.Thread(target=work, daemon=True).start()
    missing = dict.fromkeys(names)
    while missing:
        try:
            found = answers.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            break
        del missing[found.database]
        yield found
    for name in missing:
        yield Probe(database=name, verdict=Verdict.UNREACHABLE, reason="no answer until the end of the scan")


def as_message(found: Probe, config: Config) -> dict[str, Any]:
    """A probe as the master gets it.

    A database that is only deaf, or has a module in transition, gets a worker too: it starts nothing and says why, but
    what still runs there, after a restart of ours perhaps, holds its permits. "look": one that lives should see for
    itself what is there.
    """
    facts: Mapping[str, Any] = {} if found.facts is None else asdict(found.facts)
    countable = found.facts is not None and can_be_counted(
        found.facts, config.mode, serve_neutralized=config.serve_neutralized
    )
    return {
        "database": found.database,
        "verdict": (Verdict.READY if countable else found.verdict).value,
        "reason": found.reason,
        "look": found.verdict is Verdict.BLOCKED,
        "details": {
            **{key: value for key, value in facts.items() if key != "columns"},
            "warnings": list(found.warnings),
        },
    }


def _probe(config: Config, name: str, ask_leader: bool) -> Probe:
    return probe(
        name,
        config.dsn(name),
        config.mode,
        connect_s=config.connect_timeout_s,
        ask_leader=ask_leader,
        serve_neutralized=config.serve_neutralized,
    )


def _discover(config: Config) -> list[str]:
    dsn = config.connection.dsn(config.maintenance_db)
    not_served = sorted({"postgres", config.template, config.maintenance_db})
    with opened(config.maintenance_db, dsn, config.connect_timeout_s, STATEMENT_TIMEOUT_S) as session:
        rows = session.rows(queries.LIST_DATABASES, {"not_served": not_served})
    names = []
    for (raw,) in rows:
        # Bytes, because one name that is no UTF-8 must not hide all the others.
        with suppress(UnicodeDecodeError):
            names.append(bytes(raw).decode("utf-8"))
    return names


def _send(pipe: Pipe, message: Mapping[str, Any]) -> None:
    """Send, and wait for the master where it is slow; without a master there is nobody to tell."""
    while not pipe.send(message):
        if pipe.gone:
            raise SystemExit(EX_OK)
        poller = select.poll()
        poller.register(pipe, select.POLLOUT)
        poller.poll(1000)


__all__ = ["DatabaseUnavailable", "Probe", "list_databases", "probe", "run_scout", "scan"]
