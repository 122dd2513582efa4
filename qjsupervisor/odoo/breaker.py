"""Whether a target may be asked now: the circuit breaker of one Odoo, as one worker sees it.  Pure, no clock.

Up: everything may be sent. Until an answer has proved that jobs are run, only a few requests may be in the air
at once, so that a misconfigured Odoo is not asked forty times in its first instant.
Down: nothing is sent before `retry_at_s` (exponential, jittered, 1 to 60 s); then one job is the probe, and, where
it was the connection that failed, only after a connection could be made (`knock`): a dead host changes no job's state.
"""

from __future__ import annotations

from ..backoff import Backoff
from ..states import TargetState

#: As many requests as there are jobs.
NO_LIMIT = 1 << 30
#: Requests in the air to a target that has not proved itself.
UNPROVEN_LIMIT = 4
#: A request that is open for so long was not turned away.
ACCEPTED_AFTER_S = 0.5
#: Failures of one job alone pause the target no longer than this: the next job may be a good one.
ONE_JOB_PAUSE_S = 1.0
#: Answers that a proven target may get wrong in a row before it counts as down.
TOLERATED = 2


class Breaker:
    """Health of one target."""

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff(first_s=1, limit_s=60)
        self.state = TargetState.UNKNOWN
        self.failures = 0
        self.reason = ""
        self.retry_at_s = 0.0
        #: Whether a connection has to be tried before a job is: set by failures to connect.
        self.knock = False
        self._probing = False
        self._failing_jobs: set[str] = set()

    def allowance(self, now_s: float, in_flight_s: list[float]) -> int:
        """How many more requests may be sent; `in_flight_s`: when each open request to the target was sent."""
        if self.state is TargetState.UP:
            return NO_LIMIT
        if self.state is TargetState.UNKNOWN:
            young = sum(1 for sent_s in in_flight_s if now_s - sent_s < ACCEPTED_AFTER_S)
            return max(0, UNPROVEN_LIMIT - young)
        return int(now_s >= self.retry_at_s and not self._probing and not self.knock)

    def probe_sent(self) -> None:
        """A request was sent; while down, it is the only one until it ends."""
        self._probing = self.state is TargetState.DOWN

    def wakes_at_s(self, now_s: float, in_flight_s: list[float]) -> float | None:
        """When, if nothing happens before, more may be sent or knocked at; None: nothing is held up."""
        if self.state is TargetState.DOWN:
            waits = not self._probing and (self.knock or self.retry_at_s > now_s)
            return self.retry_at_s if waits else None
        if self.state is TargetState.UNKNOWN and not self.allowance(now_s, in_flight_s):
            return min((s for s in in_flight_s if now_s - s < ACCEPTED_AFTER_S), default=now_s) + ACCEPTED_AFTER_S
        return None

    def proved(self) -> bool:
        """A job was run there. True if the target was down until now."""
        was_down = self.state is TargetState.DOWN
        self.state = TargetState.UP
        self.failures = 0
        self.reason = ""
        self._probing = self.knock = False
        self._failing_jobs.clear()
        self._backoff.reset()
        return was_down

    def failed(self, now_s: float, reason: str, uuid: str | None, *, connecting: bool) -> bool:
        """A request (or a knock, without a job) came to nothing. True if the target goes down by it."""
        self.failures += 1
        self.reason = reason
        self._probing = False
        if uuid is not None:
            self._failing_jobs.add(uuid)
        if self.state is TargetState.UP and not connecting and self.failures <= TOLERATED:
            return False
        goes_down = self.state is not TargetState.DOWN
        # Requests that were in the air together are one failure: the pause is not to grow with their number.
        if goes_down or now_s >= self.retry_at_s:
            alone = not connecting and len(self._failing_jobs) == 1
            self.retry_at_s = now_s + (ONE_JOB_PAUSE_S if alone else self._backoff.next_s())
        self.knock = self.knock or connecting
        self.state = TargetState.DOWN
        return goes_down

    def undecided(self) -> None:
        """A request ended and told nothing of its target: the next one tries again."""
        self._probing = False

    def answered_knock(self) -> None:
        """A connection could be made: a job may be the probe now."""
        self.knock = self._probing = False
