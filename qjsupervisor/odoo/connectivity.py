"""Connectivity probes: whether an Odoo that could not be reached answers again, and runs this database's jobs.

A probe asks a server that is down or in doubt for a page that needs no database, once for all workers (SharedHealth). A
knock asks a server that answers, but does not run this database's jobs, for a job that does not exist.
Runs in the worker's loop. It sends no jobs (dispatcher.py) and does not say what a changed health means for jobs
(worker/outcomes.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..loop import Alarm, Callback, Loop
from ..states import ServerVerdict, TargetState
from .http_status import GATEWAY
from .request import End, RequestOutcome
from .target import NO_JOB, OpenRequest, Target


class ConnectivityProbes:
    """The probes and knocks of one worker. `connect` begins a request, whose end is given to `end`."""

    def __init__(
        self, loop: Loop, targets: Sequence[Target], connect: Callable[[OpenRequest], None], wake: Callback
    ) -> None:
        self._targets = targets
        self._connect = connect
        self._wake = wake
        #: The open ones.
        self.probes: dict[Target, OpenRequest] = {}
        self.knocks: dict[Target, OpenRequest] = {}
        #: When a turn must look whether a probe is due.
        self.alarm = Alarm(loop, wake)
        self._knock_alarm = Alarm(loop, self._knock)
        #: A server's state has changed, or a probe has ended, since this was last reset.
        self.has_news = False
        #: What probes have changed, to be logged.
        self.verdicts: list[tuple[Target, ServerVerdict]] = []
        #: Those whose knocks were answered well.
        self.knocked: list[Target] = []

    def probe(self, target: Target, due_s: float | None, now_s: float) -> None:
        """Probe a server that is down or in doubt, if that is due and this worker's task."""
        self._take_note(target)
        if due_s is None or target in self.probes:
            return
        if target.server.take_probe():
            opened = self.probes[target] = OpenRequest(target, "", now_s)
            self._connect(opened)
        else:
            self.alarm.set_earlier(due_s)

    def expect_knock(self, target: Target, now_s: float) -> None:
        """A target answers, and does not run the jobs of this database: knock until it does."""
        self._knock_alarm.set_earlier(now_s + target.breaker.knock_pause_s)

    def _knock(self, now_s: float) -> None:
        for target in self._targets:
            if target.breaker.state is not TargetState.DOWN or target in self.knocks:
                continue
            self.expect_knock(target, now_s)
            if not target.is_down:
                opened = self.knocks[target] = OpenRequest(target, NO_JOB, now_s)
                self._connect(opened)

    def look_at_servers(self) -> None:
        """Take note of the servers' shared states: nothing goes to one that is down; the next turn may probe it."""
        self.alarm.set(time.monotonic())
        for target in self._targets:
            self._take_note(target)

    def _take_note(self, target: Target) -> None:
        if target.server.is_down != target.is_down:
            target.is_down = not target.is_down
            self.has_news = True

    def end(self, opened: OpenRequest, outcome: RequestOutcome) -> None:
        """A probe or a knock ended."""
        if opened.uuid:
            self.knocks.pop(opened.target, None)
            if outcome.status == 200:
                self.knocked.append(opened.target)
                self.has_news = True
                self._wake(time.monotonic())
            return
        self.probes.pop(opened.target, None)
        server = opened.target.server
        if outcome.own:
            server.postpone()
            self.look_at_servers()
            return
        answered = outcome.end is End.ANSWERED and outcome.status not in GATEWAY
        verdict = server.probed(int(opened.began_s * 1e9), "" if answered else outcome.reason)
        self.verdicts.append((opened.target, verdict))
        self.has_news = True
        self.look_at_servers()
