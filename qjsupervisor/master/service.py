"""A child that simply has to be there, as the monitor: started, and started again with a pause when it dies."""

from __future__ import annotations

import selectors
import signal

from ..backoff import RestartPolicy
from ..control import Message
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
        #: What it said, for who wants to know.
        self.heard: list[Message] = []
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

    def replace(self, reason: str) -> None:
        """It hangs: end it, and start another one."""
        if self._child is not None:
            self._log.error("service_killed", worker_pid=self._child.pid, reason=reason)
            self._child.signal(signal.SIGKILL)

    def age_s(self, now_s: float) -> float:
        """How long it has run; 0 if it does not."""
        return 0.0 if self._child is None else now_s - self._started_s

    def kill(self) -> None:
        """End it at once, for good."""
        self._body = None
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    def close_in_child(self) -> None:
        if self._child is not None:
            self._child.pipe.close()

    def dismiss(self) -> None:
        """Have it end in its own time, once; no other one is started."""
        if self._body is not None and self._child is not None:
            self._child.pipe.send({"do": "stop"})
        self._body = None

    def _hear(self, _now_s: float) -> None:
        """Keep what it said last; its end must not keep the loop awake."""
        assert self._child is not None
        try:
            self.heard = self._child.pipe.receive_all()[-1:] or self.heard
        except (EOFError, ProtocolError):
            self._stop_listening()

    def _stop_listening(self) -> None:
        if self._listening and self._child is not None:
            self._loop.unregister(self._child.pipe)
        self._listening = False
