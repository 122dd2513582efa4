"""One database's circuit breaker for a target: may its jobs be sent there now? Pure, no clock.

Whether the target can be reached at all is shared by all databases (table/servers.py). This is about an Odoo that
answers but does not run this database's jobs (dbfilter, a missing module, a proxy that wants a password).

Up: everything may be sent. Until an answer has proved that jobs are run, only a few requests may be open at once, so
that a misconfigured Odoo does not get forty requests in the first instant.
Down: nothing is sent before `retry_at_s` (exponential backoff with jitter, 1 to 60 s); then one job is the probe. In
between Odoo is asked for a job that does not exist: a knock, which changes no row. One that is answered well ends the
pause at once; if the next job is not run all the same, knocks become as rare as jobs.
"""

from __future__ import annotations

from ..backoff import Backoff
from ..states import TargetState

_UP, _DOWN = TargetState.UP, TargetState.DOWN
#: No limit on requests.
NO_LIMIT = 1 << 30
#: How many requests may be open to a target that has not run a job yet.
UNPROVEN_LIMIT = 4
#: A request that has been open for this long was not rejected.
ACCEPTED_AFTER_S = 0.5
#: Failures of a single job pause the target for no longer than this: the next job may succeed.
ONE_JOB_PAUSE_S = 1.0
#: Between two knocks; doubled each time that one was answered well and the next job was not run, up to the last.
KNOCK_S, KNOCK_LIMIT_S = 4.0, 60.0
#: How many failures in a row a proven target may have before it counts as down.
TOLERATED = 2


class Breaker:
    """Health of one target as seen by one database."""

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff(first_s=1, limit_s=60)
        self.state = TargetState.UNKNOWN
        self.failures = 0
        self.reason = ""
        self.retry_at_s = 0.0
        self._probing = False
        #: The job that failed last, and whether another one failed too, since the last success.
        self._failing_job = ""
        self._several_fail = False
        #: Knocks that were answered well since the last success.
        self._knocks = 0

    def allowance(self, now_s: float, in_flight_s: list[float]) -> int:
        """How many more requests may be sent. `in_flight_s`: when each open request to the target was sent."""
        if self.state is _UP:
            return NO_LIMIT
        if self.state is TargetState.UNKNOWN:
            young = sum(1 for sent_s in in_flight_s if now_s - sent_s < ACCEPTED_AFTER_S)
            return max(0, UNPROVEN_LIMIT - young)
        return int(now_s >= self.retry_at_s and not self._probing)

    def probe_sent(self) -> None:
        """Note that a request was sent; while down, it is the only one until it ends."""
        self._probing = self.state is _DOWN

    def record_success(self) -> bool:
        """Note that a job was run there. True if the target was down until now."""
        if self.state is _UP and not self.failures:
            return False  # as after almost every job
        was_down = self.state is _DOWN
        self.state = _UP
        self._begin_anew()
        return was_down

    def failed(self, now_s: float, reason: str, uuid: str) -> bool:
        """Note that a request failed. True if that takes the target down."""
        self.failures += 1
        self.reason = reason
        self._probing = False
        self._several_fail = self._several_fail or self._failing_job not in ("", uuid)
        self._failing_job = uuid
        if self.state is _UP and self.failures <= TOLERATED:
            return False
        goes_down = self.state is not _DOWN
        # Requests that were open together count as one failure, so that the pause does not grow with their number.
        if goes_down or now_s >= self.retry_at_s:
            self.retry_at_s = now_s + (self._backoff.next_s() if self._several_fail else ONE_JOB_PAUSE_S)
        self.state = _DOWN
        return goes_down

    @property
    def knock_pause_s(self) -> float:
        """How long after a failure or a knock the next knock is due."""
        return min(KNOCK_LIMIT_S, KNOCK_S * (1 << min(self._knocks, 10)))

    def knocked(self, now_s: float) -> None:
        """Note that a knock was answered well: the next job may be tried now."""
        self._knocks += 1
        self.retry_at_s = min(self.retry_at_s, now_s)

    def undecided(self) -> None:
        """Note a request that ended and says nothing about its target; the next one tries again."""
        self._probing = False

    def forgive(self) -> None:
        """Start over: the failures were an outage of the target for every database, not just for this one."""
        if self.state is _DOWN:
            self.state = TargetState.UNKNOWN
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.failures = 0
        self.reason = ""
        self._probing = False
        self._failing_job, self._several_fail = "", False
        self._knocks = 0
        self._backoff.reset()
