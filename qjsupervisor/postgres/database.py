"""A worker's connection to its database: LISTEN, the leader lock, jobs in and out.

One connection a database (session.py); a second one, only while a big table is read (reader.py). After a DatabaseError
the connection is of no use, unless that says `of_row`. It decides nothing about jobs, logs nothing, sleeps never.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..errors import DatabaseError, DatabaseGone, DatabaseUnavailable, DatabaseUnfit
from ..job import Job, job_of
from ..states import JobState
from ..text import seconds
from . import queries
from .eligibility import (
    NEUTRALIZED,
    NOT_INSTALLED,
    READ_COLUMNS,
    READ_ONLY,
    WRITTEN_COLUMNS,
    in_transition,
    is_neutralized,
    trigger_trouble,
)
from .leadership import Lead, Leadership
from .notifications import Notified
from .session import Session
from .waiter import STATEMENT_TIMEOUT_S, Waiter

CHANNEL = "queue_job"
#: Of another session's statement.
_SHOWN_STATEMENT = 120
#: As libpq counts.
_POSTGRESQL_12 = 120000
_POSTGRESQL_14 = 140000
#: A table that somebody has locked (an upgrade) is not waited for any longer: permits were taken for what is asked.
LOCK_TIMEOUT_S = 1.0
#: A sign of life takes no longer than this, unless the server is gone.
SIGN_LIMIT_S = 5.0


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
    #: When the server was started, as text: another one is another server, or the same after a restart.
    started: str
    oid: int
    clock_s: float


class Database:
    """One connection to one database, as its worker uses it."""

    def __init__(self, name: str, connect_kwargs: dict[str, Any], waiter: Waiter, mark: int | None = None) -> None:
        """`mark`: what our sessions are recognised by; None: by nobody after us."""
        self.name = name
        self.waiter = waiter
        self.session = Session(
            name,
            connect_kwargs,
            waiter,
            settings=[(0, queries.KEEPALIVES), (0, queries.COMMITS), (_POSTGRESQL_12, queries.SETTINGS_12)],
        )
        self._is_prepared = False
        self.notified = Notified()
        self.about: About | None = None
        #: By how much the server's clock is ahead of ours: it decides what is due.
        self.clock_us = 0
        #: How long a job that runs may go on after a restart of the server, though it looks dead.
        self.dead_after_restart_s = 60.0
        self.leadership = Leadership(self.rows, secrets.randbits(63) if mark is None else mark)
        #: Modules in transition, by name with their state, as `check` found them last. Nothing is claimed then,
        #: unless `ignores_modules`.
        self.modules: dict[str, str] = {}
        self.ignores_modules = False
        #: Jobs that were there to be claimed were not: is a module in transition?
        self.modules_suspected = False
        #: How much a job ages for each priority; 0: not at all.
        self.ageing_s = 0.0
        #: A neutralised copy of a database is not to be served.
        self.refuses_neutralized = True

    # -- connection --------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect and look what this database is. Raises DatabaseUnavailable, DatabaseGone or DatabaseUnfit."""
        self.session.limit_s = STATEMENT_TIMEOUT_S
        self._is_prepared = False
        self.session.connect()
        about = self.look()
        self.notified.begin(about.backend_pid)
        self.session.hear(self.notified)
        self.leadership.begin()

    def look(self) -> About:
        """Look (again) what this database is."""
        self.about = About(*self.rows(queries.ABOUT)[0])
        self.clock_us = round((self.about.clock_s - time.time()) * 1e6)
        return self.about

    def limit_statements(self, limit_s: float) -> None:
        """How long a statement may take from now on, here and on the server."""
        self.rows(f"SET statement_timeout = '{limit_s:.0f}s'; SET lock_timeout = '{LOCK_TIMEOUT_S:.0f}s'")
        self.session.limit_s = limit_s

    def check(self) -> None:
        """Whether jobs may be run here. Raises DatabaseGone or DatabaseUnfit with the reason.

        Asked before every statement that would fail without it, so that it does not fail again and again.
        """
        assert self.about is not None
        if self.about.in_recovery:
            raise DatabaseUnavailable(self.name, "the server is in recovery: read-only")
        if self.about.read_only:
            raise DatabaseUnfit(self.name, READ_ONLY)
        self.check_modules()
        may_look = self.refuses_neutralized and self.about.may_read_parameters
        if may_look and is_neutralized(self.rows(queries.NEUTRALIZED)):
            raise DatabaseUnfit(self.name, NEUTRALIZED)
        columns = {"may_read": list(READ_COLUMNS), "may_write": list(WRITTEN_COLUMNS)}
        lacking = [f"{privilege} ({column})" for column, privilege in self.rows(queries.LACKING, columns)]
        if lacking:
            raise DatabaseUnfit(self.name, f"a privilege is missing: GRANT {', '.join(lacking)} ON queue_job")

    def check_modules(self) -> None:
        """Which modules are in transition; one statement. Raises DatabaseGone where queue_job is not installed."""
        self.modules_suspected = False
        found = dict(self.rows(queries.MODULES))
        if found.get("queue_job") in NOT_INSTALLED:
            raise DatabaseGone(self.name, "queue_job is not installed")
        self.modules = in_transition(found)

    def check_trigger(self) -> None:
        """Whether we hear of jobs here. Raises DatabaseUnfit with the reason; the rows can be read all the same."""
        enabled, complete = next(iter(self.rows(queries.TRIGGER)), (None, False))
        trouble = trigger_trouble(enabled, complete=complete)
        if trouble is not None:
            raise DatabaseUnfit(self.name, trouble)

    def listen(self) -> None:
        """Hear of jobs from now on, and prepare the statements of the loop."""
        self.rows(f"LISTEN {CHANNEL}")
        if not self._is_prepared:
            self.rows(queries.PREPARE)
            self._is_prepared = True

    def lock_holders(self) -> list[str]:
        """Who has locked our tables, since when and with what, in words."""
        self.rows("ROLLBACK")  # of a read that met the lock
        return [_holder(*row) for row in self.rows(queries.LOCK_HOLDERS)]

    def lead(self) -> Lead:
        """Try to become the one runner of this database."""
        return self.leadership.try_lead()

    def let_go(self) -> None:
        """Let others lead: at once, not only when the server notices that the connection is closed."""
        if self.connected:
            with suppress(DatabaseError):  # then it notices
                self.leadership.let_go()

    def limit_leadership(self, idle_s: float) -> None:
        """The server is to end this session when it says nothing for so long. Does nothing before PostgreSQL 14."""
        if self.session.version >= _POSTGRESQL_14:
            self.rows(f"SET idle_session_timeout = '{idle_s * 1000:.0f}ms'")

    def close(self) -> None:
        """Close, whatever state it is in."""
        self.session.close()

    @property
    def encoding(self) -> str:
        """How text of this database has to be encoded to be what it is in there, or what it stands for."""
        return "latin-1" if self.session.is_raw else "utf-8"

    @property
    def has_channel_table(self) -> bool:
        """Whether channels are configured in the database itself (queue_job 18.0.4)."""
        return self.about is not None and self.about.has_channel_table

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self.session.connected

    def fileno(self) -> int:
        """The socket, for the selector."""
        return self.session.fileno()

    def receive(self) -> None:
        """Take in what arrived while nothing was asked."""
        self.session.receive()

    def call_itself(self) -> None:
        """Send ourselves a notification: it comes back if LISTEN, the server and the network work."""
        self.notified.heard_itself = False
        usual_s, self.session.limit_s = self.session.limit_s, SIGN_LIMIT_S
        try:
            self.rows("SELECT pg_notify(%(channel)s, '')", {"channel": CHANNEL})
        finally:
            self.session.limit_s = usual_s

    def rows(
        self, statement: str, params: Mapping[str, Any] | None = None, *, of_row: bool = False
    ) -> list[tuple[Any, ...]]:
        """See Session.rows."""
        return self.session.rows(statement, params, of_row=of_row)

    # -- jobs --------------------------------------------------------------------------------------------

    def turn(self, claim: Mapping[int, int], uuids: Sequence[str]) -> tuple[list[Job], list[Job]]:
        """Claim pending jobs by id and read jobs by uuid, in one statement; (claimed, read).

        `claim`: with each job the one whose permit it takes over, which must be over for that; 0: it has its own.

        A job that could not be claimed is among those read, as it is, unless it is gone.
        """
        if not claim:
            return _sorted(self.ageing_s, self.rows(queries.READ, {"uuids": list(uuids)}))
        params = {
            "claim": list(claim),
            "former": list(claim.values()),
            "uuids": list(uuids),
            "anyway": self.ignores_modules,
        }
        claimed, read = _sorted(self.ageing_s, self.rows(queries.TURN, params, of_row=True))
        if not claimed and any(job.id in claim and job.state == JobState.PENDING for job in read):
            self.modules_suspected = not self.ignores_modules
        return claimed, read

    def read_ids(self, ids: Iterable[int]) -> list[Job]:
        """Read jobs by id."""
        return [job_of(row, self.ageing_s) for row in self.rows(queries.READ_IDS, {"ids": list(ids)})]

    def without_row(self, ids: Iterable[int]) -> list[int]:
        """Of these jobs those that are gone."""
        return [job_id for (job_id,) in self.rows(queries.GONE, {"ids": list(ids)})]

    def give_back(self, ids: Iterable[int]) -> list[int]:
        """Put jobs that are still enqueued back to pending; ids of those that were."""
        return [job_id for (job_id,) in self.rows(queries.GIVE_BACK, {"ids": list(ids)}, of_row=True)]

    def look_dead(self, ids: Iterable[int], grace_s: float) -> dict[int, tuple[str, bool]]:
        """Of jobs without a request of ours, those that look dead by the contract's rule.

        With their states, and whether their rows say that they were enqueued so long ago.
        """
        statement = queries.LOOK_DEAD if self.can_tell_dead else queries.LOOK_DEAD_UNLOCKED
        params = {"ids": list(ids), "grace_s": grace_s, "after_restart_s": self.dead_after_restart_s}
        rows = self.rows(statement, params)
        return {job_id: (state, dated) for job_id, state, dated in rows}

    def running_for(self, ids: Iterable[int], least_s: float) -> list[tuple[int, str, str | None, float]]:
        """Of these jobs those that Odoo runs for longer than that: id, uuid, channel, seconds."""
        rows = self.rows(queries.RUNNING_FOR, {"ids": list(ids), "least_s": least_s})
        return [(job_id, uuid, channel, age_s) for job_id, uuid, channel, age_s in rows]

    def end_session_of(self, job_id: int) -> bool | None:
        """End the session in which Odoo runs a job. False: our role may not; None: none is to be seen."""
        assert self.about is not None
        rows = self.rows(queries.END_SESSION_OF, {"id": job_id}) if self.about.has_lock_table else []
        return bool(rows[0][0]) if rows else None

    def revive(self, dead: Mapping[int, str], grace_s: float) -> list[Job]:
        """Put back what `look_dead` found, if it still is so; the jobs as they are now."""
        statement = queries.REVIVE if self.can_tell_dead else queries.REVIVE_UNLOCKED
        started = [job_id for job_id, state in dead.items() if state == "started"]
        params = {"ids": list(dead), "grace_s": grace_s, "started": started}
        return [job_of(row, self.ageing_s) for row in self.rows(statement, params, of_row=True)]

    @property
    def can_tell_dead(self) -> bool:
        """Whether lock rows tell a running job from one whose process died."""
        return self.about is not None and self.about.may_lock


def _holder(
    table: str, pid: int, mode: str, application: str | None, user: str | None, age_s: float | None, query: str | None
) -> str:
    known = [f"{name} {value}" for name, value in (("application", application), ("role", user)) if value]
    if age_s is not None:
        known.append(f"for {seconds(age_s)}")
    words = " ".join((query or "").split())
    said = f": {words[:_SHOWN_STATEMENT]}" if words else ""
    return f"table {table} is locked ({mode}) by server process {pid} ({', '.join(known)}){said}"


def _sorted(ageing_s: float, rows: Iterable[tuple[Any, ...]]) -> tuple[list[Job], list[Job]]:
    """Of rows (claimed, *JOB_COLUMNS): the jobs that were claimed, and the others."""
    claimed: list[Job] = []
    read: list[Job] = []
    for is_claimed, *columns in rows:
        (claimed if is_claimed else read).append(job_of(columns, ageing_s))
    return claimed, read
