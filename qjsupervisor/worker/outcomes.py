"""Interprets the end of a request: what it says about the target and, with the job's row read afterwards, the job.

Logs each end once, and each change of a target: in a line without a database if it is down for all, with a database
if it answers but does not run that one's jobs. Changes no row, permit or place in the backlog; serving.py does that.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from .. import logs
from ..logs import EventLog
from ..odoo.dispatcher import Dispatcher, Ended
from ..odoo.http_status import GATEWAY, meaning
from ..odoo.request import End
from ..odoo.target import Target
from ..states import JobOutcome, JobState, ServerVerdict, TargetState

#: Used instead of a state if the job has no row any more.
GONE = "gone"
#: Shortest interval for reporting to all databases that a target runs jobs.
TELL_SUCCESS_S = 0.1
#: State of the row after the request -> outcome; any other state is inconclusive.
_OUTCOMES = {
    JobState.DONE.value: JobOutcome.DONE,
    JobState.FAILED.value: JobOutcome.FAILED,
    JobState.PENDING.value: JobOutcome.RETRIED,
    JobState.ENQUEUED.value: JobOutcome.NOT_RUN,
    JobState.CANCELLED.value: JobOutcome.CANCELLED,
}
_LOST = JobOutcome.LOST
_ENQUEUED, _STARTED = JobState.ENQUEUED.value, JobState.STARTED.value
#: Of its row: nobody can tell whether the target runs jobs.
_UNDECIDED = (GONE, JobState.CANCELLED.value)
_UNASKED = End.UNASKED


class RequestOutcomes:
    """What one worker learns about its targets."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        log: FilteringBoundLogger,
        database_log: EventLog,
        shared_log: FilteringBoundLogger,
        on_recovery: Callable[[], None],
        *,
        can_tell_dead: Callable[[], bool],
    ) -> None:
        """`database_log`: for what other databases may find too; `shared_log`: for what is told once for all.

        `on_recovery`: called when a target runs jobs again.

        `can_tell_dead`: whether a job whose process died is found out (the database has queue_job_lock).
        """
        self._can_tell_dead = can_tell_dead
        self._dispatcher = dispatcher
        self._connectivity = dispatcher.connectivity
        self._targets = dispatcher.targets
        self._log = log
        self._database_log = database_log
        self._shared_log = shared_log
        self._on_recovery = on_recovery
        self._were_down = [target.is_down for target in self._targets]
        #: Targets whose failure may be the server's fault, until a probe begun later has ended.
        self.awaiting_probe: dict[Target, int] = {}

    def look(self) -> None:
        """React to changes of the servers' health, found by any worker's probe."""
        if not self._connectivity.has_news:
            return
        for target, verdict in self._connectivity.verdicts:
            if verdict is ServerVerdict.WENT_DOWN:
                self._log_down(target)
            elif verdict is ServerVerdict.CAME_BACK:
                self._shared_log.info("target_recovered", url=target.url)
        self._connectivity.verdicts = []
        for target in self._connectivity.knocked:
            target.breaker.knocked(self._dispatcher.now_s)
            self._on_recovery()
        self._connectivity.knocked = []
        for number, target in enumerate(self._targets):
            if target.is_down != self._were_down[number]:
                self._were_down[number] = target.is_down
                if not target.is_down:
                    target.breaker.forgive()
                    self._on_recovery()
        self._settle_awaiting_probe()
        self._connectivity.has_news = bool(self.awaiting_probe)  # another worker's probe may decide

    def record_result(self, ended: Ended, state: str, channel: str | None, waited_s: float) -> bool:
        """Log the end of a request and update its target. True: the job was not run and must be given back.

        `state`: of the job's row, or GONE. `waited_s`: from when the job was due until it was sent.
        """
        outcome, target = ended.outcome, ended.target
        not_run = state == _ENQUEUED
        if outcome.end is _UNASKED and not outcome.own:
            self._count_unreachable(ended)
        elif not_run or outcome.own:
            self._count_not_run(ended)
        elif state in _UNDECIDED:
            target.breaker.undecided()
        else:
            if self._dispatcher.now_s >= target.told_success_s + TELL_SUCCESS_S:
                self._tell_success(target)
                self._tell_answered(ended)
            if target.breaker.record_success():
                self._is_back(target)
        if state == _STARTED:
            self._tell_unanswered(ended)
        else:
            self.tell(ended, state, channel, waited_s)
        return not_run

    def tell(self, ended: Ended, state: str, channel: str | None, waited_s: float) -> None:
        """Log a job's outcome in one line with all details."""
        if not logs.jobs_wanted:
            return
        self._log.info(
            "job_finished" if state != _ENQUEUED else "job_not_run",
            job_uuid=ended.uuid,
            channel=channel,
            state=state,
            status=ended.outcome.status,
            reason=ended.outcome.reason,
            waited_s=round(waited_s, 3),
            duration_s=round(ended.duration_s, 3),
        )

    def _tell_unanswered(self, ended: Ended) -> None:
        reason = f"its request ended without an answer ({ended.outcome.reason}), and its row says that it runs"
        if self._can_tell_dead():
            reason += ": it counts until its row is over, or until its process is found dead"
        else:
            reason += (
                ". Without table queue_job_lock nobody can tell whether it does: if its Odoo worker died, put it back:"
                " qjsupervisor requeue DATABASE --state started UUID"
            )
        self._log.warning("job_unanswered", job_uuid=ended.uuid, status=ended.outcome.status, reason=reason)

    def record_success(self, uuid: str) -> None:
        """A requested job was started, so the target runs jobs."""
        target = self._dispatcher.target_of(uuid)
        if target is not None:
            # Does not set told_success_s, because the answer a moment later must be reported too.
            target.server.succeeded(int(self._dispatcher.now_s * 1e9))
            if target.breaker.record_success():
                self._is_back(target)

    def _tell_success(self, target: Target) -> None:
        target.told_success_s = self._dispatcher.now_s
        target.server.succeeded(int(target.told_success_s * 1e9))

    def _tell_answered(self, ended: Ended) -> None:
        """Odoo itself answered, with whatever status."""
        if ended.outcome.end is End.ANSWERED and ended.outcome.status not in GATEWAY:
            ended.target.server.answered()

    def _is_back(self, target: Target) -> None:
        """A target that was down for this database only is back."""
        if self.awaiting_probe.pop(target, None) is None:
            self._database_log.info("target_recovered", url=target.url)
        self._on_recovery()

    def _count_unreachable(self, ended: Ended) -> None:
        """The target could not be reached, which concerns all databases."""
        target = ended.target
        target.breaker.undecided()
        if target.server.failed(ended.outcome.reason, began_ns(ended)):
            self._log_down(target)
        self._connectivity.look_at_servers()

    def _count_not_run(self, ended: Ended) -> None:
        """The job was not run: count a failure of the target for this database."""
        target, status, now_s = ended.target, ended.outcome.status, time.monotonic()
        self._tell_answered(ended)
        if status in GATEWAY and target.server.succeeded_since(began_ns(ended)):
            target.breaker.undecided()  # a proxy timed out for this job while others ran
            return
        went_down = target.breaker.failed(now_s, not_run_reason(ended), ended.uuid)
        if target.breaker.state is TargetState.DOWN and not (ended.outcome.own or _looks_well(status)):
            self._connectivity.expect_knock(target, now_s)
        if not ended.outcome.own and (status is None or status in GATEWAY):
            doubted_ns = target.server.doubt()
            self._connectivity.look_at_servers()
            if went_down:
                self.awaiting_probe[target] = doubted_ns
                self._connectivity.has_news = True
        elif went_down:
            self._log_refusing(target)

    def _settle_awaiting_probe(self) -> None:
        for target, since_ns in list(self.awaiting_probe.items()):
            if target.server.is_down:
                target.breaker.forgive()
            elif not target.server.probed_since(since_ns):
                continue
            else:
                self._log_refusing(target)
            del self.awaiting_probe[target]

    def _log_down(self, target: Target) -> None:
        self._shared_log.error("target_down", url=target.url, reason=target.server.reason)

    def _log_refusing(self, target: Target) -> None:
        """Log that the target answers but does not run this database's jobs."""
        retry_in_s = round(target.breaker.retry_at_s - time.monotonic(), 1)
        self._database_log.error("target_down", url=target.url, reason=target.breaker.reason, retry_in_s=retry_in_s)


def _looks_well(status: int | None) -> bool:
    """Whether an answer looks as if the job had been run: then a knock would be answered so too."""
    return status is not None and 200 <= status < 300


def began_ns(ended: Ended) -> int:
    """When a request that has just ended began, in monotonic nanoseconds."""
    return time.monotonic_ns() - int(ended.duration_s * 1e9)


def not_run_reason(ended: Ended) -> str:
    """Why the job of a request was not run, as far as known."""
    reason = explain(ended.outcome.status, ended.outcome.reason)
    if ended.outcome.status is not None and ended.target.header_problem:
        reason += (
            "; Odoo 19 and later take the database from the header X-Odoo-Database, which cannot carry"
            f" its name: {ended.target.header_problem}; rename the database"
        )
    return reason


def outcome_of(state: str) -> JobOutcome:
    """The outcome of a job whose row is in this state (or GONE) after its request."""
    return _OUTCOMES.get(state, _LOST)


def explain(status: int | None, reason: str) -> str:
    """What an answer that ran no job means, and what to do about it."""
    return reason if status is None else f"HTTP {status}: {meaning(status)}"
