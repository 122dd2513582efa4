"""A child that must simply be running, like the monitor: it is restarted with backoff when it dies.

One that listens on a socket of the master's is replaced without a gap: the former process serves until the new one
says {"is": "serving"}, and clients find one of the two.
"""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Callable

from ..backoff import RestartPolicy
from ..control import Message
from ..errors import ProtocolError
from ..logs import get_logger
from ..loop import Alarm, Loop
from .child import Body, Child, Spawner, exit_reason


class Service:
    """At most one process, which runs `body`; None if none is wanted."""

    def __init__(
        self,
        name: str,
        spawner: Spawner,
        loop: Loop,
        policy: RestartPolicy | None = None,
        *,
        take: Callable[[Message, float], None] = lambda _message, _now_s: None,
        on_start: Callable[[float], None] = lambda _now_s: None,
        on_end: Callable[[float], None] = lambda _now_s: None,
    ) -> None:
        """`take` is called with each message; `on_start` and `on_end` when a process was started, and has ended."""
        self.name = name
        self._take, self._on_start, self._on_end = take, on_start, on_end
        #: Why it last died.
        self.last_error: str | None = None
        self._spawner = spawner
        self._loop = loop
        self._policy = policy or RestartPolicy()
        #: What it listens on; None: nothing, or a socket of its own.
        self.listener: socket.socket | None = None
        #: The process that serves until its successor does.
        self._former: Child | None = None
        self._is_forking = False
        #: Its last messages.
        self.heard: list[Message] = []
        self._body: Body | None = None
        self._child: Child | None = None
        self._listening = False
        #: Whether the running process was told to make room for another one.
        self._replaced = False
        self._start_alarm = Alarm(loop, self._start)
        self._started_s = 0.0
        self._log = get_logger(service=name)

    @property
    def pid(self) -> int | None:
        running = self._child or self._former
        return None if running is None else running.pid

    def run(self, body: Body | None, now_s: float) -> None:
        """Run `body` from now on. Without a listener the running process ends first, and then the new one starts."""
        self._body = body
        self.last_error = None
        if self._child is not None and self.listener is not None and body is not None and self._former is None:
            self._stop_listening()
            self._former, self._child = self._child, None
            self._start_alarm.set(now_s)
        elif self._child is not None:
            self._replaced = True
            self._child.signal(signal.SIGTERM)
        else:
            self._start_alarm.set(now_s)

    def _start(self, now_s: float) -> None:
        body = self._body
        if body is None:
            return
        self._is_forking = True
        try:
            self._child = self._spawner.spawn(f"qjsupervisor: {self.name}", body)
        except OSError as error:
            self.last_error = f"no process could be started: {error.strerror}"
            self._start_alarm.set(now_s + self._policy.delay_s(0.0))
            self._log.error("fork_failed", reason=error.strerror)
            return
        finally:
            self._is_forking = False
        self._started_s = now_s
        self._loop.register(self._child.pipe, selectors.EVENT_READ, self._hear)
        self._listening = True
        self._log.info("service_spawned", worker_pid=self._child.pid)
        self._on_start(now_s)

    def reaped(self, pid: int, exit_code: int, now_s: float) -> bool:
        """Handle the exit of a child; False if it was not this one."""
        if self._former is not None and self._former.pid == pid:
            self._former.pipe.close()
            self._former = None
            self._log.info("service_reaped", worker_pid=pid, exit_code=exit_code)
            return True
        if self._child is None or self._child.pid != pid:
            return False
        self._loop.call(self._hear, now_s)  # its last words, which may be nonsense
        self._stop_listening()
        self._child.pipe.close()
        self._child = None
        self._on_end(now_s)
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
        """Kill it, because it hangs, and start another one."""
        if self._child is not None:
            self._log.error("service_killed", worker_pid=self._child.pid, reason=reason)
            self._child.signal(signal.SIGKILL)

    def age_s(self, now_s: float) -> float:
        """How long it has been running; 0 if it is not."""
        return 0.0 if self._child is None else now_s - self._started_s

    def signal(self, signum: int) -> None:
        """Send it a signal, if it runs."""
        if self._child is not None:
            self._child.signal(signum)

    def kill(self) -> None:
        """Kill it and start no other one."""
        self._body = None
        for child in (self._child, self._former):
            if child is not None:
                child.signal(signal.SIGKILL)

    def close_in_child(self) -> None:
        for child in (self._child, self._former):
            if child is not None:
                child.pipe.close()
        if self.listener is not None and not self._is_forking:
            self.listener.close()

    def dismiss(self) -> None:
        """Ask it to exit; no other one is started."""
        if self._body is not None and self._child is not None:
            self._child.pipe.send({"do": "stop"})
        self._body = None

    def send(self, message: Message) -> bool:
        """Send it an order; False if it is not running, or does not listen."""
        return self._child is not None and self._child.pipe.send(message)

    def _hear(self, now_s: float) -> None:
        """Keep its last messages; at EOF stop watching, so that the loop does not spin."""
        if self._child is None or not self._listening:
            return
        try:
            messages = self._child.pipe.receive_all()
            self.heard = messages[-1:] or self.heard
            for message in messages:
                self._take(message, now_s)
            if self._former is not None and {"is": "serving"} in messages:
                self._former.signal(signal.SIGTERM)
        except (EOFError, ProtocolError):
            self._stop_listening()

    def _stop_listening(self) -> None:
        if self._listening and self._child is not None:
            self._loop.unregister(self._child.pipe)
        self._listening = False
