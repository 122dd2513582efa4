"""A child that simply has to be there, as the monitor: started, and started again with a pause when it dies."""

from __future__ import annotations

import math
import selectors
import signal

from ..backoff import RestartPolicy
from ..errors import ProtocolError
from ..logs import get_logger
from .child import Body, Child, ChildSpawner, exit_reason


class Service:
    """At most one process that runs `body`; None: none is wanted."""

    def __init__(
        self, name: str, spawner: ChildSpawner, selector: selectors.BaseSelector, policy: RestartPolicy | None = None
    ) -> None:
        self.name = name
        #: What it died of last.
        self.last_error: str | None = None
        self._spawner = spawner
        self._selector = selector
        self._policy = policy or RestartPolicy()
        self._body: Body | None = None
        self._child: Child | None = None
        self._listening = False
        self._due_s = 0.0
        self._started_s = 0.0
        self._log = get_logger(service=name)

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def run(self, body: Body | None, now_s: float) -> None:
        """Run this from now on: what runs is ended first, and the new one starts when it is gone."""
        self._body = body
        self._due_s = now_s
        self.last_error = None
        if self._child is not None:
            self._child.signal(signal.SIGTERM)

    def step(self, now_s: float) -> None:
        """Start what is due."""
        body = self._body
        if self._child is not None or body is None or now_s < self._due_s:
            return
        try:
            self._child = self._spawner.spawn(f"qjsupervisor: {self.name}", body)
        except OSError as error:
            self.last_error = f"no process could be started: {error.strerror}"
            self._due_s = now_s + self._policy.delay_s(0.0)
            self._log.error("fork_failed", reason=error.strerror)
            return
        self._started_s = now_s
        self._selector.register(self._child.pipe, selectors.EVENT_READ, self._hear)
        self._listening = True
        self._log.info("service_spawned", worker_pid=self._child.pid)

    def next_deadline_s(self) -> float:
        return self._due_s if self._body is not None and self._child is None else math.inf

    def reaped(self, pid: int, exit_code: int, now_s: float) -> bool:
        """A child has ended; False if it was not this one."""
        if self._child is None or self._child.pid != pid:
            return False
        self._stop_listening()
        self._child.pipe.close()
        self._child = None
        if self._body is not None and now_s > self._due_s:
            self.last_error = exit_reason(exit_code)
            self._due_s = now_s + self._policy.delay_s(now_s - self._started_s)
            self._log.warning("service_reaped", worker_pid=pid, exit_code=exit_code, reason=self.last_error)
        return True

    def kill(self) -> None:
        """End it at once, for good."""
        self._body = None
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    def close_in_child(self) -> None:
        if self._child is not None:
            self._child.pipe.close()

    def _hear(self, _now_s: float) -> None:
        """It has nothing to say; only its end must not keep the loop awake."""
        assert self._child is not None
        try:
            self._child.pipe.receive_all()
        except (EOFError, ProtocolError):
            self._stop_listening()

    def _stop_listening(self) -> None:
        if self._listening and self._child is not None:
            self._selector.unregister(self._child.pipe)
        self._listening = False
