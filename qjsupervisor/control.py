"""How the processes talk: the control pipe (master and child), and the client's side of the control socket.

The server's side of the socket is `control_socket`. Nothing here knows what a message means.

Control pipe
------------
An AF_UNIX, SOCK_SEQPACKET socket pair, made before each fork; one message is one JSON object in UTF-8, at
most MAX_FRAME_BYTES. The kernel keeps the borders, so a message comes whole or not at all. Neither side ever
blocks: what does not fit into the kernel's buffer is refused to the sender.

    message                         from -> to          meaning
    {"do": "stop"}                  master -> worker    drain, exit 0; with "restart": true another worker follows
    {"do": "channels"}              master -> worker    the shared table's channels changed
    {"do": "pauses", "pauses": {}}  master -> worker    channel -> monotonic second of its end, null: until resumed
    {"do": "resync"}                master -> worker    read the tree and the rows afresh
    {"do": "look"}                  master -> worker    see whether the database may be served, and its jobs run
    {"do": "modules", "anyway": true} master -> worker  run jobs though modules are in transition
    {"do": "rules", "rules": {}}    master -> worker    a settings.ServingRules, in place of the former
    {"do": "server", "started": ""} master -> worker    where new connections lead: when that server was started
    {"do": "log", "log_level": ...} master -> worker    log so from now on; obeyed by the Pipe itself (intercept)
    {"is": "read"}                  worker -> master    the rows were read once (start barrier)
    {"is": "ready"}                 worker -> master    and "standby", "starting", "blocked" with "reason"
    {"is": "error", "reason": ""}   worker -> master    kept as last_error
    {"is": "targets", "targets": []} worker -> master   each a states.TargetHealth
    {"is": "modules", "modules": {}} worker -> master   name -> state of those in transition; {}: there are none
    {"is": "overdue", "jobs": 1}    worker -> master    how many jobs run for longer than max_runtime
    {"listed": [names]}             scout -> master     which databases exist (in several messages)
    {"database": ..., "verdict": ...} scout -> master   one probed database
    {"done": true} {"error": ""}    scout -> master     its last word

Who repairs what: the end of a pipe (EOF) tells a child that its master is gone, and it stops itself; the
master learns of a child's death from SIGCHLD, and only closes the pipe. The master closes the child's end
right after the fork, and each child closes the master's ends of all its siblings: without that there is no EOF.

Control socket
--------------
An AF_UNIX stream, mode 0600 in a directory of mode 0700. A request is one line of JSON (an object with the
key "do") ended by a newline, at most MAX_FRAME_BYTES; so is each response, which is as long as it needs to be
and has "ok": true, or "ok": false with "error". Requests of a connection are answered one after the other.
Both sides check by SO_PEERCRED that the other one is the same user, or root; root also asks the owner of the
socket's directory, since a supervisor need not be root's.
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
#: A status of thousands of databases has room; a peer that never ends its line has not.
MAX_RESPONSE_BYTES = 16 * 1_048_576
#: Messages taken at one call, so that a peer that floods the pipe does not hold up the loop.
MAX_AT_ONCE = 256
#: A reason may quote what a server or a row says.
MAX_REASON_CHARACTERS = 2_000

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_TIMEVAL = struct.Struct("@ll")  # struct timeval: seconds, microseconds

Message = dict[str, Any]


class NotRunning(QJSupervisorError):
    """Nobody answers at the control socket."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as JSON without newlines; surrogates and everything else outside ASCII are escaped."""
    return json.dumps(message, separators=(",", ":")).encode("ascii")


def decode(frame: bytes) -> Message:
    """The object that `frame` holds; ProtocolError for anything else, whatever the peer sent."""
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a frame of {len(frame)} bytes is no JSON: {type(error).__name__}") from None
    if not isinstance(message, dict):
        raise ProtocolError(f"a frame is a JSON {type(message).__name__}, not an object")
    return message


class Pipe:
    """One end of a control pipe; never blocks. `gone` is True once the peer was found to be away."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._interceptors: dict[str, Callable[[Message], None]] = {}
        self.gone = False

    @classmethod
    def pair(cls) -> tuple[Pipe, Pipe]:
        """(the master's end, the child's end). OSError where descriptors are used up."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def intercept(self, do: str, obey: Callable[[Message], None]) -> None:
        """Have an order obeyed within receive_all(), which then does not return it."""
        self._interceptors[do] = obey

    def send(self, message: Mapping[str, Any]) -> bool:
        """Send whole or not at all. False: the peer is gone (`gone`), or does not read and the buffer is full.

        A "reason" is cut to MAX_REASON_CHARACTERS; anything else too long is a ProtocolError of the caller.
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
        """What has arrived, perhaps nothing; at most MAX_AT_ONCE. EOFError when the peer is gone, after
        its last message was handed out; ProtocolError for a frame that is none (it is dropped)."""
        messages: list[Message] = []
        while len(messages) < MAX_AT_ONCE:
            try:
                frame, _, flags, _ = self._socket.recvmsg(MAX_FRAME_BYTES)
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue  # the peer ended with orders unread; told once, before what it sent last
            except ConnectionError:
                frame, flags = b"", 0
            if not frame:
                self.gone = True
                if messages:
                    break  # EOF stays readable: the next call meets it again
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
    """(pid, uid) of whoever opened the other end of a connected AF_UNIX socket, as the kernel knows them."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def is_trusted(uid: int) -> bool:
    """Whether a peer of that user may talk to us: ourselves, and root."""
    return uid in (0, os.geteuid())


def ask(path: str, request: Mapping[str, Any], timeout_s: float = 5.0) -> Message:
    """Send one request to the supervisor behind the socket at `path` and return its response.

    Blocks for at most `timeout_s`. NotRunning if nobody answers there; ProtocolError if who answers is not
    to be trusted, sends nonsense, or hangs up in the middle.
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
    """For root, who asks a supervisor of an ordinary user: whether he is where he belongs, in his own directory."""
    return os.geteuid() == 0 and os.stat(os.path.dirname(path) or ".").st_uid == uid


def _connect(sock: socket.socket, path: str, timeout_s: float) -> None:
    """Connect, with patience for a listener whose backlog is full: without blocking that would be EAGAIN at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(timeout_s), int(timeout_s % 1 * 1e6)))
    sock.connect(path)
    sock.settimeout(timeout_s)


def _read_line(sock: socket.socket, deadline_s: float) -> bytes:
    """The bytes up to the first newline; TimeoutError when they are not there by the deadline."""
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
