"""Fills a worker's windows from its database: at start, when a window runs low, and at intervals.

The first read of a tree uses the worker's own connection and reads only the head of a big table. Later reads run in
the background on a second connection, open only meanwhile: no index has the order of jobs, so reading a big table
takes as long as sorting it. If no second connection can be had, the worker's own is used (`is_refused`).
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from ..backlog.backlog import Backlog, Found, Snapshot
from ..backlog.nodes import Node
from ..backlog.tree import Change
from ..backoff import Backoff
from ..errors import DatabaseError
from ..job import Job, job_of
from ..loop import Alarm, Callback, Loop
from ..postgres import queries
from ..postgres.async_session import Rows, Statement
from ..postgres.database import Database
from ..postgres.reader import READ_TIMEOUT_S, Reader
from ..postgres.waiter import STATEMENT_TIMEOUT_S

#: Most failed jobs known individually; beyond that only their number is.
FAILED_LIMIT = 2000
#: From a table larger than this, only the best HEAD jobs are read first.
BIG_BYTES = 4 << 20
HEAD = 200
#: Nodes read at once.
NODES_AT_ONCE = 20
#: Pause after a silent second connection, since finding out took seconds in which jobs waited.
SILENT_PAUSE_S = 60.0


class Loaded(NamedTuple):
    """What a full read found besides what went into the backlog."""

    #: Jobs holding a permit.
    held: list[Job]
    #: Jobs held here that the database says are not running; see Backlog.load.
    conflicting: dict[int, Change]
    wait_dependencies: int
    took_s: float


class Reading:
    """All reads of one worker."""

    def __init__(self, database: Database, loop: Loop, window: int, wake: Callback = lambda _now_s: None) -> None:
        """`wake`: called when a delayed read may begin, or when one got no answer."""
        self._database = database
        self._loop = loop
        self._window = window
        self._reader: Reader | None = None
        #: The nodes being read in the background, or None for everything.
        self._nodes: list[Node] | None = None
        self._backlog: Backlog | None = None
        self._backoff = Backoff(first_s=1, limit_s=60)
        self._not_before_s = 0.0
        #: When a read postponed after a failed one may begin.
        self.retry = Alarm(loop, wake)
        self._wake = wake
        #: So much changed during the last full background read that its result was discarded.
        self.overtaken = False
        self._got_no_connection = False
        self._trouble = ""
        #: The error of the last background read, until fetched.
        self.error: DatabaseError | None = None
        self.loaded: Loaded | None = None
        #: Whether past starts are being read; and the result, until fetched.
        self._of_past = False
        self.past_starts: Rows | None = None

    # -- on the main connection ----------------------------------------------------------------------------

    def read_first(self, backlog: Backlog) -> Loaded:
        """Read what is needed to begin; of a big table only its head (`backlog.partial`).

        Raises DatabaseError.
        """
        about = self._database.about
        assert about is not None
        if about.jobs_bytes <= BIG_BYTES or not backlog.can_begin_with_head:
            return self.read_all(backlog, READ_TIMEOUT_S)
        began_s = time.monotonic()
        self.close()
        self._database.notified.forget()
        head = self._ordered(queries.HEAD, {"limit": HEAD, "deferred": backlog.deferred})
        (rows,) = self._database.snapshot([head], READ_TIMEOUT_S)
        held, found = sort_out(rows, HEAD, self._database.ageing_s)
        if not found.due_more:  # the table is big because of jobs that are over
            return self.read_all(backlog, READ_TIMEOUT_S)
        backlog.load_head([(job.id, job.channel) for job in held], found.due)
        return Loaded(held, {}, 0, time.monotonic() - began_s)

    def read_all(self, backlog: Backlog, limit_s: float = STATEMENT_TIMEOUT_S) -> Loaded:
        """Read everything now, with a limit for each statement. Raises DatabaseError."""
        self.close()
        began_s = time.monotonic()
        self._database.notified.forget()
        backlog.begin_read()
        load, counts, failed = self._database.snapshot(self._everything(backlog), limit_s)
        self.overtaken = False
        return self._load(backlog, load, counts, failed, time.monotonic() - began_s)

    def _ordered(self, statement: str, params: dict[str, Any]) -> Statement:
        ageing_s = self._database.ageing_s
        return queries.in_order(statement, ages=bool(ageing_s)), {**params, "ageing_s": ageing_s}

    def _everything(self, backlog: Backlog) -> list[Statement]:
        return [
            self._ordered(queries.LOAD, {"limit": self._window, "deferred": backlog.deferred}),
            (queries.COUNTS, None),
            (queries.FAILED, {"limit": FAILED_LIMIT, "first": backlog.names_in_order()}),
        ]

    def _load(self, backlog: Backlog, load: Rows, counts: Rows, failed: Rows, took_s: float) -> Loaded:
        held, found = sort_out(load, self._window, self._database.ageing_s)
        snapshot = Snapshot(
            held=[(job.id, job.channel) for job in held],
            found=found,
            counts={(channel, state): number for channel, state, number in counts},
            failed=[(job_id, channel) for job_id, channel in failed],
        )
        conflicting = backlog.load(snapshot)
        waiting = sum(number for _channel, state, number in counts if state == "wait_dependencies")
        return Loaded(held, conflicting, waiting, took_s)

    # -- in the background ---------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a read is running."""
        return self._reader is not None

    @property
    def trouble(self) -> str:
        """Why waiting jobs are read on the worker's own connection; '' if they are not."""
        return self._trouble if self._got_no_connection else ""

    def is_refused(self, now_s: float) -> bool:
        """Whether no connection for background reads could be had, and none is tried for now."""
        return self._got_no_connection and now_s < self._not_before_s

    def _may_begin(self, now_s: float) -> bool:
        """False if a read is running or the last one has just failed."""
        if self.busy:
            return False
        if now_s < self._not_before_s:
            self.retry.set(self._not_before_s)
            return False
        return True

    def start_past(self, backlog: Backlog, statement: str, params: dict[str, Any], now_s: float) -> bool:
        """Begin to read past starts, for past_starts.py. False: not now."""
        if not self._may_begin(now_s):
            return False
        return self._begin(backlog, [(statement, params)], now_s, of_past=True)

    def start(self, backlog: Backlog, nodes: list[Node] | None, now_s: float) -> bool:
        """Begin to read some nodes, or everything (None). False: not now."""
        if not self._may_begin(now_s):
            return False
        self._nodes = nodes[:NODES_AT_ONCE] if nodes is not None else None
        if nodes is None:
            self._database.notified.forget()
        backlog.begin_read()
        statements = self._everything(backlog) if self._nodes is None else self._channels(backlog, self._nodes)
        return self._begin(backlog, statements, now_s, of_past=False)

    def _begin(self, backlog: Backlog, statements: list[Statement], now_s: float, *, of_past: bool) -> bool:
        self._backlog, self._of_past = backlog, of_past
        self._reader = reader = Reader(self._database, self._loop, self._finish, self._lost)
        try:
            reader.start(statements)
        except DatabaseError as error:
            self._lost(error, now_s)
            return False
        return True

    def _channels(self, backlog: Backlog, nodes: list[Node]) -> list[Statement]:
        statements: list[Statement] = []
        deferred = backlog.deferred
        for node in nodes:
            names, and_null = backlog.raw_names(node)
            params = {"channels": names, "and_null": and_null, "limit": self._window, "deferred": deferred}
            statements.append(self._ordered(queries.READ_CHANNELS, params))
        return statements

    def _finish(self, results: list[Rows]) -> None:
        backlog, nodes, reader = self._backlog, self._nodes, self._reader
        assert backlog is not None
        assert reader is not None
        took_s = time.monotonic() - reader.began_s
        self._reader = None
        self._backoff.reset()
        self._got_no_connection = False
        if self._of_past:
            (self.past_starts,) = results
        elif backlog.changed_too_much:
            backlog.abandon_read()
            self.overtaken = nodes is None
        elif nodes is None:
            load, counts, failed = results
            self.loaded = self._load(backlog, load, counts, failed, took_s)
        else:
            ageing_s = self._database.ageing_s
            found = {n.name: sort_out(r, self._window, ageing_s)[1] for n, r in zip(nodes, results, strict=True)}
            backlog.merge(found)

    def _lost(self, error: DatabaseError, now_s: float) -> None:
        reader = self._reader
        assert reader is not None
        self._got_no_connection = reader.connecting
        self.close()
        self.error = error
        self._trouble = f"waiting jobs are read on the worker's own connection, which delays starts: {error}"
        self._not_before_s = time.monotonic() + max(SILENT_PAUSE_S if reader.is_silent else 0.0, self._backoff.next_s())
        if reader.is_silent:  # found out by a timer, so nothing else wakes the loop
            self._wake(now_s)

    def close(self) -> None:
        """Abandon a running read."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._backlog is not None:
            self._backlog.abandon_read()
            self._backlog = None


def sort_out(rows: Rows, limit: int, ageing_s: float = 0.0) -> tuple[list[Job], Found]:
    """Sort rows of queries.LOAD or READ_CHANNELS by kind; a kind that reached the limit has more."""
    kinds: dict[str, list[Job]] = {"held": [], "due": [], "later": []}
    for kind, *columns in rows:
        kinds[kind].append(job_of(columns, ageing_s))
    due = [job.pending for job in kinds["due"]]
    later = [job.pending for job in kinds["later"]]
    return kinds["held"], Found(due, len(due) >= limit, later, len(later) >= limit)
