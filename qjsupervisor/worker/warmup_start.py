"""The warm-up's first half: workers that connect to a fake PostgreSQL, read an empty queue, serve it, and stop.

It runs the real worker on a real loop and table, down to psycopg2: only the connection is a fake. See warmup.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from psycopg2 import extensions
from structlog.typing import FilteringBoundLogger

from ..channelspec import ROOT
from ..config.settings import WorkerSettings
from ..control import Pipe
from ..postgres import lead_queries, queries
from ..postgres.eligibility import READ_COLUMNS, WRITTEN_COLUMNS
from ..states import Phase
from ..table.slot import WorkerSlot
from .worker import Worker

#: A worker starts once. More than these leave nothing less to each that it does on pages of its own.
STARTS = 3
#: The first turn connects and reads; after the third nothing is left to do.
_TURNS = 3
_NO_CHANNEL_OPTIONS = (None, False, 0, False, None, False)
#: Statement -> its rows; others return none.
_ROWS: Mapping[str, list[tuple[Any, ...]]] = {
    queries.ABOUT: [(1, "UTF8", False, True, True, True, 0, False, True, "0", 1, 0.0)],
    queries.MODULES: [("queue_job", "installed")],
    queries.PRIVILEGES: [(name, True, True, "nobody") for name in dict.fromkeys(READ_COLUMNS + WRITTEN_COLUMNS)],
    queries.TRIGGER: [("O", True)],
    lead_queries.TRY_LEAD: [(True,)],
    queries.CHANNELS: [(ROOT, *_NO_CHANNEL_OPTIONS)],
}


class FakeConnection:
    """The part of psycopg2's connection and cursor that a session uses, in one object."""

    server_version = 180000
    description = True

    def __init__(self, _dsn: str, _async: int) -> None:
        self.closed = 0
        self.notices: list[str] = []
        self.notifies: Any = []
        self._ready = os.eventfd(1)
        self._waits = True
        self._rows: list[tuple[Any, ...]] = []

    def fileno(self) -> int:
        return self._ready

    def poll(self) -> int:
        """Waits once for each statement."""
        waits, self._waits = self._waits, False
        return extensions.POLL_READ if waits else extensions.POLL_OK

    def get_parameter_status(self, _name: str) -> str:
        return "UTF8"

    def cursor(self) -> FakeConnection:
        return self

    def execute(self, statement: str, _params: Mapping[str, Any] | None) -> None:
        self._waits = True
        self._rows = _ROWS.get(statement, [])

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows

    def close(self) -> None:
        self.closed = 1
        os.close(self._ready)


def run_starts(settings: WorkerSettings, worker_slot: WorkerSlot, log: FilteringBoundLogger, times: int) -> int:
    """Start and stop workers, one after the other; returns how many of them served."""
    nowhere = (("host", "/nonexistent"), ("dbname", settings.database), ("user", "nobody"), ("password", "none"))
    settings = replace(settings, dsn=nowhere)
    return sum(_run_once(settings, worker_slot, log) for _ in range(times))


def _run_once(settings: WorkerSettings, worker_slot: WorkerSlot, log: FilteringBoundLogger) -> bool:
    ours, theirs = Pipe.pair()
    worker = Worker(settings, worker_slot, theirs, log)
    worker.parts.database.session.connect_kwargs["connection_factory"] = FakeConnection
    more = True
    for _ in range(_TURNS):
        more = worker.turn(more=more, limit_s=0.0)
    served = worker.progress.phase is Phase.SERVING
    ours.send({"do": "stop"})
    while worker.progress.exit_code is None:
        worker.turn(more=False)
    worker.close()
    ours.close()
    theirs.close()
    return served
