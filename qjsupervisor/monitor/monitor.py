"""The monitor process: metrics, health and the status page over HTTP.

Its data comes from the master's control socket and the shared table. Nothing that happens to it affects master or
workers. One loop serves all clients (server.py) and queries the master (master_link.py); answers.py builds the
answers.
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Protocol

from ..config.settings import Config
from ..logs import get_logger
from ..loop import Loop
from ..table.views import TableReader
from .listener import listen
from .ports import JobAccess

if TYPE_CHECKING:
    from .master_link import MasterLink
    from .server import HttpServer

EXIT_BIND_FAILED = 1
#: How long it waits for the master's first status, while clients wait or another monitor serves them.
FIRST_ANSWER_S = 5.0
_ASK_S = 0.2
#: After its successor has begun to serve.
LAST_ANSWERS_S = 1.0

_log = get_logger()


class ControlPipe(Protocol):
    """The monitor's end of its pipe to the master, as control.Pipe has it."""

    def fileno(self) -> int: ...
    def receive_all(self) -> list[dict[str, Any]]: ...
    def send(self, message: Mapping[str, Any]) -> bool: ...


def run_monitor(
    config: Config,
    table: TableReader,
    pipe: ControlPipe | None = None,
    jobs: JobAccess | None = None,
    listener: socket.socket | None = None,
) -> int:
    """Serve at config.monitor until the master orders a stop or closes its end of the pipe.

    Returns the exit status. `jobs`: access to the jobs in databases. `listener`: the master's; None: one is opened.
    Call it in the main thread of its own process.
    """
    assert config.monitor is not None
    # Imported after the fork, to save 2 MiB in the master and in every worker.
    from .answers import SECURITY, Answers
    from .master_link import MasterLink
    from .observer import Observer
    from .server import HttpServer

    host, port = config.monitor
    with ExitStack() as stack:
        loop = stack.enter_context(Loop(on_error=_survive))
        stop = stack.enter_context(_Stop(loop, pipe))
        observer = Observer(loop, table)
        link = MasterLink(loop, config.control_socket)
        answers = Answers(loop, config, link, observer, jobs)
        stack.callback(answers.close)
        if listener is not None:
            _await_master(loop, link, stop)
        try:
            server = HttpServer(loop, listener or listen(config.monitor), answers.handle, SECURITY)
        except OSError as error:
            _log.error("monitor_bind_failed", address=f"{host}:{port}", reason=error.strerror or str(error))
            return EXIT_BIND_FAILED
        stack.callback(server.close)
        observer.start()
        _log.info("monitor_started", address=f"{host}:{server.port}")
        if pipe is not None:
            pipe.send({"is": "serving"})
        while not stop.wanted:
            loop.turn()
        if listener is not None:
            _answer_the_last(loop, server)
    return 0


def _await_master(loop: Loop, link: MasterLink, stop: _Stop) -> None:
    """Know the status before anybody asks: a master that is busy now would look as if it were gone."""
    until_s = time.monotonic() + FIRST_ANSWER_S
    while link.said().status is None and not stop.wanted and time.monotonic() < until_s:
        link.get(lambda _said: None)
        loop.turn(_ASK_S)


def _answer_the_last(loop: Loop, server: HttpServer) -> None:
    """Another process serves; who asked this one gets an answer all the same."""
    server.stop_listening()
    until_s = time.monotonic() + LAST_ANSWERS_S
    while len(server) and (left_s := until_s - time.monotonic()) > 0:
        loop.turn(left_s)


def _survive(error: Exception) -> None:
    """Log a bug in one request without ending the others."""
    _log.error("monitor_request_failed", reason=f"{type(error).__name__}: {error}", exc_info=error)


class _Stop:
    """Watches for the reasons to stop: SIGTERM, an order on the pipe, or the pipe's end."""

    def __init__(self, loop: Loop, pipe: ControlPipe | None) -> None:
        self.wanted = False
        self._pipe = pipe
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        loop.register(self._reader, selectors.EVENT_READ, self._drain)
        if pipe is not None:
            loop.register(pipe, selectors.EVENT_READ, self._hear)

    def __enter__(self) -> _Stop:
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.signal(signal.SIGTERM, self._before)
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def _note(self, _signum: int, _frame: object) -> None:
        self.wanted = True

    def _drain(self, _now_s: float) -> None:
        with suppress(BlockingIOError):
            self._reader.recv(4096)  # every signal writes here, not only SIGTERM

    def _hear(self, _now_s: float) -> None:
        assert self._pipe is not None
        try:
            orders: list[Mapping[str, Any]] = list(self._pipe.receive_all())
        except EOFError:
            self.wanted = True
            return
        self.wanted = self.wanted or any(order.get("do") == "stop" for order in orders)
