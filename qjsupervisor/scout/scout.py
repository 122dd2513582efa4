"""The scout: lists the databases, probes each one, and reports on a pipe. A short-lived child of the master.

It must never write to a database. A database or host that hangs ties up one of PARALLEL threads and delays nothing
else; a database that has not answered within scan_limit_s is reported as unreachable, and the process exits.
"""

from __future__ import annotations

import json
import queue
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from ..config.settings import Config, connect_limit_s
from ..control import MAX_FRAME_BYTES, Pipe
from ..errors import DatabaseError, DatabaseUnavailable, ServerDown
from ..logs import get_logger
from ..postgres.eligibility import Verdict, can_be_counted
from ..states import EX_OK
from . import queries
from .probe import STATEMENT_TIMEOUT_S, Probe, opened, probe

#: For a whole scan: at least the first, or for very many databases the second for each.
_SCAN_S, _SCAN_DATABASE_S = 45.0, 0.1
#: Connections open at once: a small share of PostgreSQL's default max_connections of 100.
PARALLEL = 12
#: How many bytes of a message database names may take up.
_LIST_BYTES = MAX_FRAME_BYTES // 2
#: Limits on what a database reports about itself, since its owner can write anything there: length of a text, entries
#: of a list.
_MAX_CHARACTERS = 500
_MAX_ENTRIES = 50
#: The reason given for a database that the scan did not get to. The next scan begins with it.
NOT_LOOKED_AT = "the scan ended before it was looked at"


def run_scout(config: Config, pipe: Pipe, first: Sequence[str] = ()) -> int:
    """Scan once and report to the master. The messages are specified in control's docstring.

    `first`: databases to start with, in this order, because previous scans did not get to them.
    """
    began_s = time.monotonic()
    try:
        names = list_databases(config)
    except DatabaseError as error:
        server = {"server_down": error.server} if isinstance(error, ServerDown) else {}
        _send(pipe, {"error": f"the databases cannot be listed: {error}", **server})
        return EX_OK
    for part in _in_parts(names):
        _send(pipe, {"listed": part})
    names = [name for name in names if name not in config.untouched]
    try:
        for found in scan(config, names, began_s + scan_limit_s(len(names)), first=first):
            _send(pipe, as_message(found, config))
    except DatabaseUnavailable as error:
        _send(pipe, {"error": str(error)})
        return EX_OK
    _send(pipe, {"done": True})
    return EX_OK


def scan_limit_s(databases: int) -> float:
    """How long a scan of so many databases may take."""
    return max(_SCAN_S, databases * _SCAN_DATABASE_S)


def list_databases(config: Config) -> list[str]:
    """The databases to probe: those in db_name, else all that Odoo would list, filtered by our patterns.

    Blocks for a bounded time. Raises DatabaseUnavailable if PostgreSQL cannot be reached, DatabaseGone if
    maintenance_db does not exist.
    """
    names = [entry.name for entry in config.db_names] if config.db_names else _discover(config)
    return [name for name in dict.fromkeys(names) if config.selects(name)]


def scan(
    config: Config, names: list[str], deadline_s: float, *, ask_leader: bool = False, first: Sequence[str] = ()
) -> Iterator[Probe]:
    """Probe all databases in parallel; yield each result as it arrives, and the last one by `deadline_s` (monotonic).

    What was not looked at comes in the order in which the next scan should begin with it: who waited longest first.
    `ask_leader`: see probe(). Raises DatabaseUnavailable if not a single thread can be started.
    """
    wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
    answers: queue.SimpleQueue[Probe] = queue.SimpleQueue()
    # Databases with a URI of their own come last: resolving an unknown host can block a thread for a long time.
    uris = {entry.name for entry in config.db_names if entry.uri}
    places = {name: place for place, name in enumerate(first)}
    names = sorted(names, key=lambda each: (places.get(each, len(places)), each in uris))
    for name in names:
        wanted.put(name)
    begun: set[str] = set()

    def work() -> None:
        with suppress(queue.Empty):
            while True:
                name = wanted.get_nowait()
                begun.add(name)
                answers.put(_probe(config, name, ask_leader))

    _start_threads(work, min(PARALLEL, len(names)))
    missing = dict.fromkeys(names)
    while missing:
        try:
            found = answers.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            break
        del missing[found.database]
        yield found
    for name in missing:
        reason = "no answer before the scan ended" if name in begun else NOT_LOOKED_AT
        yield Probe(database=name, verdict=Verdict.UNREACHABLE, reason=reason)


def _start_threads(work: Callable[[], None], count: int) -> None:
    """Start as many threads as the system allows; with fewer, the scan merely takes longer."""
    # Daemon threads, so that one stuck in the resolver does not keep the process alive.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        started = sum(thread.ident is not None for thread in threads)
        limit = "cannot start more threads: check `ulimit -u` and pids.max of the control group"
        if started == 0:
            raise DatabaseUnavailable("scout", limit) from None
        get_logger().warning("scan_slowed", threads=started, wanted=count, reason=limit)


def as_message(found: Probe, config: Config) -> dict[str, Any]:
    """The message to the master about one probe.

    A database that merely lacks the trigger, or has a module in transition, gets a worker too. That worker starts
    nothing and says why, but jobs that still run there, perhaps since before our restart, keep their permits. "look"
    asks a living worker to check its database for itself. A database that "rests" needs no worker.
    """
    facts: Mapping[str, Any] = {} if found.facts is None else found.facts._asdict()
    countable = found.facts is not None and can_be_counted(
        found.facts, config.mode, serve_neutralized=config.serve_neutralized
    )
    return {
        "database": found.database,
        "verdict": (Verdict.READY if countable else found.verdict).value,
        "reason": found.reason,
        **({"server_down": found.server_down} if found.server_down else {}),
        **({"rests": True} if found.rests else {}),
        "look": found.verdict is Verdict.BLOCKED,
        "ended": found.was_ended,
        "refused": found.was_refused,
        "details": {
            **{key: _cut(value) for key, value in facts.items() if key != "columns"},
            "warnings": _cut(found.warnings),
        },
    }


def _cut(value: Any) -> Any:
    """Truncate what a database reports about itself to a size that can be sent."""
    if isinstance(value, str):
        return value if len(value) <= _MAX_CHARACTERS else value[:_MAX_CHARACTERS] + "..."
    if isinstance(value, Mapping):
        return {_cut(key): _cut(each) for key, each in islice(value.items(), _MAX_ENTRIES)}
    if isinstance(value, list | tuple):
        return [_cut(each) for each in value[:_MAX_ENTRIES]]
    return value


def _in_parts(names: Sequence[str]) -> Iterator[list[str]]:
    """Split the names into lists that each fit into one message. A control character takes six bytes in JSON."""
    part: list[str] = []
    size = 0
    for name in names:
        size += len(json.dumps(name)) + 1
        if part and size > _LIST_BYTES:
            yield part
            part, size = [], len(json.dumps(name)) + 1
        part.append(name)
    if part:
        yield part


def _probe(config: Config, name: str, ask_leader: bool) -> Probe:
    """Probe one database. Any error becomes that database's verdict, so the others are still probed."""
    try:
        dsn = config.dsn(name)
        return probe(
            name,
            dsn,
            config.mode,
            connect_s=connect_limit_s(dsn, config.connect_timeout_s),
            ask_leader=ask_leader,
            ask_rest=config.rules.idle_timeout_s is not None,
            serve_neutralized=config.serve_neutralized,
        )
    except Exception as error:  # noqa: BLE001  (whatever it is, it is the verdict of this database alone)
        get_logger().error("probe_failed", database=name, reason=str(error), exc_info=error)
        reason = f"the probe failed: {type(error).__name__}: {error}"
        return Probe(database=name, verdict=Verdict.UNREACHABLE, reason=reason)


def _discover(config: Config) -> list[str]:
    dsn = config.connection.dsn(config.maintenance_db)
    not_served = sorted({"postgres", config.template, config.maintenance_db})
    with opened(config.maintenance_db, dsn, config.connect_timeout_s, STATEMENT_TIMEOUT_S) as session:
        rows = session.rows(queries.LIST_DATABASES, {"not_served": not_served})
    names = []
    for (raw,) in rows:
        # The query returns bytes, so that one name that is not UTF-8 cannot hide all the others.
        with suppress(UnicodeDecodeError):
            names.append(bytes(raw).decode("utf-8"))
    return names


def _send(pipe: Pipe, message: Mapping[str, Any]) -> None:
    """Send, waiting while the master is slow to read. Exits if the master is gone."""
    while not pipe.send(message):
        if pipe.gone:
            raise SystemExit(EX_OK)
        poller = select.poll()
        poller.register(pipe, select.POLLOUT)
        poller.poll(1000)


__all__ = ["DatabaseUnavailable", "Probe", "list_databases", "probe", "run_scout", "scan"]
