"""Scout: lists the databases, looks into each, and answers on a pipe. Short-lived, a child of the master.

Must not change anything, in no database. A database or a host that hangs costs one of PARALLEL threads its time
and the others nothing; what has not answered by SCAN_DEADLINE_S counts as unreachable, and the process ends.
"""

from __future__ import annotations

import json
import queue
import select
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from typing import Any

from ..config.settings import Config
from ..control import MAX_FRAME_BYTES, Pipe
from ..errors import DatabaseError, DatabaseUnavailable
from ..logs import get_logger
from ..postgres.eligibility import Verdict, can_be_counted
from ..states import EX_OK
from . import queries
from .probe import STATEMENT_TIMEOUT_S, Probe, opened, probe

#: For a whole scan.
SCAN_DEADLINE_S = 45.0
#: Connections at once: a small part of PostgreSQL's usual 100.
PARALLEL = 12
#: Bytes of a message that names may fill.
_LIST_BYTES = MAX_FRAME_BYTES // 2
#: Of what a database says of itself, which its owner can write: so long may a text be, so many entries a list has.
_MAX_CHARACTERS = 500
_MAX_ENTRIES = 50
#: Of a database that nobody had time to look into: the next scan begins with it.
NOT_LOOKED_AT = "the scan ended before it was looked at"


def run_scout(config: Config, pipe: Pipe, first: Collection[str] = ()) -> int:
    """Scan once, and tell the master. The messages are in control's docstring.

    `first`: databases to begin with, because the scan before had no time for them.
    """
    deadline_s = time.monotonic() + SCAN_DEADLINE_S
    try:
        names = list_databases(config)
    except DatabaseError as error:
        _send(pipe, {"error": f"the databases cannot be listed: {error}"})
        return EX_OK
    for part in _in_parts(names):
        _send(pipe, {"listed": part})
    names = [name for name in names if name not in config.untouched]
    try:
        for found in scan(config, names, deadline_s, first=first):
            _send(pipe, as_message(found, config))
    except DatabaseUnavailable as error:
        _send(pipe, {"error": str(error)})
        return EX_OK
    _send(pipe, {"done": True})
    return EX_OK


def list_databases(config: Config) -> list[str]:
    """The databases to look into: those named by db_name, or all that Odoo would list; and the globs hold.

    Blocks for a bounded time. DatabaseUnavailable where PostgreSQL cannot be asked; DatabaseGone where
    maintenance_db does not exist.
    """
    names = [entry.name for entry in config.db_names] if config.db_names else _discover(config)
    return [name for name in dict.fromkeys(names) if config.selects(name)]


def scan(
    config: Config, names: list[str], deadline_s: float, *, ask_leader: bool = False, first: Collection[str] = ()
) -> Iterator[Probe]:
    """Look into each database, in parallel; each answer as soon as it is there, all by `deadline_s`.

    `ask_leader`: see probe(). Raises DatabaseUnavailable where not even one thread can be started.
    """
    wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
    answers: queue.SimpleQueue[Probe] = queue.SimpleQueue()
    # Databases with a URI of their own last: a host that nobody can resolve holds a thread for long.
    uris = {entry.name for entry in config.db_names if entry.uri}
    for name in sorted(names, key=lambda each: (each not in first, each in uris)):
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
        reason = "no answer until the end of the scan" if name in begun else NOT_LOOKED_AT
        yield Probe(database=name, verdict=Verdict.UNREACHABLE, reason=reason)


def _start_threads(work: Callable[[], None], count: int) -> None:
    """As many as the system allows; fewer make a scan slower, and nothing else."""
    # Daemons: one that the resolver holds must not hold the process.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        started = sum(thread.ident is not None for thread in threads)
        limit = "more threads cannot be started: look at `ulimit -u`, and at pids.max of the control group"
        if started == 0:
            raise DatabaseUnavailable("scout", limit) from None
        get_logger().warning("scan_slowed", threads=started, wanted=count, reason=limit)


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
            **{key: _cut(value) for key, value in facts.items() if key != "columns"},
            "warnings": _cut(found.warnings),
        },
    }


def _cut(value: Any) -> Any:
    """What a database says of itself, short enough to be sent."""
    if isinstance(value, str):
        return value if len(value) <= _MAX_CHARACTERS else value[:_MAX_CHARACTERS] + "..."
    if isinstance(value, Mapping):
        return {_cut(key): _cut(each) for key, each in islice(value.items(), _MAX_ENTRIES)}
    if isinstance(value, list | tuple):
        return [_cut(each) for each in value[:_MAX_ENTRIES]]
    return value


def _in_parts(names: Sequence[str]) -> Iterator[list[str]]:
    """The names in lists of which each fits into a message; a control character takes six bytes there."""
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
    """Whatever goes wrong with one database is its own verdict: the others are looked into all the same."""
    try:
        return probe(
            name,
            config.dsn(name),
            config.mode,
            connect_s=config.connect_timeout_s,
            ask_leader=ask_leader,
            serve_neutralized=config.serve_neutralized,
        )
    except Exception as error:  # noqa: BLE001  (see above)
        get_logger().error("probe_failed", database=name, reason=str(error), exc_info=error)
        reason = f"looking into it failed: {type(error).__name__}: {error}"
        return Probe(database=name, verdict=Verdict.UNREACHABLE, reason=reason)


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
