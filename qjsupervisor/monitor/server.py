"""What the monitor answers over HTTP.

    /metrics   for Prometheus
    /healthz   200 while every database is served, else 503 and one line for each thing that is wrong
    /livez     200 while the master answers: what a container's liveness probe should look at
    /status    the JSON of `qjsupervisor status --json`
    /          a page for people

Imported in the monitor's own process only.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any, NamedTuple

from ..errors import QJSupervisorError
from ..logs import get_logger
from . import metrics
from . import page as statuspage
from .health import problems

Status = Mapping[str, Any]

#: One answer of the master serves all requests of this time: scrapers do not add up at the master.
_SNAPSHOT_S = 0.5
#: A client that sends nothing or takes nothing is let go.
_CLIENT_TIMEOUT_S = 10.0
#: Clients served at once; the next one is hung up on.
_MOST_CLIENTS = 32

_log = get_logger()


class Answer(NamedTuple):
    """One response."""

    code: HTTPStatus
    content_type: str
    body: bytes


class Snapshot:
    """The master's last answer, asked for again when it is too old; shared by the request threads."""

    def __init__(self, status: Callable[[], Mapping[str, Any]], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = status
        self._clock = clock
        self._lock = threading.Lock()
        self._taken_at: float | None = None
        self._status: Status | None = None

    def get(self) -> Status | None:
        """The status, at most half a second old; None when the master did not answer."""
        with self._lock:
            if self._taken_at is None or self._clock() - self._taken_at > _SNAPSHOT_S:
                try:
                    self._status = self._ask()
                except (QJSupervisorError, OSError):
                    self._status = None
                self._taken_at = self._clock()
            return self._status


def answer(path: str, snapshot: Snapshot) -> Answer:
    """What is answered to a request for `path` (without its query)."""
    if path not in ("/", "/metrics", "/healthz", "/livez", "/status"):
        return _plain(HTTPStatus.NOT_FOUND, "not here: /metrics /healthz /livez /status /")
    status = snapshot.get()
    if path == "/metrics":
        return Answer(HTTPStatus.OK, metrics.CONTENT_TYPE, metrics.render(status))
    if path == "/":
        targets = [] if status is None else metrics.targets_of(status)
        return Answer(HTTPStatus.OK, "text/html; charset=utf-8", statuspage.render(status, targets))
    if status is None:
        return _plain(HTTPStatus.SERVICE_UNAVAILABLE, "the master does not answer")
    if path == "/status":
        body = json.dumps(status, indent=2).encode("ascii") + b"\n"
        return Answer(HTTPStatus.OK, "application/json", body)
    wrong = problems(status) if path == "/healthz" else []
    return _plain(HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK, "\n".join(wrong) or "ok")


def _plain(code: HTTPStatus, text: str) -> Answer:
    return Answer(code, "text/plain; charset=utf-8", (text + "\n").encode("utf-8", "backslashreplace"))


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD; everything else is answered by the base class with 501."""

    timeout = _CLIENT_TIMEOUT_S
    server_version = "qjsupervisor"
    sys_version = ""
    server: MonitorServer

    def do_GET(self) -> None:
        """Answer with the body."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        code, content_type, body = answer(self.path.partition("?")[0], self.server.snapshot)
        self.send_response(code)
        for name, value in (
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", statuspage.CONTENT_SECURITY_POLICY),
        ):
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Not a line for each scrape."""
        _log.debug("monitor_requested", client=self.address_string(), line=format % args)


class MonitorServer(ThreadingMixIn, HTTPServer):
    """A thread for each client, of a bounded number."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 2 * _MOST_CLIENTS

    def __init__(self, address: tuple[str, int], snapshot: Snapshot) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.snapshot = snapshot
        self._room = threading.BoundedSemaphore(_MOST_CLIENTS)
        super().__init__(address, _Handler)
        # handle_request() is called when somebody knocked; if he is gone again it must not wait.
        self.timeout = 0

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the host's full name, which can hang on a DNS server."""
        super(HTTPServer, self).server_bind()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the client's thread, or hang up where there are too many."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had: the thread would have given the place back
            self._room.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The client's thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002  (not our name)
        """A client that hung up is no event; anything else is a bug, and is logged with its traceback."""
        if isinstance(sys.exc_info()[1], OSError):
            return
        _log.exception("monitor_request_failed", client=str(client_address))
