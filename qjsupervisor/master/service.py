"""A child that simply has to be there, as the monitor: started, and started again with a pause when it dies."""

from __future__ import annotations

import selectors
import signal

from ..backoff import RestartPolicy
from ..errors import ProtocolError
from ..logs import get_logger
from ..loop import Alarm, Loop
from .child import Body, Child, ChildSpawner, exit_reason


class Service:
    """At most one process that runs `body`; None: none is wanted."""

    def __init__(self, name: str, spawner: ChildSpawner, loop: Loop, policy: RestartPolicy | None = None) -> None:
        self.name = name
        #: What it died of last.
        self.last_error: str | None = None
        self._spawner = spawner
        self._loop = loop
        self._policy = policy or RestartPolicy()
        self._body: Body | None = None
        self._child: Child | None = None
        self._listening = False
        #: What runs was told to make room for another one.
        self._replaced = False
        self._start_alarm = Alarm(loop, self._start)
        self._started_s = 0.0
        self._log = get_logger(service=name)

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def run(self, body: Body | None, now_s: float) -> None:
        """Run this from now on: what runs is ended first, and the new one starts when it is gone."""
        self._body = body
        self.last_error = None
        if self._child is not None:
            self._replaced = True
            self._child.signal(signal.SIGTERM)
        else:
            self._start_alarm.set(now_s)

    def _start(self, now_s: float) -> None:
        body = self._body
        if body is None:
            return
        try:
            self._child = self._spawner.spawn(f"qjsupervisor: {self.name}", body)
        except OSError as error:
            self.last_error = f"no process could be started: {error.strerror}"
            self._start_alarm.set(now_s + self._policy.delay_s(0.0))
            self._log.error("fork_failed", reason=error.strerror)
            return
        self._started_s = now_s
        self._loop.register(self._child.pipe, selectors.EVENT_READ, self._hear)
        self._listening = True
        self._log.info("service_spawned", worker_pid=self._child.pid)

    def reaped(self, pid: int, exit_code: int, now_s: float) -> bool:
        """A child has ended; False if it was not this one."""
        if self._child is None or self._child.pid != pid:
            return False
        self._stop_listening()
        self._child.pipe.close()
        self._child = None
        if self._replaced or self._body is None:
            self._replaced = False
            self._start_alarm.set(now_s)
            self._log.info("service_reaped", worker_pid=pid, exit_code=exit_code)
            return True
        self.last_error = exit_reason(exit_code)
        self._start_alarm.set(now_s + self._policy.delay_s(now_s - self._started_s))
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
            self._loop.unregister(self._child.pipe)
        self._listening = False
