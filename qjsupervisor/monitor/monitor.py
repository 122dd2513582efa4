"""The monitor: metrics, health and a status page over HTTP, in a process of their own.

It only reads: there is nothing that a request could change. It knows no more than the master's control
socket tells it, and opens no database. Whatever happens to it, the master and the workers do not notice.
What it answers is in `monitorserver`.
"""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from ..logs import get_logger

if TYPE_CHECKING:
    from .server import MonitorServer

EXIT_BIND_FAILED = 1

_log = get_logger()


class ControlPipe(Protocol):
    """The monitor's end of its pipe to the master, as control.Pipe has it."""

    def fileno(self) -> int: ...
    def receive_all(self) -> list[dict[str, Any]]: ...


def run_monitor(
    address: tuple[str, int], status: Callable[[], Mapping[str, Any]], pipe: ControlPipe | None = None
) -> int:
    """Serve until the master says stop or its end of the pipe is closed; returns the exit status.

    `status` asks the master; it raises QJSupervisorError when no answer comes. Call it in the main
    thread of a process of its own.
    """
    # Here, after the fork: 2 MiB that would otherwise be in the master and in every worker.
    from .server import MonitorServer, Snapshot

    host, port = address
    try:
        server = MonitorServer(address, Snapshot(status))
    except OSError as error:
        _log.error("monitor_bind_failed", address=f"{host}:{port}", reason=error.strerror or str(error))
        return EXIT_BIND_FAILED
    with server, _Stop(pipe) as stop:
        _log.info("monitor_started", address=f"{host}:{server.server_port}")
        _serve(server, stop)
    return 0


def _serve(server: MonitorServer, stop: _Stop) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        for source in stop.sources():
            selector.register(source, selectors.EVENT_READ)
        while not stop.wanted():
            if any(key.fileobj is server for key, _ in selector.select()):
                server.handle_request()


class _Stop:
    """Knows when to end: SIGTERM, an order on the pipe, or the pipe's end."""

    def __init__(self, pipe: ControlPipe | None) -> None:
        self._pipe = pipe
        self._asked = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

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
        self._asked = True

    def sources(self) -> list[Any]:
        """What to wait for besides requests."""
        return [self._reader, *([] if self._pipe is None else [self._pipe])]

    def wanted(self) -> bool:
        """Whether it is time to end; never blocks."""
        with suppress(BlockingIOError):
            self._reader.recv(4096)  # any signal writes here, not SIGTERM alone
        if self._pipe is not None:
            try:
                orders = self._pipe.receive_all()
            except EOFError:
                return True
            self._asked = self._asked or any(order.get("do") == "stop" for order in orders)
        return self._asked
