"""A first connection, to nobody: what libpq, its OpenSSL and psycopg2 set up once in a process, done before the fork.

That is 0.4 MiB, most of it for a password, which every worker would have of its own (measured with psycopg2-binary
2.9). The server's side is played here, on a loopback address, until the password was sent. Nothing depends on it: where
it fails, workers are larger.
"""

from __future__ import annotations

import select
import socket
import struct
from contextlib import closing, suppress

import psycopg2
from psycopg2 import extensions

#: Each wait for our own other end takes so many steps, of so long each, at most.
_STEPS, _STEP_MS = 1000, 1
#: Requests for encryption come before the real one, and are declined.
_ENCRYPTION = (80877103, 80877104)
#: Authentication messages of PostgreSQL's protocol.
_SASL, _SASL_CONTINUE = 10, 11


def connect_once() -> None:
    """Connect, say a password, close. Never raises; takes a few milliseconds."""
    with suppress(OSError, psycopg2.Error, struct.error), closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(_STEPS * _STEP_MS / 1000)
        host, port = listener.getsockname()
        # Whatever the environment says besides.
        nobody = f"host={host} port={port} dbname=nobody user=nobody password=none sslmode=prefer gssencmode=disable"
        connection = psycopg2.connect(nobody, async_=1)
        with closing(connection):
            server, _ = listener.accept()
            with closing(server):
                server.settimeout(_STEPS * _STEP_MS / 1000)
                _ask_for_password(connection, server)


def _ask_for_password(connection: extensions.connection, server: socket.socket) -> None:
    while struct.unpack("!I", heard(connection, server)[4:8])[0] in _ENCRYPTION:
        server.sendall(b"N")
    _send(server, _SASL, b"SCRAM-SHA-256\0\0")
    nonce = heard(connection, server).rpartition(b"r=")[2]
    _send(server, _SASL_CONTINUE, b"r=" + nonce + b"0,s=c2FsdA==,i=1")
    heard(connection, server)


def heard(connection: extensions.connection, server: socket.socket) -> bytes:
    """What the connection sends next."""
    poller = select.poll()  # select.select() takes no descriptor above 1,023, and each database of the table has one
    poller.register(server, select.POLLIN)
    for _ in range(_STEPS):
        connection.poll()
        if poller.poll(_STEP_MS):
            break
    return server.recv(4096)


def _send(server: socket.socket, kind: int, data: bytes) -> None:
    server.sendall(b"R" + struct.pack("!II", len(data) + 8, kind) + data)
