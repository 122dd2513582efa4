"""The server side of the control socket: who may connect, framing, and clients that are slow or hostile.

Framing and trust are specified in `control`. This runs inside the master's loop and must never block it: every socket
is non-blocking, a client has CLIENT_TIMEOUT_S to send its request or to take its response, at most MAX_CLIENTS are
connected at once (the oldest is dropped first), and the next request is only read after the response has been sent.

A lock beside the socket (`<socket>.lock`, see pidfile) decides which supervisor runs. The socket's file does not,
because a killed supervisor leaves it behind; whoever holds the lock replaces it.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import NamedTuple

from ..control import MAX_FRAME_BYTES, Message, decode, encode, is_trusted, peer_credentials
from ..errors import AlreadyRunning, ProtocolError, QJSupervisorError
from ..logs import get_logger
from ..loop import Alarm, Loop
from .pidfile import Pidfile
from .socket_place import check_kind, check_length, listen, prepare_directory

CLIENT_TIMEOUT_S = 5.0
MAX_CLIENTS = 32
#: How long to accept nobody when descriptors have run out; otherwise the readable listener would spin the loop.
ACCEPT_PAUSE_S = 1.0
_OPTION = "control_socket"


class Deferred:
    """A response that is not known yet; whoever promised it calls `settle` once, sooner or later."""

    def __init__(self) -> None:
        self._response: Message | None = None
        self._take: Callable[[Message], None] | None = None

    def settle(self, response: Message) -> None:
        """This is it."""
        self._response = response
        if self._take is not None:
            self._take(response)

    def pass_on(self, take: Callable[[Message], None]) -> None:
        """Call `take` with the response as soon as there is one, perhaps now."""
        self._take = take
        if self._response is not None:
            take(self._response)


class Peer(NamedTuple):
    """Who asks, as the kernel knows it."""

    pid: int
    uid: int


Handle = Callable[[Message], "Message | Deferred"]


class ControlSocket:
    """The listening socket and its clients. `handle` turns a request into a response and must not block."""

    def __init__(self, path: str, handle: Handle) -> None:
        self.path = path
        self._handle = handle
        #: Whose request is being handled.
        self.peer = Peer(os.getpid(), os.geteuid())
        self._lock = Pidfile(path + ".lock", option=_OPTION)
        self._listener: socket.socket | None = None
        self._loop: Loop | None = None
        self._clients: dict[socket.socket, _ControlConnection] = {}
        self._log = get_logger()

    def open(self) -> None:
        """Take the lock, replace what a dead supervisor left behind, and listen.

        Raises AlreadyRunning if a supervisor is alive, ConfigError if the path is unsuitable.
        """
        check_length(self.path)
        prepare_directory(os.path.dirname(self.path) or ".")
        self._lock.acquire()
        with ExitStack() as on_failure:
            on_failure.callback(self._lock.release)
            self._remove_stale()
            self._listener = listen(self.path)
            on_failure.pop_all()

    def register(self, loop: Loop) -> None:
        """Serve from now on."""
        assert self._listener is not None, "open() first"
        self._loop = loop
        loop.register(self._listener, selectors.EVENT_READ, self._accept)

    def _listen_again(self, _now_s: float) -> None:
        """After a shortage of descriptors."""
        if self._loop is not None and self._listener is not None:
            self._loop.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Disconnect all clients, and remove socket and lock. Only for the process that opened it."""
        listening = self._listener is not None
        self._hang_up()
        if listening:
            with suppress(OSError):  # already removed by somebody else
                os.unlink(self.path)
        self._lock.release()

    def close_in_child(self) -> None:
        """Close the descriptors, including the lock's, and leave the files to the master.

        A child that kept the lock open would hide the master's death.
        """
        self._hang_up()
        self._lock.close()

    def _hang_up(self) -> None:
        for client in list(self._clients):
            client.close()
        self._clients.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _remove_stale(self) -> None:
        """Unlink a socket that nobody listens on. We hold the lock, so nobody else is doing the same."""
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return
        check_kind(self.path, status)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self.path)
            except ConnectionRefusedError:
                os.unlink(self.path)
                return
            except BlockingIOError:  # a full backlog: a process listens there and is busy
                raise AlreadyRunning(f"a process listens at {self.path} already", None) from None
            pid, _ = peer_credentials(probe)
            raise AlreadyRunning(f"a supervisor with pid {pid} listens at {self.path} already", pid)

    def _accept(self, now_s: float) -> None:
        assert self._listener is not None, "register() first"
        assert self._loop is not None, "register() first"
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                return  # the client went away before we got to it
            self._log.warning("client_refused", reason=f"accept: {error.strerror}")
            self._loop.unregister(self._listener)
            self._loop.call_at(now_s + ACCEPT_PAUSE_S, self._listen_again)
            return
        pid, uid = peer_credentials(sock)
        if not is_trusted(uid):
            self._log.warning("client_refused", client_pid=pid, client_uid=uid, reason="neither our user nor root")
            sock.close()
            return
        if len(self._clients) >= MAX_CLIENTS:
            self._drop(min(self._clients.values(), key=lambda each: each.limit.at_s))
        sock.setblocking(False)
        client = _ControlConnection(sock, Peer(pid, uid))
        client.limit = Alarm(self._loop, lambda _now_s: self._drop(client))
        client.limit.set(now_s + CLIENT_TIMEOUT_S)
        self._clients[sock] = client
        self._watch(client)

    def _serve(self, client: _ControlConnection, now_s: float) -> None:
        """Read and write without waiting when a client's socket is ready; at most one request per turn."""
        try:
            if client.outgoing:
                client.flush()
            elif not client.has_request() and not client.receive():
                self._drop(client)
                return
            elif client.has_request():
                client.limit.set(now_s + CLIENT_TIMEOUT_S)
                response = self._respond(client.take_request(), client)
                if isinstance(response, Deferred):
                    self._wait_for(response, client)
                    return
                client.answer(response)
        except BlockingIOError:
            pass  # nothing to read after all; the selector says when there is
        except OSError:
            self._drop(client)
            return
        self._watch(client)

    def _wait_for(self, response: Deferred, client: _ControlConnection) -> None:
        """Leave the client alone until its response is there; it need not be there any more by then."""
        assert self._loop is not None
        client.limit.clear()
        self._loop.unregister(client.sock)
        client.waiting = True
        response.pass_on(lambda message: self._answer_late(client, message))

    def _answer_late(self, client: _ControlConnection, message: Message) -> None:
        assert self._loop is not None
        if client.sock not in self._clients:
            return
        try:
            client.answer(message)
        except OSError:
            self._drop(client)
            return
        client.waiting = False
        client.limit.set(self._loop.now_s() + CLIENT_TIMEOUT_S)
        self._watch(client)

    def _respond(self, line: bytes, client: _ControlConnection) -> Message | Deferred:
        try:
            if len(line) > MAX_FRAME_BYTES:
                client.ending = True
                raise ProtocolError(f"a request may have {MAX_FRAME_BYTES} bytes at most")
            self.peer = client.peer
            return self._handle(decode(line))
        except QJSupervisorError as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:  # noqa: BLE001  (a fault of ours: who asked is told, all others go on)
            self._log.exception("request_failed")
            return {"ok": False, "error": f"a fault of qjsupervisor, see its log: {type(error).__name__}: {error}"}

    def _watch(self, client: _ControlConnection) -> None:
        """Wait for what the client must do next: take its response, or send its next request.

        A request that arrived with the previous one is handled in the next turn, since the socket is writable."""
        assert self._loop is not None
        if client.ending and not client.outgoing:
            self._drop(client)
            return
        events = selectors.EVENT_WRITE if client.outgoing or client.has_request() else selectors.EVENT_READ
        self._loop.modify(client.sock, events, lambda now_s: self._serve(client, now_s))

    def _drop(self, client: _ControlConnection) -> None:
        assert self._loop is not None
        if not client.waiting:
            self._loop.unregister(client.sock)
        client.limit.clear()
        del self._clients[client.sock]
        client.sock.close()


class _ControlConnection:
    """One connection: received bytes not yet answered, and response bytes not yet sent."""

    #: Ends it.
    limit: Alarm

    def __init__(self, sock: socket.socket, peer: Peer) -> None:
        self.sock = sock
        self.peer = peer
        self.incoming = bytearray()
        self.outgoing = bytearray()
        #: Close the connection once the response has been sent.
        self.ending = False
        #: For a response that is not known yet; its socket is not looked at.
        self.waiting = False

    def receive(self) -> bool:
        """Read once; False at the client's end. BlockingIOError if there is nothing."""
        chunk = self.sock.recv(MAX_FRAME_BYTES)
        self.incoming += chunk
        return bool(chunk)

    def answer(self, response: Message) -> None:
        self.outgoing += encode(response) + b"\n"
        self.flush()

    def flush(self) -> None:
        with suppress(BlockingIOError):
            sent = self.sock.send(self.outgoing, socket.MSG_NOSIGNAL)
            del self.outgoing[:sent]

    def has_request(self) -> bool:
        """Whether a request is complete; an overlong one counts as complete."""
        return b"\n" in self.incoming or len(self.incoming) > MAX_FRAME_BYTES

    def take_request(self) -> bytes:
        """The next complete request, without its newline."""
        line, _, self.incoming = self.incoming.partition(b"\n")
        return bytes(line)
