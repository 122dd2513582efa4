"""A TCP connection's worst hours: a relay in front of a server that can fall silent, or cut.

Everything that comes is passed on by one thread. While the link is silent nothing is passed on, in neither
direction, though the kernel takes the bytes: as when a firewall drops the packets, but without root.
"""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from types import TracebackType

_CHUNK_BYTES = 65536
PIECE_BYTES = 2048
_Pair = tuple[socket.socket, socket.socket]


class Link:
    """Relays `host`:`port` of its own to `server`; a context manager."""

    def __init__(self, server: tuple[str, int], host: str = "127.0.0.1") -> None:
        self._server = server
        self._listener = socket.create_server((host, 0))
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._silent: set[socket.socket] = set()
        self._all_silent = False
        #: Connections made from now on get nothing but their login answered, as from a pooler that is full.
        self.only_logins = False
        self._no_queries: set[socket.socket] = set()
        #: Between two pieces of PIECE_BYTES, whoever they are for: a long way, with a narrow place in it.
        self.pause_s = 0.0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._waker, self._wakes = socket.socketpair()
        self._selector.register(self._wakes, selectors.EVENT_READ)
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what can go wrong -------------------------------------------------------------------------------

    def silence(self, *, for_good: bool = False) -> None:
        """Pass nothing on; `for_good`: only of the connections that there are, and for ever."""
        with self._lock:
            self._all_silent = not for_good
            self._silent |= set(self._peers)
            for sock in self._peers:
                with suppress(KeyError):
                    self._selector.unregister(sock)

    def speak(self) -> None:
        """Pass everything on again, what was held back first."""
        with self._lock:
            self._all_silent = False
            for sock in self._silent & set(self._peers):
                self._selector.register(sock, selectors.EVENT_READ)
            self._silent.clear()
        self._waker.send(b"x")

    def lead_to(self, server: tuple[str, int]) -> None:
        """New connections go to another server; those that there are stay."""
        self._server = server

    def cut(self) -> None:
        """Reset every connection."""
        with self._lock:
            for sock in list(self._peers):
                self._drop(sock)

    def close(self) -> None:
        self._closing = True
        self._waker.send(b"x")
        self._thread.join(10)
        self.cut()
        for sock in (self._listener, self._waker, self._wakes):
            sock.close()
        self._selector.close()

    # -- the relay ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wakes:
                    self._wakes.recv(64)
                else:
                    self._pass_on(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._server, timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        with self._lock:
            self._peers |= {client: server, server: client}
            if self.only_logins:
                self._no_queries.add(client)
            if self._all_silent:
                self._silent |= {client, server}
                return
            for sock in (client, server):
                self._selector.register(sock, selectors.EVENT_READ)

    def _pass_on(self, sock: socket.socket) -> None:
        with self._lock:
            if sock not in self._peers or sock in self._silent:
                return
            peer = self._peers[sock]
            try:
                data = sock.recv(PIECE_BYTES if self.pause_s else _CHUNK_BYTES)
                if data[:1] == b"Q" and sock in self._no_queries:
                    self._silent.add(sock)
                    self._selector.unregister(sock)
                    return
                peer.sendall(data)
            except OSError:
                data = b""
            if not data:
                self._drop(sock)
        if self.pause_s:
            threading.Event().wait(self.pause_s)

    def _drop(self, sock: socket.socket) -> None:
        peer = self._peers.pop(sock, None)
        if peer is None:
            return
        self._peers.pop(peer, None)
        for each in (sock, peer):
            self._silent.discard(each)
            self._no_queries.discard(each)
            with suppress(KeyError, ValueError):
                self._selector.unregister(each)
            each.close()
