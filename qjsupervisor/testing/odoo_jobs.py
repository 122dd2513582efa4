"""Runs one job as an Odoo worker does, with the same commits and row locks.

1. `enqueued` -> `started` with date_started, worker_pid and a row in queue_job_lock: committed.
2. A new transaction locks that row (FOR NO KEY UPDATE) while the job runs.
3. Done: `done` in that transaction. Failed or to be retried: rolled back, then written in another one.
4. Jobs that depended on it become `pending`, in a separate transaction.
The job's kwargs say what it does: {"sleep": seconds, "fail": true, "retry": times, "retry_s": seconds,
"die": times}. `retry` and `die` stop once the job's count of tries has reached that number.
Blocks; called by the threads that stand for Odoo's worker processes. Written from the contract, without any line
of queue_job.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg2

from .odoo_sessions import OdooSession, Sessions
from .odoo_stats import OdooStatistics, Run

_UTC_NOW = "clock_timestamp() AT TIME ZONE 'UTC'"

#: Params: uuid, pid. Row: (id, channel, retry, max_retries, kwargs as text, dependencies), or none if the job does not
#: exist, is not enqueued, or is just being taken by another worker.
_TAKE = """
WITH taken AS (
    SELECT id
      FROM queue_job
     WHERE uuid = %(uuid)s AND state = 'enqueued'
     ORDER BY id
     LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED
), started AS (
    UPDATE queue_job AS job
       SET state = 'started', date_started = {now}, worker_pid = %(pid)s
      FROM taken
     WHERE job.id = taken.id
    RETURNING job.id, job.channel, job.retry, job.max_retries, job.kwargs::text, {dependencies}
){lock}
SELECT * FROM started
"""

_ADD_LOCK_ROW = """, lock AS (
    INSERT INTO queue_job_lock (queue_job_id, create_uid, create_date)
    SELECT id, 1, {now}
      FROM started
     WHERE NOT EXISTS (SELECT FROM queue_job_lock WHERE queue_job_id = started.id)
)"""

_BEGIN = "BEGIN"
_BEGIN_LOCKED = "BEGIN; SELECT FROM queue_job_lock WHERE queue_job_id = %(id)s FOR NO KEY UPDATE"

_DONE = f"""
UPDATE queue_job
   SET state = 'done', date_done = {_UTC_NOW}, retry = %(retry)s, result = 'done by the stand-in',
       exec_time = extract(epoch FROM {_UTC_NOW} - date_started), worker_pid = NULL,
       exc_name = NULL, exc_message = NULL, exc_info = NULL
 WHERE id = %(id)s;
COMMIT
"""

_RETRY = f"""
ROLLBACK;
UPDATE queue_job
   SET state = 'pending', retry = %(retry)s, eta = {_UTC_NOW} + make_interval(secs => %(retry_s)s),
       date_enqueued = NULL, date_started = NULL, worker_pid = NULL
 WHERE id = %(id)s
"""

_FAILED = """
ROLLBACK;
UPDATE queue_job
   SET state = 'failed', retry = %(retry)s, worker_pid = NULL,
       exc_name = %(exc_name)s, exc_message = %(exc_message)s, exc_info = %(exc_message)s
 WHERE id = %(id)s
"""

#: Params: children: uuids of jobs that depend on the finished one.
_RELEASE = """
UPDATE queue_job AS child
   SET state = 'pending'
 WHERE child.uuid = ANY(%(children)s)
   AND child.state = 'wait_dependencies'
   AND NOT EXISTS (
           SELECT
             FROM jsonb_array_elements_text(child.dependencies::jsonb -> 'depends_on') AS waited_for (uuid)
             JOIN queue_job AS parent ON parent.uuid = waited_for.uuid
            WHERE parent.state <> 'done')
"""


@dataclass(slots=True)
class Order:
    """One request to run a job, and how the stand-in treats it."""

    database: str
    uuid: str
    received_s: float
    #: Its worker is killed before the job ends.
    dies: bool = False
    #: Extra run time of the job.
    extra_s: float = 0.0
    #: Called in the worker's thread once `started` is committed.
    on_started: Callable[[], None] | None = None
    #: Set by whoever kills the worker.
    killed: threading.Event = field(default_factory=threading.Event)
    #: Set once the job is begun.
    run: Run | None = None


class WorkerKilledError(Exception):
    """The worker running this job was killed: there is no answer."""


class _JobFailedError(Exception):
    """The job raises; the arguments are exc_name and exc_message."""


class _JobRetriedError(Exception):
    """The job asks to be retried; the argument is the delay in seconds."""


@dataclass(frozen=True, slots=True)
class _Behaviour:
    """What a job's kwargs ask for."""

    sleep: float
    fail: bool
    retry: int
    retry_s: float
    die: int

    @classmethod
    def of(cls, text: str | None) -> _Behaviour:
        try:
            kwargs = json.loads(text or "{}")
            return cls(
                sleep=float(kwargs.get("sleep", 0)),
                fail=bool(kwargs.get("fail", False)),
                retry=int(kwargs.get("retry", 0)),
                retry_s=float(kwargs.get("retry_s", 1)),
                die=int(kwargs.get("die", 0)),
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise _JobFailedError("builtins.TypeError", f"kwargs make no sense: {error}") from error


@dataclass(frozen=True, slots=True)
class _Job:
    id: int
    channel: str | None
    retry: int
    max_retries: int
    kwargs: str | None
    dependencies: str | None

    def children(self) -> list[str]:
        if not self.dependencies:
            return []
        return list(json.loads(self.dependencies).get("reverse_depends_on") or ())

    def tries_used_up(self) -> bool:
        return self.max_retries != 0 and self.retry + 1 >= self.max_retries


class JobRunner:
    """Runs orders, each in the calling thread."""

    def __init__(self, sessions: Sessions, statistics: OdooStatistics) -> None:
        self._sessions = sessions
        self._statistics = statistics
        self._running: dict[int, Order] = {}

    def run(self, order: Order) -> int:
        """Run a job to its end; returns the HTTP status. Raises WorkerKilledError where Odoo would not answer."""
        try:
            with self._sessions.borrowed(order.database) as session:
                if not session.has_jobs:
                    self._statistics.not_run(order.database, "not_loaded")
                    return 404
                return self._run_in(session, order)
        except psycopg2.Error:
            if order.run is None:
                self._statistics.not_run(order.database, "no_database")
            return 500

    def kill_one(self, uuid: str | None) -> str | None:
        """Kill the worker of this job, or any busy one; returns the uuid of its job, or None."""
        for order in list(self._running.values()):
            if uuid in (None, order.uuid) and not order.killed.is_set():
                order.killed.set()
                return order.uuid
        return None

    def _run_in(self, session: OdooSession, order: Order) -> int:
        job = self._taken(session, order)
        if job is None:
            self._statistics.not_run(order.database, "not_enqueued")
            return 200
        order.run = run = self._statistics.begun(order.database, order.uuid, job.channel, order.received_s)
        self._running[id(order)] = order
        try:
            return self._performed(session, order, job, run)
        finally:
            del self._running[id(order)]
            if run["outcome"] is None:
                self._statistics.ended(run, "died" if order.killed.is_set() else "broken")

    def _taken(self, session: OdooSession, order: Order) -> _Job | None:
        lock = _ADD_LOCK_ROW if session.has_lock_table else ""
        dependencies = "job.dependencies" if session.has_dependencies else "NULL AS dependencies"
        statement = _TAKE.format(now=_UTC_NOW, dependencies=dependencies, lock=lock.format(now=_UTC_NOW))
        rows = session.rows(statement, {"uuid": order.uuid, "pid": os.getpid()})
        if not rows:
            return None
        number, channel, retry, max_retries, kwargs, waiting = rows[0]
        return _Job(number, channel, retry or 0, max_retries or 0, kwargs, waiting)

    def _performed(self, session: OdooSession, order: Order, job: _Job, run: Run) -> int:
        session.execute(_BEGIN_LOCKED if session.has_lock_table else _BEGIN, {"id": job.id})
        if order.on_started is not None:
            order.on_started()
        params: dict[str, Any] = {"id": job.id, "retry": job.retry + 1}
        try:
            self._perform(order, job, _Behaviour.of(job.kwargs))
        except _JobRetriedError as postponed:
            (params["retry_s"],) = postponed.args
            return self._ended(session, run, "retried", _RETRY, params)
        except _JobFailedError as failure:
            params["exc_name"], params["exc_message"] = failure.args
            return self._ended(session, run, "failed", _FAILED, params)
        status = self._ended(session, run, "done", _DONE, params)
        children = job.children()
        if children:
            session.execute(_RELEASE, {"children": children})
        return status

    def _perform(self, order: Order, job: _Job, behaviour: _Behaviour) -> None:
        """The job's own work: takes its time, and raises unless the job ends as done."""
        seconds = behaviour.sleep + order.extra_s
        if seconds:
            order.killed.wait(seconds)
        if order.dies or job.retry < behaviour.die:
            order.killed.set()
        if order.killed.is_set():
            raise WorkerKilledError
        if behaviour.fail:
            raise _JobFailedError("odoo.exceptions.UserError", "This job was told to fail.")
        if job.retry < behaviour.retry:
            if job.tries_used_up():
                message = f"Max. retries ({job.max_retries}) reached"
                raise _JobFailedError("odoo.addons.queue_job.exception.FailedJobError", message)
            raise _JobRetriedError(behaviour.retry_s)

    def _ended(self, session: OdooSession, run: Run, outcome: str, statement: str, params: dict[str, Any]) -> int:
        # Counted before the commit, after which a runner may use the free permit at once.
        self._statistics.ended(run, outcome)
        try:
            session.execute(statement, params)
        except psycopg2.Error:
            self._statistics.revised(run, "broken")
            raise
        return 500 if outcome == "failed" else 200
