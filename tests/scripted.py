"""An HTTP server that does exactly what a test says, byte by byte, on the local machine."""

from __future__ import annotations

import random
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

#: Called in a thread of its own with a connection whose request was read.
Script = Callable[[socket.socket], None]
PATIENCE_S = 15.0


class ScriptedServer:
    """Listens on `port`; `requests` are the heads that came in, in order."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.connections = 0
        self.over = threading.Event()
        self._context = context
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self.over.is_set():
            if select.select([self._listener], [], [], 0.05)[0]:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        with suppress(OSError):  # the client hung up: that is its right
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                data = connection.recv(65536)
                if not data:
                    break
                head += data
            if head:
                self.requests.append(head)
                self.script(connection)
        connection.close()


@contextmanager
def serving(script: Script, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[ScriptedServer]:
    server = ScriptedServer(script, context, host)
    try:
        yield server
    finally:
        server.over.set()


def say(*parts: bytes) -> Script:
    """Send these, each as a packet of its own, and close."""

    def script(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
            threading.Event().wait(0.01)

    return script


def say_and_keep(*parts: bytes) -> Script:
    """Send these, and wait for the client to close."""

    def script(connection: socket.socket) -> None:
        say(*parts)(connection)
        connection.recv(1)

    return script


def reset(connection: socket.socket) -> None:
    """Cut the connection so that the client gets an error."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silence(connection: socket.socket) -> None:
    """Answer nothing until the client gives up."""
    connection.recv(1)


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes no connection and refuses none: its backlog is full. Yields the port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            yield listener.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


def unused_port() -> int:
    """A port where nobody listens, outside the range of which the system gives ports to connections and listeners."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
