"""Whether one database's jobs may be sent to a target now: its own circuit breaker.  Pure, no clock.

Whether the target can be reached at all is shared by all databases (table/servers.py). Here is what this one finds: an
Odoo that answers, and does not run its jobs (dbfilter, a missing module, a proxy that wants a password).

Up: everything may be sent. Until an answer has proved that jobs are run, only a few requests may be open at once, so
that a misconfigured Odoo is not asked forty times in its first instant.
Down: nothing is sent before `retry_at_s` (exponential, jittered, 1 to 60 s); then one job is the probe.
"""

from __future__ import annotations

from ..backoff import Backoff
from ..states import TargetState

#: As many requests as there are jobs.
NO_LIMIT = 1 << 30
#: Requests that may be open to a target that has not proved itself.
UNPROVEN_LIMIT = 4
#: A request that is open for so long was not turned away.
ACCEPTED_AFTER_S = 0.5
#: Failures of one job alone pause the target no longer than this: the next job may be a good one.
ONE_JOB_PAUSE_S = 1.0
#: Answers that a proven target may get wrong in a row before it counts as down.
TOLERATED = 2


class Breaker:
    """Health of one target, as one database finds it."""

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff(first_s=1, limit_s=60)
        self.state = TargetState.UNKNOWN
        self.failures = 0
        self.reason = ""
        self.retry_at_s = 0.0
        self._probing = False
        self._failing_jobs: set[str] = set()

    def allowance(self, now_s: float, in_flight_s: list[float]) -> int:
        """How many more requests may be sent; `in_flight_s`: when each open request to the target was sent."""
        if self.state is TargetState.UP:
            return NO_LIMIT
        if self.state is TargetState.UNKNOWN:
            young = sum(1 for sent_s in in_flight_s if now_s - sent_s < ACCEPTED_AFTER_S)
            return max(0, UNPROVEN_LIMIT - young)
        return int(now_s >= self.retry_at_s and not self._probing)

    def probe_sent(self) -> None:
        """A request was sent; while down, it is the only one until it ends."""
        self._probing = self.state is TargetState.DOWN

    def wakes_at_s(self, now_s: float, in_flight_s: list[float]) -> float | None:
        """When, if nothing happens before, more may be sent; None: nothing is held up."""
        if self.state is TargetState.DOWN:
            return self.retry_at_s if not self._probing and self.retry_at_s > now_s else None
        if self.state is TargetState.UNKNOWN and not self.allowance(now_s, in_flight_s):
            return min((s for s in in_flight_s if now_s - s < ACCEPTED_AFTER_S), default=now_s) + ACCEPTED_AFTER_S
        return None

    def proved(self) -> bool:
        """A job was run there. True if the target was down until now."""
        was_down = self.state is TargetState.DOWN
        self.state = TargetState.UP
        self._begin_anew()
        return was_down

    def failed(self, now_s: float, reason: str, uuid: str) -> bool:
        """A request came to nothing. True if the target goes down by it."""
        self.failures += 1
        self.reason = reason
        self._probing = False
        self._failing_jobs.add(uuid)
        if self.state is TargetState.UP and self.failures <= TOLERATED:
            return False
        goes_down = self.state is not TargetState.DOWN
        # Requests that were open together are one failure: the pause is not to grow with their number.
        if goes_down or now_s >= self.retry_at_s:
            alone = len(self._failing_jobs) == 1
            self.retry_at_s = now_s + (ONE_JOB_PAUSE_S if alone else self._backoff.next_s())
        self.state = TargetState.DOWN
        return goes_down

    def undecided(self) -> None:
        """A request ended and told nothing of its target: the next one tries again."""
        self._probing = False

    def forgive(self) -> None:
        """What failed was the target's fault, and everybody's: this database tries again as if it was new to it."""
        if self.state is TargetState.DOWN:
            self.state = TargetState.UNKNOWN
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.failures = 0
        self.reason = ""
        self._probing = False
        self._failing_jobs.clear()
        self._backoff.reset()
