"""How the processes talk: the control pipe (master and child), and the client side of the control socket.

The server side of the socket is `master.control_socket`. Nothing here knows what a message means.

Control pipe
------------
An AF_UNIX, SOCK_SEQPACKET socket pair, created before each fork. One message is one JSON object in UTF-8 of at most
MAX_FRAME_BYTES. The kernel preserves message boundaries, so a message arrives whole or not at all. Neither side ever
blocks: a message that does not fit into the kernel's buffer is refused to the sender.

    message                         from -> to          meaning
    {"do": "stop"}                  master -> worker    drain, exit 0; with "restart": true another worker follows,
                                                        with "gone": true wait for open requests before
    {"do": "channels"}              master -> worker    the shared table's channels changed
    {"do": "pauses", "pauses": {}}  master -> worker    channel -> monotonic second of its end, null: until resumed
    {"do": "resync"}                master -> worker    read the tree and the rows afresh
    {"do": "look"}                  master -> worker    see whether the database may be served, and its jobs run
    {"do": "modules", "anyway": true} master -> worker  run jobs though modules are in transition
    {"do": "rules", "rules": {}}    master -> worker    a settings.ServingRules, in place of the former
    {"do": "limits", "limits": {}}  master -> worker    channel -> jobs at once in it (0: none), by the schedule
    {"do": "only", "oid": 1}        master -> worker    serve no other database of this name (null: any)
    {"do": "server", "started": ""} master -> worker    where new connections lead: when that server was started
    {"do": "log", "log_level": ...} master -> worker    log so from now on; obeyed by the Pipe itself (intercept)
    {"is": "read"}                  worker -> master    the rows were read once (start barrier)
    {"is": "ready"}                 worker -> master    and "standby", "starting", "blocked" with "reason"
    {"is": "error", "reason": ""}   worker -> master    kept as last_error
    {"is": "targets", "targets": []} worker -> master   each a states.TargetHealth
    {"is": "modules", "modules": {}} worker -> master   name -> state of those in transition; {}: there are none
    {"is": "away", "for_s": 5.0}    worker -> master    an administrator ended its session; 0: he has not, after all
    {"is": "overdue", "jobs": 1}    worker -> master    how many jobs run for longer than max_runtime
    {"listed": [names]}             scout -> master     which databases exist (in several messages)
    {"database": ..., "verdict": ...} scout -> master   one probed database
    {"done": true} {"error": ""}    scout -> master     its last word

EOF tells a child that its master is gone, and the child stops. The master learns of a child's death from SIGCHLD and
then only closes the pipe. The master closes the child's end right after the fork, and each child closes the master's
ends of all its siblings; otherwise there would be no EOF.

Control socket
--------------
An AF_UNIX stream, mode 0600 in a directory of mode 0700. A request is one line of JSON (an object with the
key "do") ended by a newline, at most MAX_FRAME_BYTES. A response is also one line, of any length, with "ok": true, or
"ok": false and "error". The requests of a connection are answered in order.
Both sides check by SO_PEERCRED that the peer is the same user or root. A client run by root also accepts the owner of
the socket's directory, because the supervisor need not run as root.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ProtocolError, QJSupervisorError

MAX_FRAME_BYTES = 65_536
#: Enough for the status of thousands of databases; a limit for a peer that never ends its line.
MAX_RESPONSE_BYTES = 16 * 1_048_576
#: Messages taken per call, so that a peer that floods the pipe cannot hold up the loop.
MAX_AT_ONCE = 256
#: A reason may quote a server or a row, so it is truncated.
MAX_REASON_CHARACTERS = 2_000

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_TIMEVAL = struct.Struct("@ll")  # struct timeval: seconds, microseconds

Message = dict[str, Any]


class NotRunning(QJSupervisorError):
    """No supervisor answers at the control socket."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as JSON without newlines; surrogates and everything else outside ASCII are escaped."""
    return json.dumps(message, separators=(",", ":")).encode("ascii")


def decode(frame: bytes) -> Message:
    """The object in `frame`. Raises ProtocolError for anything else that a peer may send."""
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a frame of {len(frame)} bytes is not JSON: {type(error).__name__}") from None
    if not isinstance(message, dict):
        raise ProtocolError(f"a frame is a JSON {type(message).__name__}, not an object")
    return message


class Pipe:
    """One end of a control pipe; never blocks. `gone` is True once the peer is known to be gone."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._interceptors: dict[str, Callable[[Message], None]] = {}
        self.gone = False

    @classmethod
    def pair(cls) -> tuple[Pipe, Pipe]:
        """(the master's end, the child's end). Raises OSError if no descriptors are left."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def intercept(self, do: str, obey: Callable[[Message], None]) -> None:
        """Handle this order inside receive_all(), which then does not return it."""
        self._interceptors[do] = obey

    def send(self, message: Mapping[str, Any]) -> bool:
        """Send whole or not at all. False if the peer is gone (`gone`), or does not read and the buffer is full.

        A "reason" is cut to MAX_REASON_CHARACTERS. Raises ProtocolError if the message is too long otherwise.
        """
        reason = message.get("reason")
        if isinstance(reason, str) and len(reason) > MAX_REASON_CHARACTERS:
            message = {**message, "reason": reason[:MAX_REASON_CHARACTERS] + "..."}
        frame = encode(message)
        if len(frame) > MAX_FRAME_BYTES:
            raise ProtocolError(f"a message of {len(frame)} bytes is too long for a control pipe")
        try:
            self._socket.send(frame, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError as error:
            # ENOBUFS is a full system and passes; a broken pipe does not.
            self.gone = self.gone or isinstance(error, ConnectionError)
            return False
        return True

    def receive_all(self) -> list[Message]:
        """The messages that have arrived, at most MAX_AT_ONCE. Raises EOFError when the peer is gone, after its last
        message was returned, and ProtocolError for an invalid frame, which is dropped."""
        messages: list[Message] = []
        while len(messages) < MAX_AT_ONCE:
            try:
                frame, _, flags, _ = self._socket.recvmsg(MAX_FRAME_BYTES)
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue  # the peer exited with unread orders; reported once, before its last messages
            except ConnectionError:
                frame, flags = b"", 0
            if not frame:
                self.gone = True
                if messages:
                    break  # EOF stays readable, so the next call gets it
                raise EOFError("the other end of the control pipe is closed")
            if flags & socket.MSG_TRUNC:
                raise ProtocolError(f"a frame is longer than {MAX_FRAME_BYTES} bytes")
            messages.append(decode(frame))
        return [message for message in messages if not self._intercepted(message)]

    def _intercepted(self, message: Message) -> bool:
        obey = self._interceptors.get(str(message.get("do")))
        if obey is not None:
            obey(message)
        return obey is not None


def peer_credentials(sock: socket.socket) -> tuple[int, int]:
    """(pid, uid) of the process that opened the other end of a connected AF_UNIX socket, according to the kernel."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def is_trusted(uid: int) -> bool:
    """Whether a peer of that user may talk to us: our own user or root."""
    return uid in (0, os.geteuid())


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
