"""A worker's connection to its database: LISTEN, the leader lock, reading and writing jobs.

One connection per database (session.py), plus a second one only while a big table is read (reader.py). After a
DatabaseError the connection is unusable, unless the error has `of_row`. This module decides nothing about jobs, logs
nothing and never sleeps.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..errors import DatabaseError, DatabaseGone, DatabaseUnavailable, DatabaseUnfit
from ..job import Job, job_of
from ..states import JobState
from ..text import seconds
from . import claim_queries, dead_queries, lead_queries, queries
from .async_session import Rows, Statement
from .eligibility import (
    NEUTRALIZED,
    NOT_INSTALLED,
    READ_COLUMNS,
    WRITTEN_COLUMNS,
    Verdict,
    in_transition,
    is_neutralized,
    privilege_troubles,
    trigger_trouble,
    write_trouble,
)
from .leadership import Lead, Leadership
from .notifications import Notified
from .rest import Rest
from .session import Session
from .waiter import STATEMENT_TIMEOUT_S, Waiter

CHANNEL = "queue_job"
#: How many characters of another session's statement are shown.
_SHOWN_STATEMENT = 120
#: In libpq's numbering.
_POSTGRESQL_12 = 120000
_POSTGRESQL_14 = 140000
#: The longest wait for a table that another session has locked (an upgrade); the statement may hold permits meanwhile.
LOCK_TIMEOUT_S = 1.0
#: A keep-alive takes no longer than this, unless the server is gone.
SIGN_LIMIT_S = 5.0


class About(NamedTuple):
    """What was found on connecting."""

    backend_pid: int
    encoding: str
    in_recovery: bool
    has_lock_table: bool
    may_lock: bool
    has_channel_table: bool
    jobs_bytes: int
    read_only: bool
    may_read_parameters: bool
    #: The server's start time as text. It changes with a restart or when connected to another server.
    started: str
    oid: int
    clock_s: float


class Database:
    """One connection to one database, as its worker uses it."""

    def __init__(
        self,
        name: str,
        connect_kwargs: dict[str, Any],
        waiter: Waiter,
        mark: int | None = None,
        connect_s: float | None = None,
    ) -> None:
        """`mark`: identifies our sessions to our successors (None: they cannot know them); `connect_s`: see Session."""
        self.name = name
        self.waiter = waiter
        mark = random.SystemRandom().getrandbits(63) if mark is None else mark
        self.session = Session(
            name,
            connect_kwargs,
            waiter,
            connect_s=connect_s,
            settings=[
                (0, queries.KEEPALIVES),
                (0, queries.COMMITS),
                (_POSTGRESQL_12, queries.SETTINGS_12),
                (0, lead_queries.MARK % {"mark": mark}),
            ],
        )
        self._is_prepared = False
        self.notified = Notified()
        self.about: About | None = None
        #: When our connections began to lead to another server, or the same after a restart; by its clock.
        self._changed_s = 0.0
        #: How far the server's clock is ahead of ours, in microseconds. The server's clock decides what is due.
        self.clock_us = 0
        #: How long after a server restart a job that was running before counts as alive although it looks dead.
        self.dead_after_restart_s = 60.0
        self.leadership = Leadership(self.rows, mark)
        #: Modules in transition, name to state, as of the last `check`. While there are any, nothing is claimed unless
        #: `ignores_modules`.
        self.modules: dict[str, str] = {}
        self.ignores_modules = False
        #: A claim left claimable jobs alone, so a module may be in transition.
        self.modules_suspected = False
        #: Seconds of age per step of priority; 0: no ageing.
        self.ageing_s = 0.0
        #: Whether a neutralised copy is refused.
        self.refuses_neutralized = True

    # -- connection --------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect and inspect the database. Raises DatabaseUnavailable, DatabaseGone or DatabaseUnfit."""
        self.session.limit_s = STATEMENT_TIMEOUT_S
        self._is_prepared = False
        self.session.connect()
        former = self.about
        about = self.look()
        if former is not None and about.started != former.started:
            self._changed_s = about.clock_s
        self.notified.begin(about.backend_pid)
        self.session.hear(self.notified)
        self.leadership.begin()

    def look(self) -> About:
        """Inspect the database (again)."""
        self.about = About(*self.rows(queries.ABOUT)[0])
        self.clock_us = round((self.about.clock_s - time.time()) * 1e6)
        return self.about

    def limit_statements(self, limit_s: float) -> None:
        """Limit each statement from now on, on our side and on the server."""
        self.rows(_limits(limit_s))
        self.session.limit_s = limit_s

    def snapshot(self, statements: Sequence[Statement], limit_s: float) -> list[Rows]:
        """The rows of each of these statements, all as of one moment, with a limit for each; later ones have the usual
        limit. Settings travel with a statement, because a worker's start consists of waits for answers.
        """
        (first, params), *others = statements
        limits = _limits(limit_s).replace("SET ", "SET LOCAL ")
        self.session.limit_s = limit_s
        try:
            found = [self.rows(f"{queries.BEGIN_SNAPSHOT}; {limits}; {first}", params)]
            found += [self.rows(*statement) for statement in others]
        finally:
            self.session.limit_s = STATEMENT_TIMEOUT_S
        self.rows(f"{queries.END_SNAPSHOT}; {_limits(STATEMENT_TIMEOUT_S)}")
        return found

    def check(self) -> None:
        """Check that jobs may run here. Raises DatabaseGone or DatabaseUnfit with the reason.

        Called before statements that would otherwise fail, so that they do not fail again and again.
        """
        assert self.about is not None
        trouble = write_trouble(in_recovery=self.about.in_recovery, read_only=self.about.read_only)
        if trouble is not None:
            verdict, reason = trouble
            raise (DatabaseUnavailable if verdict is Verdict.UNREACHABLE else DatabaseUnfit)(self.name, reason)
        self.check_modules()
        may_look = self.refuses_neutralized and self.about.may_read_parameters
        if may_look and is_neutralized(self.rows(queries.NEUTRALIZED)):
            raise DatabaseUnfit(self.name, NEUTRALIZED)
        columns = self.rows(queries.PRIVILEGES, {"columns": list(dict.fromkeys(READ_COLUMNS + WRITTEN_COLUMNS))})
        granted = {column: (may_read, may_write) for column, may_read, may_write, _role in columns}
        lacking = list(privilege_troubles(granted, columns[0][-1]))
        if lacking:
            raise DatabaseUnfit(self.name, "; ".join(lacking))

    def check_modules(self) -> None:
        """Read which modules are in transition: one statement. Raises DatabaseGone if queue_job is not installed."""
        self.modules_suspected = False
        found = dict(self.rows(queries.MODULES))
        if found.get("queue_job") in NOT_INSTALLED:
            raise DatabaseGone(self.name, "queue_job is not installed")
        self.modules = in_transition(found)

    def check_trigger(self) -> None:
        """Check that the trigger notifies us. Raises DatabaseUnfit with the reason; the rows can still be read."""
        enabled, complete = next(iter(self.rows(queries.TRIGGER)), (None, False))
        trouble = trigger_trouble(enabled, complete=complete)
        if trouble is not None:
            raise DatabaseUnfit(self.name, trouble)

    def listen(self) -> None:
        """Start listening, and prepare the statements of the loop."""
        self.rows(f"LISTEN {CHANNEL}" if self._is_prepared else f"LISTEN {CHANNEL}; {claim_queries.PREPARE}")
        self._is_prepared = True

    def lock_holders(self) -> list[str]:
        """For each session that has locked our tables: a sentence with who, since when and with which statement."""
        self.rows("ROLLBACK")  # the read that ran into the lock
        return [_holder(*row) for row in self.rows(queries.LOCK_HOLDERS)]

    def lead(self) -> Lead:
        """Try to become the leader of this database."""
        return self.leadership.try_lead()

    def let_go(self) -> None:
        """Give up the leader lock now, rather than when the server notices that the connection is closed."""
        if self.connected:
            with suppress(DatabaseError):  # then the server notices
                self.leadership.let_go()

    def rest(self) -> Rest:
        """Whether the database needs a worker. Raises DatabaseError."""
        return Rest.of(self.rows(queries.AT_REST)[0])

    def limit_leadership(self, idle_s: float) -> None:
        """Have the server end this session after `idle_s` of silence. No effect before PostgreSQL 14."""
        if self.session.version >= _POSTGRESQL_14:
            self.rows(f"SET idle_session_timeout = '{idle_s * 1000:.0f}ms'")

    def close(self) -> None:
        """Close, whatever state it is in."""
        self.session.close()

    @property
    def encoding(self) -> str:
        """The Python codec that reproduces this database's text byte for byte."""
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
        """Collect what arrived while no statement was running."""
        self.session.receive()

    def call_itself(self) -> None:
        """Send ourselves a notification. It comes back if LISTEN, the server and the network work."""
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

    def turn(
        self, claim: Mapping[int, int], uuids: Sequence[str], unseen_in: str | None = None
    ) -> tuple[list[Job], list[Job]]:
        """Claim pending jobs by id and read jobs by uuid, in one statement; (claimed, read).

        `claim`: job id to the id of the job whose permit it takes over, which must be over for that; 0: it has its own.
        `unseen_in`: only the one uuid is known; its job is claimed if it is in this channel.

        A job that could not be claimed is among those read, in its current state, unless it is gone.
        """
        if unseen_in is not None:
            unseen = {"uuid": uuids[0], "channel": unseen_in, "anyway": self.ignores_modules}
            return _sorted(self.ageing_s, self.rows(claim_queries.UNSEEN, unseen, of_row=True))
        if not claim:
            return _sorted(self.ageing_s, self.rows(claim_queries.READ, {"uuids": list(uuids)}))
        params = {
            "claim": list(claim),
            "former": list(claim.values()),
            "uuids": list(uuids),
            "anyway": self.ignores_modules,
        }
        claimed, read = _sorted(self.ageing_s, self.rows(claim_queries.TURN, params, of_row=True))
        if not claimed and any(job.id in claim and job.state == JobState.PENDING for job in read):
            self.modules_suspected = not self.ignores_modules
        return claimed, read

    def read_ids(self, ids: Iterable[int]) -> list[Job]:
        """Read jobs by id."""
        return [job_of(row, self.ageing_s) for row in self.rows(queries.READ_IDS, {"ids": list(ids)})]

    def without_row(self, ids: Iterable[int]) -> list[int]:
        """The ids among these whose rows are gone."""
        return [job_id for (job_id,) in self.rows(queries.GONE, {"ids": list(ids)})]

    def give_back(self, ids: Iterable[int]) -> list[int]:
        """Set jobs that are still enqueued back to pending; returns their ids."""
        return [job_id for (job_id,) in self.rows(claim_queries.GIVE_BACK, {"ids": list(ids)}, of_row=True)]

    def look_dead(self, ids: Iterable[int], grace_s: float) -> dict[int, tuple[str, bool]]:
        """Which of these jobs without a request of ours look dead by queue_job's rule (docs/contract.md).

        Returns id to (state, whether the row dates the enqueueing `grace_s` or longer ago).
        """
        statement = dead_queries.LOOK_DEAD if self.can_tell_dead else dead_queries.LOOK_DEAD_UNLOCKED
        params = {"ids": list(ids), "grace_s": grace_s, "after_restart_s": self.dead_after_restart_s}
        params["changed_s"] = self._changed_s
        rows = self.rows(statement, params)
        return {job_id: (state, dated) for job_id, state, dated in rows}

    def running_for(self, ids: Iterable[int], least_s: float) -> list[tuple[int, str, str | None, float]]:
        """The jobs among these that Odoo has been running for longer than `least_s`: (id, uuid, channel, seconds)."""
        rows = self.rows(dead_queries.RUNNING_FOR, {"ids": list(ids), "least_s": least_s})
        return [(job_id, uuid, channel, age_s) for job_id, uuid, channel, age_s in rows]

    def end_session_of(self, job_id: int) -> bool | None:
        """Terminate the session in which Odoo runs a job. False if our role may not; None if no session is visible."""
        assert self.about is not None
        rows = self.rows(dead_queries.END_SESSION_OF, {"id": job_id}) if self.about.has_lock_table else []
        return bool(rows[0][0]) if rows else None

    def revive(self, dead: Mapping[int, str], grace_s: float) -> list[Job]:
        """Set back the jobs that `look_dead` found, if they still look dead; returns the jobs as they are now."""
        statement = dead_queries.REVIVE if self.can_tell_dead else dead_queries.REVIVE_UNLOCKED
        started = [job_id for job_id, state in dead.items() if state == "started"]
        params = {"ids": list(dead), "grace_s": grace_s, "started": started}
        return [job_of(row, self.ageing_s) for row in self.rows(statement, params, of_row=True)]

    @property
    def can_tell_dead(self) -> bool:
        """Whether there are lock rows that tell a running job from one whose process died."""
        return self.about is not None and self.about.may_lock


def _limits(limit_s: float) -> str:
    return f"SET statement_timeout = '{limit_s:.0f}s'; SET lock_timeout = '{LOCK_TIMEOUT_S:.0f}s'"


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
    """Split rows of (claimed, *JOB_COLUMNS) into the claimed jobs and the others."""
    claimed: list[Job] = []
    read: list[Job] = []
    for is_claimed, *columns in rows:
        (claimed if is_claimed else read).append(job_of(columns, ageing_s))
    return claimed, read
