"""Asks Odoo to run jobs: the open requests, which target each goes to, and how it ended.

Runs in the worker's loop and never blocks it. It knows a job by its uuid, with at most one open request each. What an
ended request means for a job is decided by the job's row (worker/outcomes.py), which then informs the target's breaker.
"""

from __future__ import annotations

import functools
import math
import os
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from ..config.settings import TargetSettings
from ..loop import Alarm, Callback, Loop
from ..states import TargetState
from .breaker import ACCEPTED_AFTER_S, NO_LIMIT
from .connectivity import ConnectivityProbes
from .request import DRAIN_S, HEAD_S, Address, End, Request, RequestOutcome
from .resolver import NoThreadError
from .target import OpenRequest, SharedHealth, Target, first_turn

_UP = TargetState.UP
#: The most open requests of one worker if no channel limits them; each is a socket.
MAX_OPEN = 1000
#: How long a probed server may take to connect and answer.
PROBE_S = 10.0


class Ended(NamedTuple):
    """A request that ended, to be judged by the job's row."""

    uuid: str
    target: Target
    outcome: RequestOutcome
    duration_s: float


class Dispatcher:
    """All open requests of one worker."""

    def __init__(
        self,
        loop: Loop,
        targets: Sequence[TargetSettings],
        database: str,
        servers: Sequence[SharedHealth],
        *,
        connect_timeout_s: float,
        read_timeout_s: float | None,
        wake: Callback = lambda _now_s: None,
    ) -> None:
        """`servers`: the shared health of each target, in the same order."""
        self._loop = loop
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.register(self._wakeup, selectors.EVENT_READ, self._resolved)
        self.targets = [
            Target(settings, database, self._wakeup, server) for settings, server in zip(targets, servers, strict=True)
        ]
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._next_target = first_turn(database) % max(1, len(targets))
        #: By uuid.
        self._open: dict[str, OpenRequest] = {}
        self._unresolved: list[OpenRequest] = []
        #: Answered requests whose connections wait for the server to finish.
        self._draining: set[OpenRequest] = set()
        self._expiry = Alarm(loop, self._expire_due)
        #: The first end of a pause after which `allowance` says more.
        self._retry_alarm = Alarm(loop, wake)
        self._wake = wake
        self.ended: list[Ended] = []
        #: Time of the current turn.
        self.now_s = 0.0
        self.connectivity = ConnectivityProbes(loop, self.targets, self._connect, wake)

    def encode_uuids(self, encoding: str) -> None:
        """Set the encoding of uuids in requests."""
        for target in self.targets:
            target.encoding = encoding

    # -- sending -----------------------------------------------------------------------------------------

    def allowance(self, now_s: float) -> int:
        """How many more jobs may be sent now."""
        room = MAX_OPEN - len(self._open)
        allowed = 0
        for target in self.targets:
            allowed += self._allowance(target, now_s)
            if allowed >= room:
                return room
        return allowed

    def _allowance(self, target: Target, now_s: float) -> int:
        if target.is_down:
            return 0
        breaker = target.breaker
        if breaker.state is _UP:
            return NO_LIMIT
        if breaker.state is TargetState.DOWN and now_s < breaker.retry_at_s:
            self._retry_alarm.set_earlier(breaker.retry_at_s)
        return breaker.allowance(now_s, [opened.began_s for opened in self._open.values() if opened.target is target])

    def send(self, uuid: str) -> None:
        """Send the request to an available target. Its end will be in `ended`."""
        now_s = time.monotonic()
        target = self._choose(now_s)
        opened = self._open[uuid] = OpenRequest(target, uuid, now_s)
        target.breaker.probe_sent()
        if target.breaker.state is TargetState.UNKNOWN:
            self._loop.call_at(now_s + ACCEPTED_AFTER_S, self._wake)  # there is room for another one then
        self._connect(opened)

    def _choose(self, now_s: float) -> Target:
        """The next available target, in turn."""
        count = len(self.targets)
        for step in range(count):
            target = self.targets[(self._next_target + step) % count]
            if self._allowance(target, now_s):
                self._next_target = (self._next_target + step + 1) % count
                return target
        return self.targets[self._next_target]

    def _connect(self, opened: OpenRequest) -> None:
        self._set_deadline(opened, opened.began_s + self._connect_timeout_s)
        try:
            addresses = opened.target.resolver.addresses()
        except OSError as error:
            self._finish(opened, RequestOutcome(End.UNASKED, None, str(error), isinstance(error, NoThreadError)))
            return
        if addresses is None:
            self._unresolved.append(opened)
            return
        payload = opened.target.payload(opened.uuid) if opened.uuid else opened.target.probe
        self._start(opened, payload, addresses)

    def _start(self, opened: OpenRequest, payload: bytes, addresses: list[Address]) -> None:
        target = opened.target
        opened.request = Request(payload, addresses, target.host, target.context)
        opened.request.begin()
        self._after_step(opened, None, 0)

    def _resolved(self, _now_s: float) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        waiting, self._unresolved = self._unresolved, []
        for opened in waiting:
            self._connect(opened)

    # -- going on ----------------------------------------------------------------------------------------

    def _step(self, opened: OpenRequest, _now_s: float) -> None:
        request = opened.request
        assert request is not None
        sock, events = request.sock, request.events
        request.step()
        self._after_step(opened, sock, events)

    def _after_step(self, opened: OpenRequest, old_sock: socket.socket | None, old_events: int) -> None:
        """Bring the loop, the deadline and `ended` in line with the request's new state."""
        request = opened.request
        assert request is not None
        if request.outcome is not None and opened not in self._draining:
            self._report(opened, request.outcome)
        if request.outcome is None and not request.connecting:
            opened.target.resolver.note_reached(request.address, request.unreachable)
        if request.sock is not old_sock or request.events != old_events:
            self._rewatch(opened, old_sock if old_events else None)
        if not request.events:
            self._draining.discard(opened)
            request.close()
            if not (self._open or self._draining or self.connectivity.probes or self.connectivity.knocks):
                self._expiry.clear()  # or an idle worker would wake for a request that is over
        elif request.asked and request.outcome is None:
            self._set_deadline(opened, self._answer_due_s(opened, request))

    def _answer_due_s(self, opened: OpenRequest, request: Request) -> float | None:
        """When the answer, or a head that has started to arrive, is overdue."""
        if not opened.is_of_job:
            return opened.began_s + min(PROBE_S, 2 * self._connect_timeout_s)
        if not request.in_head:
            opened.head_deadline_s = None
        elif opened.head_deadline_s is None:
            opened.head_deadline_s = time.monotonic() + HEAD_S
        head_s = opened.head_deadline_s
        if self._read_timeout_s is None:
            return head_s
        read_s = opened.began_s + self._read_timeout_s
        return read_s if head_s is None else min(head_s, read_s)

    def _rewatch(self, opened: OpenRequest, old_sock: socket.socket | None) -> None:
        request = opened.request
        assert request is not None
        if old_sock is not None:
            self._loop.unregister(old_sock)
        if request.sock is not None and request.events:
            self._loop.register(request.sock, request.events, functools.partial(self._step, opened))

    def _report(self, opened: OpenRequest, outcome: RequestOutcome) -> None:
        """Record the outcome; the rest of the answer may still arrive for a moment."""
        request = opened.request
        if request is not None and request.events:
            self._draining.add(opened)
            self._set_deadline(opened, time.monotonic() + DRAIN_S)
        self._finish(opened, outcome)

    def _finish(self, opened: OpenRequest, outcome: RequestOutcome) -> None:
        now_s = time.monotonic()
        if not opened.is_of_job:
            self.connectivity.end(opened, outcome)
            return
        self._open.pop(opened.uuid, None)
        self.ended.append(Ended(opened.uuid, opened.target, outcome, now_s - opened.began_s))

    # -- deadlines ---------------------------------------------------------------------------------------

    def _set_deadline(self, opened: OpenRequest, deadline_s: float | None) -> None:
        opened.deadline_s = deadline_s
        if deadline_s is not None and deadline_s < self._expiry.at_s:
            self._expiry.set(deadline_s)

    def tick(self, now_s: float) -> None:
        """Probe the servers whose probe is due. Called once a turn, before anything is sent."""
        self.now_s = now_s
        if self.connectivity.alarm.at_s < math.inf:
            self.connectivity.alarm.clear()
        for target in self.targets:
            due_s = target.server.probe_due_s()
            if due_s is not None or target.is_down:
                self.connectivity.probe(target, due_s, now_s)

    def _expire_due(self, now_s: float) -> None:
        """End overdue requests and probes."""
        for opened in self._all():
            if opened.deadline_s is None:
                continue
            if opened.deadline_s <= now_s:
                self._expire(opened)
            deadline_s = opened.deadline_s  # changes when the next address is tried
            if deadline_s is not None and deadline_s > now_s:
                self._expiry.set_earlier(deadline_s)
        if self.ended or self.connectivity.has_news:
            self._wake(now_s)

    def _all(self) -> Iterator[OpenRequest]:
        found = self.connectivity
        return iter([*self._open.values(), *found.probes.values(), *found.knocks.values(), *self._draining])

    def _expire(self, opened: OpenRequest) -> None:
        request = opened.request
        if request is None:
            self._unresolved.remove(opened)
            self._finish(
                opened, RequestOutcome(End.UNASKED, None, f"{opened.target.host}: the name server does not answer")
            )
            return
        now_s = time.monotonic()
        if opened.head_deadline_s is not None and opened.head_deadline_s <= now_s:
            waited = "the head of the answer has no end"
        else:
            waited = f"no answer for {now_s - opened.began_s:.0f} s"
        sock, events = request.sock, request.events
        if request.go_elsewhere():
            self._set_deadline(opened, now_s + self._connect_timeout_s)
        else:
            request.give_up("no connection in time" if not request.asked else waited)
        self._after_step(opened, sock, events)

    def let_go(self, uuid: str, reason: str, *, is_over: bool) -> None:
        """End a request whose answer is no longer awaited; its end will be in `ended`.

        `is_over`: its job ended by itself, so that the address should have answered.
        """
        opened = self._open[uuid]
        if is_over:
            opened.target.server.let_go()
        request = opened.request
        if request is None:
            self._unresolved.remove(opened)
            self._finish(opened, RequestOutcome(End.UNASKED, None, reason))
            return
        sock, events = request.sock, request.events
        request.give_up(reason)
        self._after_step(opened, sock, events)

    # -- looking and stopping ------------------------------------------------------------------------------

    def is_open(self, uuid: str) -> bool:
        """Whether a request for this job is open."""
        return uuid in self._open

    def target_of(self, uuid: str) -> Target | None:
        """Where the open request for this job went."""
        opened = self._open.get(uuid)
        return opened.target if opened is not None else None

    @property
    def open(self) -> int:
        """How many requests are open."""
        return len(self._open)

    def unsent(self) -> list[str]:
        """Uuids of the jobs whose request has not been sent yet, so that nobody was asked to run them."""
        return [uuid for uuid, o in self._open.items() if o.request is None or not o.request.asked]

    def close(self) -> None:
        """Close all connections. Jobs already requested keep running in Odoo."""
        for opened in self._all():
            if opened.request is not None:
                opened.request.close()
        for target in self.targets:
            target.server.release()
        self._loop.unregister(self._wakeup)
        os.close(self._wakeup)
