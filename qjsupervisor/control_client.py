"""Asks the supervisor behind a control socket; the protocol is in control.py."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from .control import MAX_FRAME_BYTES, MAX_RESPONSE_BYTES, Message, decode, encode, is_trusted, peer_credentials
from .errors import ProtocolError, QJSupervisorError

_TIMEVAL = struct.Struct("@ll")  # struct timeval: seconds, microseconds


class NotRunning(QJSupervisorError):
    """No supervisor answers at the control socket."""


def ask(path: str, request: Mapping[str, Any], timeout_s: float = 5.0) -> Message:
    """Send one request to the supervisor behind the socket at `path` and return its response.

    Blocks for at most `timeout_s`. Raises NotRunning if nobody answers there, and ProtocolError if the peer is not
    trusted, sends something invalid, or closes the connection early.
    """
    deadline_s = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            _connect(sock, path, timeout_s)
            _, uid = peer_credentials(sock)
            if not (is_trusted(uid) or _may_be_there(path, uid)):
                raise ProtocolError(f"{path} belongs to user id {uid}, neither ours nor root's: not asked")
            sock.sendall(encode(request) + b"\n")
            return decode(_read_line(sock, deadline_s))
        except (TimeoutError, BlockingIOError):
            raise NotRunning(f"no answer within {timeout_s:g} s at {path}: the supervisor hangs") from None
        except (ConnectionRefusedError, FileNotFoundError):
            raise NotRunning(f"no supervisor runs (nobody listens at {path})") from None
        except OSError as error:
            raise NotRunning(f"the supervisor cannot be asked at {path}: {error.strerror or error}") from error


def _may_be_there(path: str, uid: int) -> bool:
    """For a client run by root: whether this user owns the socket's directory, as a supervisor's should."""
    return os.geteuid() == 0 and os.stat(os.path.dirname(path) or ".").st_uid == uid


def _connect(sock: socket.socket, path: str, timeout_s: float) -> None:
    """Connect, waiting while the listener's backlog is full; a non-blocking connect would fail with EAGAIN at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(timeout_s), int(timeout_s % 1 * 1e6)))
    sock.connect(path)
    sock.settimeout(timeout_s)


def _read_line(sock: socket.socket, deadline_s: float) -> bytes:
    """The bytes up to the first newline. Raises TimeoutError if they have not arrived by the deadline."""
    received = bytearray()
    while b"\n" not in received:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(left_s)
        chunk = sock.recv(MAX_FRAME_BYTES)
        if not chunk:
            raise ProtocolError("the supervisor hung up before its answer was complete")
        received += chunk
        if len(received) > MAX_RESPONSE_BYTES:
            raise ProtocolError(f"the answer is longer than {MAX_RESPONSE_BYTES} bytes")
    return bytes(received.partition(b"\n")[0])
