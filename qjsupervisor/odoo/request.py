"""One `GET /queue_job/runjob`, from connecting to the end of the answer, without ever blocking.

A small state machine over a non-blocking socket. urllib3 can only wait in a thread, and a thread per open request costs
memory and context switches that hundreds of waiting requests do not justify. Little of HTTP is needed: one GET with
`Connection: close`; only the status of the answer counts, because the row decides; redirects are never followed.
urllib3 still provides what is easy to get wrong: TLS contexts.

It must not know about job states, breakers or databases.
"""

from __future__ import annotations

import enum
import errno
import os
import re
import selectors
import socket
import ssl
from typing import Any, NamedTuple

#: Limit on the total size of an answer's heads (1xx and the final one).
MAX_HEAD_BYTES = 65536
#: Limit on the time that one head may take, from its first byte to its end.
HEAD_S = 30.0
#: How long to wait for the rest of an answer after its head; then the connection is closed.
DRAIN_S = 2.0
_HTTP = b"HTTP/1."
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)(?:[ \r\n]|$)")
#: The end of a head; a server may end its lines in LF alone.
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CONTENT_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,12})[ \t]*\r?\n", re.IGNORECASE)

#: Errors that mean this process lacks something; they say nothing about the server.
OWN_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class End(enum.Enum):
    """How a request ended."""

    ANSWERED = "answered"
    #: Never sent: refused, unreachable, no such host, TLS. Nobody was asked.
    UNASKED = "unasked"
    #: Sent, but no answer came.
    LOST = "lost"


class RequestOutcome(NamedTuple):
    """The end of a request; `status` only for ANSWERED."""

    end: End
    status: int | None
    reason: str
    #: This process lacks something (descriptors, ports, memory); it says nothing about the server.
    own: bool = False


class Address(NamedTuple):
    """One result of getaddrinfo."""

    family: int
    sockaddr: tuple[Any, ...]

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, where a peer cannot vanish silently."""
        return str(self.sockaddr[0]).startswith("127.") or self.sockaddr[0] == "::1"


class Request:
    """A request in progress. Call `step()` when the socket is ready for `events`."""

    __slots__ = (
        "_addresses",
        "_buffer",
        "_context",
        "_head_bytes",
        "_host",
        "_payload",
        "_phase",
        "_rest",
        "address",
        "events",
        "outcome",
        "sock",
        "unreachable",
    )

    def __init__(self, payload: bytes, addresses: list[Address], host: str, context: ssl.SSLContext | None) -> None:
        self._payload = payload
        self._addresses = list(addresses)
        self._host = host
        self._context = context
        self._buffer = b""
        self._head_bytes = 0
        #: How many bytes of the body are still to come; -1: until the connection is closed.
        self._rest = -1
        self._phase = self._connecting
        #: The address being tried, or the one that was reached.
        self.address: Address | None = None
        #: The addresses tried before it.
        self.unreachable: list[Address] = []
        self.sock: socket.socket | None = None
        #: What to wait for on `sock`; 0: nothing more will come, so close it.
        self.events = 0
        #: Set once, as soon as it is known; the rest of the answer may still be arriving.
        self.outcome: RequestOutcome | None = None

    def begin(self) -> None:
        """Start connecting to the next address."""
        reason, code = "no address", 0
        while self._addresses:
            if self.address is not None:
                self.unreachable.append(self.address)
            address = self.address = self._addresses.pop(0)
            self.close()
            try:
                self.sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                if not address.is_loopback:
                    _keep_alive(self.sock)
                code = self.sock.connect_ex(address.sockaddr)
            except OSError as error:
                reason, code = _reason(error), error.errno or 0
                continue
            if code in (0, errno.EINPROGRESS):
                self.events = WRITE
                self._phase = self._connecting
                return self._try_to_send()
            reason = os.strerror(code)
        self._end(End.UNASKED, reason, own=code in OWN_ERRORS)
        return None

    def step(self) -> None:
        """Continue as far as possible without waiting."""
        try:
            self._phase()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wants:
            self.events = READ if isinstance(wants, ssl.SSLWantReadError) else WRITE
        except BlockingIOError:
            pass
        except OSError as error:  # ssl.SSLError is one
            self._failed(_reason(error))

    def go_elsewhere(self) -> bool:
        """Try the next address, as connecting took too long. False if there is none, or if this one is connected."""
        if not self._addresses or self._phase != self._connecting:
            return False
        self.begin()
        return True

    def give_up(self, reason: str) -> None:
        """End the request because a deadline passed."""
        if self.outcome is None:
            self._failed(reason)
        self.events = 0

    @property
    def asked(self) -> bool:
        """Whether the whole request was handed to the kernel: Odoo may run the job from here on."""
        return self._phase in (self._reading, self._draining)

    @property
    def in_head(self) -> bool:
        """Whether a head has started to arrive and is not complete."""
        return self._phase == self._reading and bool(self._buffer)

    @property
    def connecting(self) -> bool:
        """Whether there is no usable connection yet."""
        return self._phase in (self._connecting, self._handshake)

    def close(self) -> None:
        """Close the socket."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        self.events = 0

    def _try_to_send(self) -> None:
        """Send at once if possible: on the same machine the connection is established before connect() returns."""
        if self._context is not None or not self._payload:
            return
        assert self.sock is not None
        try:
            sent = self.sock.send(self._payload)
        except BlockingIOError:
            return  # not connected yet: wait for it
        except OSError as error:
            self._next_or_end(_reason(error))
            return
        self._payload = self._payload[sent:]
        self._phase = self._sending
        self.step()

    def _connecting(self) -> None:
        assert self.sock is not None
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            self._connected()
        else:
            self._next_or_end(os.strerror(code))

    def _next_or_end(self, reason: str) -> None:
        """Try the next address, or end the request if there is none."""
        if self._addresses:
            self.begin()
        else:
            self._end(End.UNASKED, reason)

    def _connected(self) -> None:
        if self._context is not None and self.sock is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._host, do_handshake_on_connect=False)
            self._phase = self._handshake
        else:
            self._phase = self._sending
        self.step()

    def _handshake(self) -> None:
        assert isinstance(self.sock, ssl.SSLSocket)
        self.sock.do_handshake()
        self._phase = self._sending
        self._sending()

    def _sending(self) -> None:
        assert self.sock is not None
        self.events = WRITE
        while self._payload:
            self._payload = self._payload[self.sock.send(self._payload) :]
        self.events = READ
        self._phase = self._reading

    def _reading(self) -> None:
        assert self.sock is not None
        data = self.sock.recv(MAX_HEAD_BYTES)
        if not data:
            return self._end(End.LOST, "the connection was closed without an answer")
        self._buffer += data
        self._head_bytes += len(data)
        if not self._buffer.startswith(_HTTP[: len(self._buffer)]):
            return self._end(End.LOST, "the answer is not HTTP")  # another service that sends a greeting and then waits
        while (found := _HEAD_END.search(self._buffer)) is not None:
            head, self._buffer = self._buffer[: found.end()], self._buffer[found.end() :]
            status_line = _STATUS_LINE.match(head)
            if status_line is None:
                return self._end(End.LOST, "the answer is not HTTP")
            status = int(status_line[1])
            if status >= 200:
                return self._answered(status, head)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._end(End.LOST, "the head of the answer has no end")
        return None

    def _answered(self, status: int, head: bytes) -> None:
        self.outcome = RequestOutcome(End.ANSWERED, status, f"HTTP {status}")
        length = _CONTENT_LENGTH.search(head)
        self._rest = int(length[1]) - len(self._buffer) if length else -1
        self._buffer = b""
        self._phase = self._draining
        if self._rest == 0:
            self.events = 0

    def _draining(self) -> None:
        """Let the server finish; if cut off, it would log a broken pipe."""
        assert self.sock is not None
        data = self.sock.recv(MAX_HEAD_BYTES)
        if self._rest >= 0:
            self._rest = max(0, self._rest - len(data))
        if not data or self._rest == 0:
            self.events = 0

    def _failed(self, reason: str) -> None:
        self._end(End.LOST if self.asked else End.UNASKED, reason)

    def _end(self, end: End, reason: str, *, own: bool = False) -> None:
        if self.outcome is None:
            self.outcome = RequestOutcome(end, None, reason, own)
        self.events = 0


def _keep_alive(sock: socket.socket) -> None:
    """Make TCP notice within a minute that the peer is gone; an answer may take hours."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return error.strerror or str(error)
