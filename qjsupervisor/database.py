"""A worker's connection to its database: LISTEN, the leader lock, jobs in and out.

One connection a database, in autocommit; a second one, only while a big table is read (`Reader`), so that such a
read does not hold up the loop. Every psycopg2 error leaves here as a DatabaseError, and the connection is of no use
afterwards. It decides nothing about jobs, logs nothing, sleeps never.

psycopg2 waits in `_wait`, its green mode: with a deadline (a silent server must not hold a worker for ever), and
stamping the worker's heartbeat while it waits.
"""

from __future__ import annotations

import itertools
import secrets
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg2
import psycopg2.extensions

from . import queries
from .errors import DatabaseError, DatabaseGone, DatabaseUnavailable, DatabaseUnfit
from .fitness import READ_COLUMNS, WRITTEN_COLUMNS
from .nodes import Pending

CHANNEL = "queue_job"
#: A statement that takes longer is given up, and the connection with it; the server is told the same.
STATEMENT_TIMEOUT_S = 15.0
#: libpq's own connect_timeout does not count when it does not block.
CONNECT_LIMIT_S = 10.0
#: Full reads of big tables run aside and may take longer.
READ_TIMEOUT_S = 300.0
#: A table that somebody has locked (an upgrade) is not waited for any longer: permits were taken for what is asked.
LOCK_TIMEOUT_S = 1.0
#: A sign of life takes no longer than this, unless the server is gone.
SIGN_LIMIT_S = 5.0
#: How often a heartbeat is given while a statement is waited for.
_WAIT_SLICE_S = 1.0
#: Notifications remembered; past that the table is read instead.
MAX_NOTIFIED = 5000
#: Sorts behind every date; for NULL and 'infinity'.
_LATEST_US = 1 << 62


class Job(NamedTuple):
    """One row of queue_job, as far as a runner is concerned."""

    id: int
    uuid: str
    channel: str | None
    state: str
    key: tuple[int, int, int]
    eta_us: int | None

    @property
    def pending(self) -> Pending:
        return Pending(self.key, self.channel, self.eta_us)


class About(NamedTuple):
    """What kind of database this is."""

    backend_pid: int
    encoding: str
    in_recovery: bool
    has_lock_table: bool
    may_lock: bool
    has_channel_table: bool


class Notified:
    """What NOTIFY said, without what we caused ourselves and without doubles; psycopg2 appends to it."""

    def __init__(self) -> None:
        #: How often each was said.
        self._uuids: dict[str, int] = {}
        self.own_pid = 0
        #: More was said than is remembered: read the table.
        self.overflowed = False
        #: A channel's settings changed (queue_job 18.0.4).
        self.reload = False
        #: Our own sign of life came back.
        self.heard_itself = False

    def append(self, notify: psycopg2.extensions.Notify) -> None:
        """Called by psycopg2 for each notification that it meets, in whatever statement."""
        if notify.pid == self.own_pid:
            self.heard_itself = True
        elif notify.payload == "reload":
            self.reload = True
        elif notify.payload in self._uuids:
            self._uuids[notify.payload] += 1
        elif len(self._uuids) < MAX_NOTIFIED:
            self._uuids[notify.payload] = 1
        else:
            self.overflowed = True

    def __len__(self) -> int:
        return len(self._uuids)

    def take(self, limit: int) -> dict[str, int]:
        """Up to `limit` of what was said, oldest first, and how often."""
        if len(self._uuids) <= limit:
            found, self._uuids = self._uuids, {}
            return found
        found = dict(itertools.islice(self._uuids.items(), limit))
        for uuid in found:
            del self._uuids[uuid]
        return found

    def forget(self) -> None:
        """The table is about to be read: what was said so far is in it."""
        self._uuids.clear()
        self.overflowed = False


class Waiter:
    """How psycopg2 waits in this process: `stamp` is called while it does, and no wait is for ever."""

    def __init__(self, stamp: Callable[[], None]) -> None:
        self._stamp = stamp
        self.limit_s = STATEMENT_TIMEOUT_S

    def install(self) -> None:
        """Make psycopg2 wait here, for the whole process."""
        psycopg2.extensions.set_wait_callback(self._wait)

    def _wait(self, connection: Any) -> None:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        # A little longer than the server's own limit: its word is better than a cut connection.
        deadline_s = time.monotonic() + self.limit_s + 3
        poller = select.poll()
        while state != psycopg2.extensions.POLL_OK:
            reads = state == psycopg2.extensions.POLL_READ
            poller.register(connection.fileno(), select.POLLIN if reads else select.POLLOUT)
            while not poller.poll(_WAIT_SLICE_S * 1000):
                self._stamp()
                if time.monotonic() > deadline_s:
                    # psycopg2 closes the connection on this, and holds its lock: close() here would wait for ever.
                    raise psycopg2.OperationalError("the server does not answer")
            state = connection.poll()


class Database:
    """One connection to one database, as its worker uses it."""

    def __init__(self, name: str, connect_kwargs: dict[str, Any], waiter: Waiter) -> None:
        self.name = name
        self.waiter = waiter
        self.connect_kwargs = connect_kwargs
        self._connection: Any = None
        self._cursor: Any = None
        self.notified = Notified()
        self.about: About | None = None
        self._token = {"token": secrets.randbits(63)}

    # -- connection --------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect and look what this database is. Raises DatabaseUnavailable, DatabaseGone or DatabaseUnfit."""
        self.waiter.limit_s = CONNECT_LIMIT_S
        try:
            self._connection = psycopg2.connect(**self.connect_kwargs)
            self._connection.autocommit = True
            self._cursor = self._connection.cursor()
        except psycopg2.Error as error:
            self.close()
            raise _translated(self.name, error) from error
        self.about = About(*self.rows(queries.ABOUT)[0])
        if self.about.encoding == "SQL_ASCII":
            # Any bytes may be in there; this way they come and go unchanged.
            self._run(lambda: self._connection.set_client_encoding("LATIN1"))
        self.notified = Notified()
        self.notified.own_pid = self.about.backend_pid
        self._connection.notifies = self.notified
        self.rows(queries.KEEPALIVES)

    def limit_statements(self, limit_s: float) -> None:
        """How long a statement may take from now on, here and on the server."""
        self.rows(f"SET statement_timeout = '{limit_s:.0f}s'; SET lock_timeout = '{LOCK_TIMEOUT_S:.0f}s'")
        self.waiter.limit_s = limit_s

    def check(self) -> None:
        """Whether jobs may be run here. Raises DatabaseGone or DatabaseUnfit with the reason.

        Asked before every statement that would fail without it, so that it does not fail again and again.
        """
        assert self.about is not None
        if self.about.in_recovery:
            raise DatabaseUnavailable(self.name, "the server is in recovery: read-only")
        state = next(iter(self.rows(queries.MODULE_STATE)), (None,))[0]
        if state in (None, "uninstalled", "uninstallable"):
            raise DatabaseGone(self.name, "queue_job is not installed")
        if state != "installed":
            raise DatabaseUnfit(self.name, f"queue_job is '{state}': its jobs wait until that is done")
        enabled = next(iter(self.rows(queries.TRIGGER)), (None,))[0]
        if enabled is None:
            raise DatabaseUnfit(self.name, "trigger queue_job_notify is missing: upgrade queue_job in this database")
        if enabled not in ("O", "A"):
            raise DatabaseUnfit(self.name, "trigger queue_job_notify is disabled: enable it on table queue_job")
        columns = {"may_read": list(READ_COLUMNS), "may_write": list(WRITTEN_COLUMNS)}
        lacking = [f"{privilege} ({column})" for column, privilege in self.rows(queries.LACKING, columns)]
        if lacking:
            raise DatabaseUnfit(self.name, f"a privilege is missing: GRANT {', '.join(lacking)} ON queue_job")

    def listen(self) -> None:
        """Hear of jobs from now on, and prepare the statements of the loop."""
        self.rows(f"LISTEN {CHANNEL}")
        self.rows(queries.PREPARE)

    def lead(self) -> bool:
        """Try to become the one runner of this database; a ghost of our own former session cannot keep it from us."""
        if not self._try_lead() and not (self.rows(queries.END_OWN_GHOST, self._token) and self._try_lead()):
            return False
        self.rows(queries.MARK_LEADER, self._token)
        return True

    def _try_lead(self) -> bool:
        return bool(self.rows(queries.TRY_LEAD)[0][0])

    def close(self) -> None:
        """Close, whatever state it is in."""
        if self._connection is not None and not self._connection.closed:
            self._connection.close()
        self._connection = self._cursor = None

    @property
    def encoding(self) -> str:
        """How text of this database has to be encoded to be what it is in there, or what it stands for."""
        return "latin-1" if self.about is not None and self.about.encoding == "SQL_ASCII" else "utf-8"

    @property
    def has_channel_table(self) -> bool:
        """Whether channels are configured in the database itself (queue_job 18.0.4)."""
        return self.about is not None and self.about.has_channel_table

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    def fileno(self) -> int:
        """The socket, for the selector."""
        return int(self._connection.fileno())

    def receive(self) -> None:
        """Take in what arrived while nothing was asked."""
        self._run(self._connection.poll)

    def call_itself(self) -> None:
        """Send ourselves a notification: it comes back if LISTEN, the server and the network work."""
        self.notified.heard_itself = False
        usual_s, self.waiter.limit_s = self.waiter.limit_s, SIGN_LIMIT_S
        try:
            self.rows("SELECT pg_notify(%(channel)s, '')", {"channel": CHANNEL})
        finally:
            self.waiter.limit_s = usual_s

    def rows(self, statement: str, params: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement; its rows, [] for one that has none."""
        found: list[tuple[Any, ...]] = self._run(lambda: self._execute(statement, params))
        return found

    def _execute(self, statement: str, params: dict[str, Any] | None) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement, params)
        return self._cursor.fetchall() if self._cursor.description else []

    def _run(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except psycopg2.Error as error:
            self.close()
            translated = _translated(self.name, error)
            translated.refused = error.pgcode is not None
            raise translated from error

    # -- jobs --------------------------------------------------------------------------------------------

    def turn(self, claim: Mapping[int, int], uuids: Sequence[str]) -> tuple[list[Job], list[Job]]:
        """Claim pending jobs by id and read jobs by uuid, in one statement; (claimed, read).

        `claim`: with each job the one whose permit it takes over, which must be over for that; 0: it has its own.

        A job that could not be claimed is among those read, as it is, unless it is gone.
        """
        if claim:
            params = {"claim": list(claim), "former": list(claim.values()), "uuids": list(uuids)}
            found = self.rows(queries.TURN, params)
        else:
            found = self.rows(queries.READ, {"uuids": list(uuids)})
        claimed: list[Job] = []
        read: list[Job] = []
        for is_claimed, *columns in found:
            (claimed if is_claimed else read).append(job_of(columns))
        return claimed, read

    def give_back(self, ids: Iterable[int]) -> list[int]:
        """Put jobs that are still enqueued back to pending; ids of those that were."""
        return [job_id for (job_id,) in self.rows(queries.GIVE_BACK, {"ids": list(ids)})]

    def look_dead(self, ids: Iterable[int], grace_s: float) -> dict[int, str]:
        """Of jobs without a request of ours, those that look dead by the contract's rule, with their states."""
        statement = queries.LOOK_DEAD if self._may_lock else queries.LOOK_DEAD_UNLOCKED
        return dict(self.rows(statement, {"ids": list(ids), "grace_s": grace_s}))

    def revive(self, dead: Mapping[int, str], grace_s: float) -> list[Job]:
        """Put back what `look_dead` found, if it still is so; the jobs as they are now."""
        statement = queries.REVIVE if self._may_lock else queries.REVIVE_UNLOCKED
        started = [job_id for job_id, state in dead.items() if state == "started"]
        return [
            job_of(row) for row in self.rows(statement, {"ids": list(dead), "grace_s": grace_s, "started": started})
        ]

    @property
    def _may_lock(self) -> bool:
        assert self.about is not None
        return self.about.may_lock


def job_of(row: Sequence[Any]) -> Job:
    """A Job from JOB_COLUMNS."""
    job_id, uuid, channel, state, priority, created_s, eta_s = row
    key = (10 if priority is None else priority, _micros(created_s, _LATEST_US), job_id)
    return Job(job_id, uuid, channel, state, key, None if eta_s is None else _micros(eta_s, 0))


def _micros(seconds: float | None, missing: int) -> int:
    if seconds is None:
        return missing
    if seconds in (float("inf"), float("-inf")):
        return _LATEST_US if seconds > 0 else -_LATEST_US
    return max(-_LATEST_US, min(_LATEST_US, round(seconds * 1e6)))  # timestamps reach further than 63 bits


def _translated(name: str, error: psycopg2.Error) -> DatabaseError:
    """What a driver's error means for the worker."""
    message = " ".join(str(error).split()) or type(error).__name__
    code = error.pgcode or ""
    if code == "3D000" or (f'database "{name}" does not exist' in message and error.pgcode is None):
        return DatabaseGone(name, message)
    if code == "42P01":
        return DatabaseGone(name, f"queue_job is not installed: {message}")
    if code == "42501":
        return DatabaseUnfit(name, f"a privilege is missing: {message}")
    if code[:2] in ("42", "22", "23"):
        return DatabaseUnfit(name, message)
    return DatabaseUnavailable(name, message)


class Reader:
    """A second connection, aside from the loop, for reads that may take seconds.

    `start` begins a chain of statements; `on_ready` is called whenever the socket is ready; `results` is set when all
    are done. One error ends it; nothing is retried here.
    """

    def __init__(self, database: Database) -> None:
        self.name = database.name
        self.connect_kwargs = {**database.connect_kwargs, "async_": True}
        if database.about is not None and database.about.encoding == "SQL_ASCII":
            self.connect_kwargs["client_encoding"] = "LATIN1"
        self._connection: Any = None
        self._cursor: Any = None
        self._todo: Iterator[tuple[str, dict[str, Any] | None]] = iter(())
        self._found: list[list[tuple[Any, ...]]] = []
        self.results: list[list[tuple[Any, ...]]] | None = None
        self.began_s = 0.0
        #: When it is too late, wherever it is.
        self.deadline_s = 0.0

    def start(self, statements: Sequence[tuple[str, dict[str, Any] | None]]) -> None:
        """Connect and run these one after the other. Raises DatabaseError."""
        self._todo = iter(
            [(f"SET statement_timeout = '{READ_TIMEOUT_S:.0f}s'; {queries.BEGIN_SNAPSHOT}", None), *statements]
        )
        self._found, self.results = [], None
        self.began_s = time.monotonic()
        self.deadline_s = self.began_s + CONNECT_LIMIT_S
        try:
            self._connection = psycopg2.connect(**self.connect_kwargs)
        except psycopg2.Error as error:
            self.close()
            raise _translated(self.name, error) from error

    @property
    def busy(self) -> bool:
        """Whether a read is under way."""
        return self._connection is not None

    def fileno(self) -> int:
        return int(self._connection.fileno())

    def on_ready(self) -> int:
        """Go on; the select.POLL* event to wait for next, 0 when `results` is there. Raises DatabaseError."""
        try:
            state = self._connection.poll()
            while state == psycopg2.extensions.POLL_OK:
                if not self._next():
                    return 0
                state = self._connection.poll()
        except psycopg2.Error as error:
            self.close()
            raise _translated(self.name, error) from error
        return select.POLLIN if state == psycopg2.extensions.POLL_READ else select.POLLOUT

    def _next(self) -> bool:
        if self._cursor is None:
            self._cursor = self._connection.cursor()
            self.deadline_s = time.monotonic() + READ_TIMEOUT_S + 3
        else:
            self._found.append(self._cursor.fetchall() if self._cursor.description else [])
        following = next(self._todo, None)
        if following is None:
            self.results = self._found[1:]
            self.close()
            return False
        self._cursor.execute(*following)
        return True

    def close(self) -> None:
        """Close, whatever state it is in."""
        if self._connection is not None and not self._connection.closed:
            self._connection.close()
        self._connection = self._cursor = None
