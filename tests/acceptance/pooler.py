"""A connection pooler in front of a cluster: pgbouncer where it is installed, else a small relay that does the same
to LISTEN. The cluster must trust local connections."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.processes import spawn

from ..helpers import wait_until
from ..scripted import unused_port
from .link import Link

_SSL_REQUEST = 80877103
#: Set to nothing, this makes the tests take the relay.
_CHOICE = "QJS_PGBOUNCER"
_CONF = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = {mode}
logfile = {log}
ignore_startup_parameters = extra_float_digits
"""


@contextmanager
def pooler(cluster: ThrowawayPostgres, mode: str, folder: Path) -> Iterator[int]:
    """A pooler in mode `session` or `transaction`; its port."""
    binary = os.environ.get(_CHOICE, shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") or "")
    if binary:
        with _pgbouncer(Path(binary), cluster, mode, folder) as port:
            yield port
    elif mode == "session":
        with Link((cluster.host, cluster.port)) as link:
            yield link.port
    else:
        with TransactionRelay((cluster.host, cluster.port)) as relay:
            yield relay.port


@contextmanager
def _pgbouncer(binary: Path, cluster: ThrowawayPostgres, mode: str, folder: Path) -> Iterator[int]:
    port = unused_port()
    users = cluster.root / f"users-{mode}"
    users.write_text(f'"{cluster.user}" "{cluster.password}"\n')
    conf = cluster.root / f"pgbouncer-{mode}.ini"
    conf.write_text(
        _CONF.format(
            host=cluster.host,
            port=cluster.port,
            own_port=port,
            users=users,
            mode=mode,
            log=cluster.root / f"pgbouncer-{mode}.log",
        )
    )
    with (folder / f"pgbouncer-{mode}.out").open("wb") as output:
        process = spawn(
            [str(binary), str(conf)],
            death_signal=signal.SIGKILL,
            output=output,
            errors=output,
            account=cluster.account,
            cwd=cluster.root,
        )
    try:
        wait_until(lambda: _answers(port), "pgbouncer listens")
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with closing(socket.socket()) as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class TransactionRelay:
    """Gives each client two sessions of the server, and changes over after each transaction: what one session was
    told (LISTEN, a lock) the other one does not know. That is all of a pooler that matters here."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> TransactionRelay:
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with closing(client), suppress(OSError, EOFError):
            greeting = _greeting(client)
            with (
                closing(socket.create_connection(self._server)) as one,
                closing(socket.create_connection(self._server)) as other,
            ):
                for session in (one, other):
                    session.sendall(greeting)
                _until_ready(other)
                _Conversation(client, one, other).run()


class _Conversation:
    def __init__(self, client: socket.socket, one: socket.socket, other: socket.socket) -> None:
        self._client = client
        self._current, self._other = one, other
        self._between_transactions = False

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self._client, self._current, self._other], [], [])
            if self._other in ready:
                _message(self._other)  # nobody hears it
            if self._current in ready:
                kind, message = _message(self._current)
                self._client.sendall(message)
                self._between_transactions = kind == b"Z" and message.endswith(b"I")
            elif self._client in ready:
                kind, message = _message(self._client)
                if self._between_transactions:
                    self._current, self._other = self._other, self._current
                self._between_transactions = False
                self._current.sendall(message)


def _greeting(client: socket.socket) -> bytes:
    """The client's startup message; TLS is declined first."""
    while True:
        head = _exactly(client, 8)
        length, code = struct.unpack("!II", head)
        if code != _SSL_REQUEST:
            return head + _exactly(client, length - 8)
        client.sendall(b"N")


def _until_ready(session: socket.socket) -> None:
    while _message(session)[0] != b"Z":
        pass


def _message(sock: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(sock, 5)
    (length,) = struct.unpack("!I", head[1:])
    return head[:1], head + _exactly(sock, length - 4)


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data
