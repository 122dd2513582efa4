"""Jobs that exceed their channel's `max_runtime`: warns about each, and ends them if configured.

A hung job holds its permit for ever. It is ended through the database session that holds its lock row: its work is
rolled back, and the dead-job rule does the rest. One statement at intervals checks running jobs, only while there are
any and a `max_runtime` is set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from ..channelspec import max_runtime_of
from ..config.settings import ServingRules
from ..loop import Deadline
from ..odoo.dispatcher import Dispatcher
from ..postgres.database import Database
from ..text import seconds
from .jobs import JobRecord, Jobs

#: Number of checks within the shortest max_runtime, within these bounds in seconds.
_LOOKS = 20
_SHORTEST_S, _LONGEST_S = 0.5, 30.0


class LongRuns:
    """The jobs of one database that run too long. `tell` sends their number to the master."""

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        log: FilteringBoundLogger,
        tell: Callable[[Any], None],
        due: Deadline,
    ) -> None:
        """`due`: when to check; not set while there is nothing to check."""
        self.due = due
        self._database = database
        self._dispatcher = dispatcher
        self._log = log
        self._tell = tell
        self._rules = ServingRules()
        #: How many ran too long at the last check, and the number of that check.
        self._overdue = 0
        self._looks = 1
        self._looked_s = 0.0
        #: There are limits, but no check is scheduled.
        self.is_idle = False

    def apply(self, rules: ServingRules) -> None:
        """Adopt the current configuration."""
        self._rules = rules
        self.due.clear()
        self.is_idle = bool(rules.max_runtimes)
        if not rules.max_runtimes:
            self._note_overdue(0)

    @property
    def any_overdue(self) -> bool:
        """Whether any job ran too long at the last check."""
        return self._overdue > 0

    def expect(self) -> None:
        """There are running or overdue jobs: schedule a check."""
        self.is_idle = False
        shortest_s = min(self._rules.max_runtimes.values())
        self.due.set(self._looked_s + min(_LONGEST_S, max(_SHORTEST_S, shortest_s / _LOOKS)))

    def look(self, held: set[int], jobs: Jobs, now_s: float) -> None:
        """Check which jobs that hold permits run too long. Raises DatabaseError."""
        self._looked_s = now_s
        self.due.clear()
        self.is_idle = True
        rows = self._database.running_for(held, min(self._rules.max_runtimes.values())) if held else []
        overdue = 0
        self._looks += 1
        for job_id, uuid, channel, age_s in rows:
            limit = max_runtime_of(channel, self._rules.max_runtimes)
            if limit is not None and age_s > limit[1]:
                overdue += 1
                record = jobs.of(job_id)
                if record.overdue_look < self._looks - 1:
                    of = f"max_runtime of {limit[0]} is {seconds(limit[1])}"
                    self._log.warning("job_overdue", job_uuid=uuid, channel=channel, reason=of, for_s=round(age_s))
                    record.is_session_ended = False
                record.overdue_look = self._looks
                if self._rules.max_runtime_action == "terminate":
                    self._end(record, uuid, jobs)
        self._note_overdue(overdue)

    def _note_overdue(self, overdue: int) -> None:
        if overdue != self._overdue:
            self._overdue = overdue
            self._tell({"is": "overdue", "jobs": overdue})

    def _end(self, record: JobRecord, uuid: str, jobs: Jobs) -> None:
        """End the job's session; at the next check, drop the request if Odoo did not notice, and go by the row."""
        if record.is_session_ended:
            if jobs.sent(uuid) is not None and self._dispatcher.is_open(uuid):
                self._dispatcher.let_go(uuid, "it ran for too long, and its session was ended", is_over=False)
            return
        record.is_session_ended = True
        ended = self._database.end_session_of(record.id)
        if ended is None:
            reason = "no session holds its lock row: it cannot be ended from here"
            self._log.error("job_not_ended", job_uuid=uuid, reason=reason)
        elif not ended:
            reason = "the role may not end Odoo's session: GRANT pg_signal_backend to it, or connect as Odoo's role"
            self._log.error("job_not_ended", job_uuid=uuid, reason=reason)
        else:
            self._log.warning("job_ended", job_uuid=uuid, reason="it ran for too long: its session was ended")
