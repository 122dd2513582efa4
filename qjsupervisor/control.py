"""How the processes talk: the control pipe between master and child, and the messages of the control socket.

The socket's server is `master.control_socket`, its client `control_client`. Nothing here knows what a message means.

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
    {"do": "look"}                  master -> worker    check whether the database may be served and its jobs may run
    {"do": "modules", "anyway": true} master -> worker  run jobs though modules are in transition
    {"do": "rules", "rules": {}}    master -> worker    a settings.ServingRules that replaces the current one
    {"do": "limits", "limits": {}}  master -> worker    channel -> jobs at once in it (0: none), by the schedule
    {"do": "only", "oid": 1}        master -> worker    serve no other database of this name (null: any)
    {"do": "server", "started": ""} master -> worker    start time of the server that new connections lead to
    {"do": "doze"}                  master -> worker    the porter waits for the leader lock: hand it over and exit
    {"do": "take_over"}             master -> worker    the porter has the leader lock, and hands it over at "door"
    {"do": "log", "log_level": ...} master -> worker    new log settings; handled by the Pipe itself (intercept)
    {"is": "read"}                  worker -> master    the rows were read once (start barrier)
    {"is": "ready"}                 worker -> master    and "standby", "starting", "blocked" with "reason"
    {"is": "error", "reason": ""}   worker -> master    kept as last_error
    {"is": "targets", "targets": []} worker -> master   each a states.TargetHealth
    {"is": "modules", "modules": {}} worker -> master   name -> state of those in transition; {}: there are none
    {"is": "away", "for_s": 5.0}    worker -> master    an administrator ended its session; 0: it was not one
    {"is": "log", "level": "error", "event": "", "facts": {}} worker -> master  a line for the log, where many
                                                        databases may have the same one: they are merged
    {"is": "overdue", "jobs": 1}    worker -> master    how many jobs run for longer than max_runtime
    {"is": "idle", "failed": ""}    worker -> master    nothing to do: the porter may have it; "failed": see Rest
    {"is": "stays"}                 worker -> master    there is something to do after all
    {"is": "dozes"}                 worker -> master    the porter has the leader lock; the worker exits
    {"is": "door"}                  worker -> master    it is about to wait for the porter's lock
    {"do": "take", "database": ..., "dsn": {}, "failed": "", ...} master -> porter  see porter.porter
    {"do": "hand_over" or "drop", "database": ""} master -> porter  the worker waits for its lock; close at once
    {"is": "waits", "holds", "asleep", "wake", "lost", "away" or "left", "database": ""} porter -> master
    {"is": "alive"}                 porter -> master    a heartbeat
    {"is": "serving"}               monitor -> master   it answers from now on: the former one may end
    {"do": "file", "path": ""}      master -> log       write this file from now on
    {"listed": [names]}             scout -> master     which databases exist (in several messages)
    {"database": ..., "verdict": ...} scout -> master   one probed database; "rests": it needs no worker
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
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ProtocolError

MAX_FRAME_BYTES = 65_536
#: Enough for the status of thousands of databases; a limit for a peer that never ends its line.
MAX_RESPONSE_BYTES = 16 * 1_048_576
#: Messages taken per call, so that a peer that floods the pipe cannot hold up the loop.
MAX_AT_ONCE = 256
#: A reason may quote a server or a row, so it is truncated.
MAX_REASON_CHARACTERS = 2_000

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid

Message = dict[str, Any]


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
