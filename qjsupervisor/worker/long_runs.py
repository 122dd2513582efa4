"""Jobs that run for longer than their channel's `max_runtime`: a warning for each, and, if that is wanted, their end.

A hung job holds its permit for ever. It is ended through its database session, the one that holds its lock row: what it
did is rolled back, and the dead-job rule does the rest. One statement now and then looks at the jobs that run, only
while there are any and a `max_runtime` is set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from ..channelspec import max_runtime_of
from ..config.settings import ServingRules
from ..odoo.dispatcher import Dispatcher
from ..postgres.database import Database
from ..text import seconds
from .jobs import Jobs

#: They are looked at so many times in the shortest max_runtime, within these bounds in seconds.
_LOOKS = 20
_SHORTEST_S, _LONGEST_S = 0.5, 30.0


class LongRuns:
    """The jobs of one database that run for too long. `tell` sends the master how many there are."""

    def __init__(
        self, database: Database, dispatcher: Dispatcher, log: FilteringBoundLogger, tell: Callable[[Any], None]
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._log = log
        self._tell = tell
        self._rules = ServingRules()
        #: Uuids by job id.
        self._overdue: dict[int, str] = {}
        #: Those whose sessions were ended.
        self._ended: set[int] = set()
        self._looked_s = 0.0

    def apply(self, rules: ServingRules) -> None:
        """What the configuration says now."""
        self._rules = rules

    def due_s(self, *, any_held: bool) -> float | None:
        """When to look; None: there is nothing to look at."""
        limits = self._rules.max_runtimes.values()
        if not limits or not (any_held or self._overdue):
            return None
        return self._looked_s + min(_LONGEST_S, max(_SHORTEST_S, min(limits) / _LOOKS))

    def look(self, held: set[int], jobs: Jobs, now_s: float) -> None:
        """See which of the jobs that hold permits run for too long. Raises DatabaseError."""
        self._looked_s = now_s
        rows = self._database.running_for(held, min(self._rules.max_runtimes.values())) if held else []
        overdue = {}
        for job_id, uuid, channel, age_s in rows:
            limit = max_runtime_of(channel, self._rules.max_runtimes)
            if limit is not None and age_s > limit[1]:
                overdue[job_id] = uuid
                if job_id not in self._overdue:
                    of = f"max_runtime of {limit[0]} is {seconds(limit[1])}"
                    self._log.warning("job_overdue", job_uuid=uuid, channel=channel, reason=of, for_s=round(age_s))
                if self._rules.max_runtime_action == "terminate":
                    self._end(job_id, uuid, jobs)
        if len(overdue) != len(self._overdue):
            self._tell({"is": "overdue", "jobs": len(overdue)})
        self._overdue = overdue
        self._ended &= overdue.keys()

    def _end(self, job_id: int, uuid: str, jobs: Jobs) -> None:
        """End its session; at the next look, hang up if Odoo did not notice: then its row tells."""
        if job_id in self._ended:
            if jobs.sent(uuid) is not None and self._dispatcher.is_open(uuid):
                self._dispatcher.let_go(uuid, "it ran for too long, and its session was ended")
            return
        self._ended.add(job_id)
        ended = self._database.end_session_of(job_id)
        if ended is None:
            reason = "no session holds its lock row: it cannot be ended from here"
            self._log.error("job_not_ended", job_uuid=uuid, reason=reason)
        elif not ended:
            reason = "the role may not end Odoo's session: GRANT pg_signal_backend to it, or connect as Odoo's role"
            self._log.error("job_not_ended", job_uuid=uuid, reason=reason)
        else:
            self._log.warning("job_ended", job_uuid=uuid, reason="it ran for too long: its session was ended")
