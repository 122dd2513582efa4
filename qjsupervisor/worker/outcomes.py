"""What the end of a request tells: of its target, and, with the job's row as it was read after it, of the job.

Each end is logged here, once, and so is what becomes of a target. It changes no row, no permit and no place in the
backlog: serving.py does, by what is found here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from structlog.typing import FilteringBoundLogger

from ..odoo.answers import meaning
from ..odoo.dispatcher import Ended
from ..odoo.request import End
from ..odoo.target import Target
from ..states import JobState, Outcome

#: In place of a state: the job has no row any more.
GONE = "gone"
#: What a proxy answers in place of an Odoo that takes longer than it waits.
GATEWAY_TIMEOUT = 504
#: By the state of the row after the request; whatever else it is, it tells nothing.
_OUTCOMES = {
    JobState.DONE: Outcome.DONE,
    JobState.FAILED: Outcome.FAILED,
    JobState.PENDING: Outcome.RETRIED,
    JobState.ENQUEUED: Outcome.NOT_RUN,
    JobState.CANCELLED: Outcome.CANCELLED,
}


class RequestOutcomes:
    """What one worker learns about its targets."""

    def __init__(
        self,
        targets: Sequence[Target],
        log: FilteringBoundLogger,
        on_recovery: Callable[[], None],
        *,
        can_tell_dead: Callable[[], bool],
    ) -> None:
        """`on_recovery`: called when a target that was down runs jobs again.

        `can_tell_dead`: whether a job whose process died is found out (the database has queue_job_lock).
        """
        self._can_tell_dead = can_tell_dead
        self._targets = targets
        self._log = log
        self._on_recovery = on_recovery

    def record_result(self, ended: Ended, state: str) -> bool:
        """Log the end of a request and learn about its target. True: nobody ran the job, it is to be given back.

        `state`: of the job's row, or GONE.
        """
        outcome, breaker = ended.outcome, ended.target.breaker
        not_run = state == JobState.ENQUEUED
        if not_run or outcome.end is End.UNASKED:
            self._count_failure(ended)
        elif state in (GONE, JobState.CANCELLED):
            breaker.undecided()
        else:
            ended.target.ran_s = time.monotonic()
            if breaker.proved():
                self._is_back(ended.target)
        if state == JobState.STARTED:
            self._tell_unanswered(ended)
        else:
            self.tell(ended, state)
        return not_run

    def tell(self, ended: Ended, state: str) -> None:
        """Log what became of a job: one line with all that is known of it."""
        self._log.info(
            "job_finished" if state != JobState.ENQUEUED else "job_not_run",
            job_uuid=ended.uuid,
            state=state,
            status=ended.outcome.status,
            reason=ended.outcome.reason,
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
        """A job that a request is open for was started: the target runs jobs."""
        for target in self._targets:
            if uuid in target.sent_s and target.breaker.proved():
                self._is_back(target)

    def _is_back(self, target: Target) -> None:
        self._log.info("target_recovered", url=target.url)
        self._on_recovery()

    def _count_failure(self, ended: Ended) -> None:
        """A request came to nothing: that counts against its target."""
        now_s, breaker, outcome = time.monotonic(), ended.target.breaker, ended.outcome
        if outcome.status == GATEWAY_TIMEOUT and ended.target.ran_s >= now_s - ended.duration_s:
            breaker.undecided()  # a proxy did not wait long enough for this job; others ran meanwhile
            return
        reason = explain(outcome.status, outcome.reason)
        if outcome.status is not None and ended.target.header_problem:
            reason += (
                "; Odoo 19 and later take the database from the header X-Odoo-Database, which cannot carry"
                f" its name: {ended.target.header_problem}; rename the database"
            )
        if not breaker.failed(now_s, reason, ended.uuid, connecting=outcome.end is End.UNASKED):
            return
        self._log.warning(
            "target_down",
            url=ended.target.url,
            reason=breaker.reason,
            retry_in_s=round(breaker.retry_at_s - now_s, 1),
        )


def outcome_of(state: str) -> Outcome:
    """What became of a job whose row is in that state (or GONE) after its request."""
    return _OUTCOMES.get(state, Outcome.LOST)  # type: ignore[call-overload,no-any-return]  # a JobState is a str


def explain(status: int | None, reason: str) -> str:
    """What an answer that ran no job means, and what to do."""
    return reason if status is None else f"HTTP {status}: {meaning(status)}"
