"""A worker's connection to its database: LISTEN, the leader lock, jobs in and out.

One connection a database, in autocommit; a second one, only while a big table is read (reader.py). Every psycopg2
error leaves here as a DatabaseError, and the connection is of no use afterwards, unless that says `of_row`. It decides
nothing about jobs, logs nothing, sleeps never.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg2

from ..errors import DatabaseError, DatabaseGone, DatabaseUnavailable, DatabaseUnfit
from ..job import Job, job_of
from ..states import JobState
from . import queries
from .eligibility import (
    NEUTRALIZED,
    NOT_INSTALLED,
    READ_COLUMNS,
    READ_ONLY,
    WRITTEN_COLUMNS,
    in_transition,
    is_neutralized,
)
from .leadership import Lead, Leadership
from .notifications import Notified
from .waiter import Waiter

CHANNEL = "queue_job"
#: As libpq counts.
_POSTGRESQL_12 = 120000
#: libpq's own connect_timeout does not count when it does not block.
CONNECT_LIMIT_S = 10.0
#: A table that somebody has locked (an upgrade) is not waited for any longer: permits were taken for what is asked.
LOCK_TIMEOUT_S = 1.0
#: A sign of life takes no longer than this, unless the server is gone.
SIGN_LIMIT_S = 5.0


#: SQLSTATE classes of what a row is refused for: its data, constraints, functions and triggers of somebody's.
_OF_ROWS = ("22", "23", "27", "38", "39", "44", "P0")


class About(NamedTuple):
    """What kind of database this is."""

    backend_pid: int
    encoding: str
    in_recovery: bool
    has_lock_table: bool
    may_lock: bool
    has_channel_table: bool
    jobs_bytes: int
    read_only: bool
    may_read_parameters: bool


class Database:
    """One connection to one database, as its worker uses it."""

    def __init__(self, name: str, connect_kwargs: dict[str, Any], waiter: Waiter, mark: int | None = None) -> None:
        """`mark`: what our sessions are recognised by; None: by nobody after us."""
        self.name = name
        self.waiter = waiter
        self.connect_kwargs = connect_kwargs
        self._connection: Any = None
        self._cursor: Any = None
        self.notified = Notified()
        self.about: About | None = None
        self.leadership = Leadership(self.rows, secrets.randbits(63) if mark is None else mark)
        #: Modules in transition, by name with their state, as `check` found them last. Nothing is claimed then,
        #: unless `ignores_modules`.
        self.modules: dict[str, str] = {}
        self.ignores_modules = False
        #: Jobs that were there to be claimed were not: is a module in transition?
        self.modules_suspected = False
        #: A neutralised copy of a database is not to be served.
        self.refuses_neutralized = True

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
            raise translated(self.name, error) from error
        about = self.look()
        if about.encoding == "SQL_ASCII":
            # Any bytes may be in there; this way they come and go unchanged.
            self._run(lambda: self._connection.set_client_encoding("LATIN1"))
        self.notified.begin(about.backend_pid)
        self._connection.notifies = self.notified
        is_12 = self._connection.server_version >= _POSTGRESQL_12
        settings = [queries.KEEPALIVES, queries.COMMITS, *([queries.SETTINGS_12] if is_12 else [])]
        self.rows("; ".join(settings))
        self.leadership.begin()

    def look(self) -> About:
        """Look (again) what this database is."""
        self.about = About(*self.rows(queries.ABOUT)[0])
        return self.about

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
        if self.about.read_only:
            raise DatabaseUnfit(self.name, READ_ONLY)
        self._check_modules()
        may_look = self.refuses_neutralized and self.about.may_read_parameters
        if may_look and is_neutralized(self.rows(queries.NEUTRALIZED)):
            raise DatabaseUnfit(self.name, NEUTRALIZED)
        columns = {"may_read": list(READ_COLUMNS), "may_write": list(WRITTEN_COLUMNS)}
        lacking = [f"{privilege} ({column})" for column, privilege in self.rows(queries.LACKING, columns)]
        if lacking:
            raise DatabaseUnfit(self.name, f"a privilege is missing: GRANT {', '.join(lacking)} ON queue_job")

    def _check_modules(self) -> None:
        self.modules_suspected = False
        found = dict(self.rows(queries.MODULES))
        if found.get("queue_job") in NOT_INSTALLED:
            raise DatabaseGone(self.name, "queue_job is not installed")
        self.modules = in_transition(found)

    def check_trigger(self) -> None:
        """Whether we hear of jobs here. Raises DatabaseUnfit with the reason; the rows can be read all the same."""
        enabled = next(iter(self.rows(queries.TRIGGER)), (None,))[0]
        if enabled is None:
            raise DatabaseUnfit(self.name, "trigger queue_job_notify is missing: upgrade queue_job in this database")
        if enabled not in ("O", "A"):
            raise DatabaseUnfit(self.name, "trigger queue_job_notify is disabled: enable it on table queue_job")

    def listen(self) -> None:
        """Hear of jobs from now on, and prepare the statements of the loop."""
        self.rows(f"LISTEN {CHANNEL}")
        self.rows(queries.PREPARE)

    def lead(self) -> Lead:
        """Try to become the one runner of this database."""
        return self.leadership.try_lead()

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

    def _claiming(self, statement: str, params: dict[str, Any]) -> list[tuple[Any, ...]]:
        """The same, of one that somebody's trigger or constraint may refuse: that does not cost the connection."""
        found: list[tuple[Any, ...]] = self._run(lambda: self._execute(statement, params), spare=True)
        return found

    def _execute(self, statement: str, params: dict[str, Any] | None) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement, params)
        return self._cursor.fetchall() if self._cursor.description else []

    def _run(self, action: Callable[[], Any], *, spare: bool = False) -> Any:
        try:
            return action()
        except psycopg2.Error as error:
            translation = translated(self.name, error)
            translation.refused = had_no_effect(error.pgcode)
            translation.of_row = spare and (error.pgcode or "")[:2] in _OF_ROWS
            if not translation.of_row:
                self.close()
            raise translation from error

    # -- jobs --------------------------------------------------------------------------------------------

    def turn(self, claim: Mapping[int, int], uuids: Sequence[str]) -> tuple[list[Job], list[Job]]:
        """Claim pending jobs by id and read jobs by uuid, in one statement; (claimed, read).

        `claim`: with each job the one whose permit it takes over, which must be over for that; 0: it has its own.

        A job that could not be claimed is among those read, as it is, unless it is gone.
        """
        if not claim:
            return _sorted(self.rows(queries.READ, {"uuids": list(uuids)}))
        params = {
            "claim": list(claim),
            "former": list(claim.values()),
            "uuids": list(uuids),
            "anyway": self.ignores_modules,
        }
        claimed, read = _sorted(self._claiming(queries.TURN, params))
        if not claimed and any(job.id in claim and job.state == JobState.PENDING for job in read):
            self.modules_suspected = not self.ignores_modules
        return claimed, read

    def read_ids(self, ids: Iterable[int]) -> list[Job]:
        """Read jobs by id."""
        return [job_of(row) for row in self.rows(queries.READ_IDS, {"ids": list(ids)})]

    def give_back(self, ids: Iterable[int]) -> list[int]:
        """Put jobs that are still enqueued back to pending; ids of those that were."""
        return [job_id for (job_id,) in self.rows(queries.GIVE_BACK, {"ids": list(ids)})]

    def look_dead(self, ids: Iterable[int], grace_s: float) -> dict[int, tuple[str, bool]]:
        """Of jobs without a request of ours, those that look dead by the contract's rule.

        With their states, and whether their rows say that they were enqueued so long ago.
        """
        statement = queries.LOOK_DEAD if self._may_lock else queries.LOOK_DEAD_UNLOCKED
        rows = self.rows(statement, {"ids": list(ids), "grace_s": grace_s})
        return {job_id: (state, dated) for job_id, state, dated in rows}

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


def _sorted(rows: Iterable[tuple[Any, ...]]) -> tuple[list[Job], list[Job]]:
    """Of rows (claimed, *JOB_COLUMNS): the jobs that were claimed, and the others."""
    claimed: list[Job] = []
    read: list[Job] = []
    for is_claimed, *columns in rows:
        (claimed if is_claimed else read).append(job_of(columns))
    return claimed, read


def had_no_effect(sqlstate: str | None) -> bool:
    """Whether a statement that ended with this error (None: no word of the server) has certainly changed nothing.

    A session that waits for its synchronous standby has committed already. What ends it then (57: shutdown, crash;
    08: the connection) tells nothing of the statement; a statement that is canceled then is reported as done.
    """
    if sqlstate is None or sqlstate == "40003":  # statement_completion_unknown
        return False
    return sqlstate == "57014" or sqlstate[:2] not in ("08", "57")  # query_canceled, by a timeout too


def translated(name: str, error: psycopg2.Error) -> DatabaseError:
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
