"""Asks the master for its status over the control socket, without blocking.

A master that forks two hundred workers, or is stopped, answers late or never. After PATIENCE_S callers therefore get
the last status with its age, and decide themselves whether it is too old. Requests within FRESH_S share one answer,
and at most one query is open.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ..control import MAX_RESPONSE_BYTES, decode, encode, is_trusted, peer_credentials
from ..errors import ProtocolError
from ..loop import Alarm, Loop, Timer

#: An answer is reused for this long, so that many clients do not load the master.
FRESH_S = 0.5
#: A caller waits at most this long before getting the last known status.
PATIENCE_S = 0.6
#: A query without an answer is repeated after this time.
GIVE_UP_S = 10.0
#: A master silent for this long is considered hung. Replacing two hundred workers takes about 12 s.
DEAD_S = 20.0
_AGAIN_S = 0.2
_CHUNK_BYTES = 1_048_576

Status = Mapping[str, Any]


class Said(NamedTuple):
    """The master's last status; `status` is None if there is none yet or no master."""

    status: Status | None
    age_s: float
    #: Counts answers; what was rendered from one is valid until the next.
    number: int

    @property
    def is_alive(self) -> bool:
        """Whether the master answers."""
        return self.status is not None and self.age_s <= DEAD_S


Take = Callable[[Said], None]


class MasterLink:
    """Asks the master that listens at `path`."""

    def __init__(self, loop: Loop, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._path = path
        self._clock = clock
        self._status: Status | None = None
        self._said_s = -1e9
        self._number = 0
        self._question: _Question | None = None
        self._waiting: list[Take] = []
        self._patience = Alarm(loop, lambda _now_s: self._tell())
        self._again: Timer | None = None

    def said(self) -> Said:
        """The last known status."""
        return Said(self._status, self._clock() - self._said_s, self._number)

    def get(self, take: Take) -> None:
        """Call `take` with the status: at once if fresh, else within PATIENCE_S."""
        if self._status is not None and self._clock() - self._said_s <= FRESH_S:
            take(self.said())
            return
        self._waiting.append(take)
        self._patience.set_earlier(self._clock() + PATIENCE_S)
        if self._question is None and self._again is None:
            self._ask()

    def forget(self) -> None:
        """Discard the cached status after an order, so that the next caller gets a new one."""
        self._said_s = min(self._said_s, self._clock() - FRESH_S - 0.001)

    def close(self) -> None:
        """Stop asking."""
        if self._question is not None:
            self._question.close()
        self._patience.clear()

    def _ask(self) -> None:
        self._again = None
        try:
            self._question = _Question(self._loop, self._path, {"do": "status"}, self._answered, self._clock())
        except BlockingIOError:  # its backlog is full
            self._again = self._loop.call_at(self._clock() + _AGAIN_S, lambda _now_s: self._ask())
        except (OSError, ProtocolError):  # no master
            self._status = None
            self._tell()

    def _answered(self, answer: Mapping[str, Any] | None) -> None:
        self._question = None
        status = None if answer is None else answer.get("status")
        if isinstance(status, dict):
            self._status, self._said_s, self._number = status, self._clock(), self._number + 1
            self._tell()
        elif self._waiting:
            self._again = self._loop.call_at(self._clock() + _AGAIN_S, lambda _now_s: self._ask())

    def _tell(self) -> None:
        self._patience.clear()
        waiting, self._waiting = self._waiting, []
        said = self.said()
        for take in waiting:
            take(said)


def order(loop: Loop, path: str, request: Mapping[str, Any], take: Callable[[Mapping[str, Any] | None], None]) -> None:
    """Send the master an order; `take` is called with its response, or None if there is none."""
    try:
        _Question(loop, path, request, take, time.monotonic())
    except (OSError, ProtocolError):
        take(None)


class _Question:
    """One connection to the control socket: one request and its response."""

    def __init__(
        self,
        loop: Loop,
        path: str,
        request: Mapping[str, Any],
        take: Callable[[Mapping[str, Any] | None], None],
        now_s: float,
    ) -> None:
        self._loop = loop
        self._take = take
        self._received = bytearray()
        self._sock = _connected(path)
        self._outgoing = encode(request) + b"\n"
        self._deadline = Alarm(loop, lambda _now_s: self._end(None))
        self._deadline.set(now_s + GIVE_UP_S)
        loop.register(self._sock, selectors.EVENT_WRITE, self._write)

    def close(self) -> None:
        self._deadline.clear()
        self._loop.unregister(self._sock)
        self._sock.close()

    def _end(self, answer: Mapping[str, Any] | None) -> None:
        self.close()
        self._take(answer)

    def _write(self, _now_s: float) -> None:
        try:
            sent = self._sock.send(self._outgoing, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:
            self._end(None)
            return
        self._outgoing = self._outgoing[sent:]
        if not self._outgoing:
            self._loop.modify(self._sock, selectors.EVENT_READ, self._read)

    def _read(self, _now_s: float) -> None:
        try:
            chunk = self._sock.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        self._received += chunk
        if chunk and b"\n" not in chunk and len(self._received) <= MAX_RESPONSE_BYTES:
            return
        answer = None
        with suppress(ProtocolError):
            answer = decode(bytes(self._received.partition(b"\n")[0]))
        self._end(answer)


def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
        _, uid = peer_credentials(sock)
        if not is_trusted(uid):
            raise ProtocolError(f"{path} belongs to user id {uid}: not asked")
    except (OSError, ProtocolError):
        sock.close()
        raise
    return sock
