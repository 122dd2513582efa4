"""The monitor's listening socket and its clients, in one loop that never blocks and whose memory is bounded.

    MAX_CLIENTS, and MAX_OF_ADDRESS per address, limit open connections; a new one replaces the client that has been
    sending its request longest (one that is being answered only if there is no other)
    REQUEST_S       from the connection to the last byte of the request
    RESPONSE_S      from there to the last byte of the response
    LINGER_S        to discard what a client still sends after its response, so that it can read the response
A probe is thus answered beside any number of silent or dribbling clients.
"""

from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

from ..logs import get_logger
from ..loop import Alarm, Loop
from .http import BadRequest, ClientRequest, Parser, Response, plain

MAX_CLIENTS = 256
MAX_OF_ADDRESS = 64
REQUEST_S = 5.0
RESPONSE_S = 10.0
LINGER_S = 1.0
_CHUNK_BYTES = 65_536
#: Connections accepted per turn, so that a flood does not starve existing clients.
_ACCEPTED_AT_ONCE = 64
#: Pause in accepting when no descriptor is left; otherwise the readable listener would spin the loop.
_ACCEPT_PAUSE_S = 1.0

_log = get_logger()


class Reply(Protocol):
    """Answers a request, once, now or later."""

    def __call__(self, response: Response) -> None: ...


Handle = Callable[[ClientRequest, Reply], None]


class HttpServer:
    """Serves the clients of a listener.

    `handle` takes each request and must not block; `security`: headers of all responses.
    """

    def __init__(
        self, loop: Loop, listener: socket.socket, handle: Handle, security: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._loop = loop
        self._handle = handle
        self._security = security
        self._listener = listener
        self.port: int = self._listener.getsockname()[1]
        #: Oldest first.
        self._clients: dict[_Connection, None] = {}
        loop.register(self._listener, selectors.EVENT_READ, self._accept)

    def __len__(self) -> int:
        return len(self._clients)

    def stop_listening(self) -> None:
        """Accept nobody any more."""
        with suppress(KeyError):  # accepting is paused, or over
            self._loop.unregister(self._listener)
        self._listener.close()

    def close(self) -> None:
        """Stop listening and disconnect all clients."""
        self.stop_listening()
        for client in list(self._clients):
            client.close()

    def _accept(self, now_s: float) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(now_s)
                    return
                continue  # the client went away before it was accepted
            self._make_room(_network(str(peer[0])))
            sock.setblocking(False)
            self._clients[_Connection(self, self._loop, sock, str(peer[0]), now_s)] = None

    def _pause(self, now_s: float) -> None:
        _log.warning("monitor_paused", reason="no descriptor is left: nobody is let in for a second")
        self._loop.unregister(self._listener)
        self._loop.call_at(
            now_s + _ACCEPT_PAUSE_S,
            lambda _now_s: self._loop.register(self._listener, selectors.EVENT_READ, self._accept),
        )

    def _make_room(self, network: str) -> None:
        of_network = [client for client in self._clients if client.network == network]
        if len(of_network) >= MAX_OF_ADDRESS:
            _dispensable(of_network).close()
        elif len(self._clients) >= MAX_CLIENTS:
            _dispensable(self._clients).close()

    # -- for the clients ---------------------------------------------------------------------------------------

    def requested(self, client: _Connection, request: ClientRequest) -> None:
        """Called when a client's request is complete."""
        self._handle(request, client.reply)

    def encoded(self, response: Response, request: ClientRequest | None) -> tuple[bytes, bytes]:
        """(head, body) of a response, ready to send."""
        return response.encoded(request, self._security)

    def forget(self, client: _Connection) -> None:
        """Called when a client has disconnected."""
        del self._clients[client]


class _Connection:
    """One connection: one request, one response."""

    def __init__(self, server: HttpServer, loop: Loop, sock: socket.socket, address: str, now_s: float) -> None:
        self.network = _network(address)
        #: 0: answered, 1: waiting for its request, 2: being answered. The lowest is disconnected first.
        self.rank = 1
        self._server = server
        self._loop = loop
        self._sock = sock
        self._parser = Parser(address)
        self._request: ClientRequest | None = None
        self._outgoing: list[memoryview] = []
        self._now_s = now_s
        self._closed = False
        self._deadline = Alarm(loop, lambda _now_s: self.close())
        self._deadline.set(now_s + REQUEST_S)
        loop.register(sock, selectors.EVENT_READ, self._read)

    def close(self) -> None:
        """Disconnect, whatever was going on."""
        if self._closed:
            return
        self._closed = True
        self._deadline.clear()
        with suppress(KeyError):  # not registered while its request is being answered
            self._loop.unregister(self._sock)
        self._sock.close()
        self._server.forget(self)

    def _read(self, now_s: float) -> None:
        self._now_s = now_s
        try:
            chunk = self._sock.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not chunk:
            self.close()
            return
        try:
            self._request = self._parser.feed(chunk)
        except BadRequest as error:
            self._answer(plain(error.status, error.text))
            return
        if self._request is None:
            return
        self._begin_answer()
        self._server.requested(self, self._request)

    def _begin_answer(self) -> None:
        """Stop reading until the response is sent; a client that disconnects is noticed then."""
        self.rank = 2
        self._deadline.set(self._now_s + RESPONSE_S)
        self._loop.unregister(self._sock)

    def reply(self, response: Response) -> None:
        """Send a response; does nothing if the client is gone."""
        if not self._closed and not self._outgoing and self.rank == 2:
            self._send(response)

    def _answer(self, response: Response) -> None:
        self._begin_answer()
        self._send(response)

    def _send(self, response: Response) -> None:
        head, body = self._server.encoded(response, self._request)
        self._outgoing = [memoryview(part) for part in (head, body) if part]
        self._loop.register(self._sock, selectors.EVENT_WRITE, self._write)

    def _write(self, now_s: float) -> None:
        try:
            while self._outgoing:
                sent = self._sock.sendmsg(self._outgoing, (), socket.MSG_NOSIGNAL)
                while self._outgoing and sent >= len(self._outgoing[0]):
                    sent -= len(self._outgoing.pop(0))
                if self._outgoing:
                    self._outgoing[0] = self._outgoing[0][sent:]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._linger(now_s)

    def _linger(self, now_s: float) -> None:
        """Wait for the client to close; closing while it still sends would reset the connection: no response."""
        self.rank = 0
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._deadline.set(now_s + LINGER_S)
        self._loop.modify(self._sock, selectors.EVENT_READ, self._discard)

    def _discard(self, _now_s: float) -> None:
        try:
            if self._sock.recv(_CHUNK_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()


def method_not_allowed(*methods: str) -> Response:
    """The response if a path exists but does not support the method."""
    allowed = ", ".join(methods)
    return plain(HTTPStatus.METHOD_NOT_ALLOWED, f"only {allowed} here", [("Allow", allowed)])


def _dispensable(clients: Iterable[_Connection]) -> _Connection:
    return min(clients, key=lambda client: client.rank)  # the oldest of equal rank


def _network(address: str) -> str:
    """The part of an address that identifies a client; for IPv6 the /64 that one customer has."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(ip_network((int(found) >> 64 << 64, 64)))
    return address
