"""What the master says, asked at its control socket without waiting for it.

A master that forks two hundred workers, or is stopped, answers late or never. So a question that is not answered within
PATIENCE_S is answered by what the master said last, with its age; whoever uses it says how old is too old. All who
ask within FRESH_S share one answer, and one question is under way at most.
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

#: One answer of the master serves all requests of this time: scrapers do not add up at the master.
FRESH_S = 0.5
#: Who asks is answered after this time, with what there is.
PATIENCE_S = 0.6
#: A question that is not answered after so long is asked anew.
GIVE_UP_S = 10.0
#: A master that has not answered for so long hangs. One that replaces two hundred workers is silent for a dozen.
DEAD_S = 20.0
_AGAIN_S = 0.2
_CHUNK_BYTES = 1_048_576

Status = Mapping[str, Any]


class Said(NamedTuple):
    """What the master said last; `status` None: nothing yet, or nobody is there."""

    status: Status | None
    age_s: float
    #: One more for each answer: what was made of one can be kept until the next.
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
        """What is known now."""
        return Said(self._status, self._clock() - self._said_s, self._number)

    def get(self, take: Take) -> None:
        """Call with what the master says: at once if that is fresh, else within PATIENCE_S."""
        if self._status is not None and self._clock() - self._said_s <= FRESH_S:
            take(self.said())
            return
        self._waiting.append(take)
        self._patience.set_earlier(self._clock() + PATIENCE_S)
        if self._question is None and self._again is None:
            self._ask()

    def forget(self) -> None:
        """An order changed something: the next one to ask is told what holds then."""
        self._said_s = min(self._said_s, self._clock() - FRESH_S - 0.001)

    def close(self) -> None:
        """Ask no more."""
        if self._question is not None:
            self._question.close()
        self._patience.clear()

    def _ask(self) -> None:
        self._again = None
        try:
            self._question = _Question(self._loop, self._path, {"do": "status"}, self._answered, self._clock())
        except BlockingIOError:  # its backlog is full
            self._again = self._loop.call_at(self._clock() + _AGAIN_S, lambda _now_s: self._ask())
        except (OSError, ProtocolError):  # nobody is there
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
    """Give the master an order; `take` is called with its response, or with None where there is none."""
    try:
        _Question(loop, path, request, take, time.monotonic())
    except (OSError, ProtocolError):
        take(None)


class _Question:
    """One connection to the control socket: a request, and its response or None."""

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
