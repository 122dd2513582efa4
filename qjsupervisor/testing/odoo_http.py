"""The HTTP side of the stand-in Odoo: /queue_job/runjob as in docs/contract.md, and faults on demand.

One asyncio loop reads and answers requests; jobs run in one thread per worker, and further requests wait as they
would in Odoo's listen backlog. A client that disconnects does not stop its job.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from .odoo_jobs import JobRunner, Order, WorkerKilledError
from .odoo_stats import OdooStatistics

_SELECTOR = "/web/database/selector"
_REASONS = {200: "OK", 303: "SEE OTHER", 401: "UNAUTHORIZED", 404: "NOT FOUND", 500: "INTERNAL SERVER ERROR"}
_LONGEST_REQUEST_BYTES = 65_536
EVERYBODY = "*"
#: The first Odoo that reads the database from the header X-Odoo-Database, without decoding it.
FIRST_LITERAL = 19


class OdooMode(str, enum.Enum):
    """How a database's requests are treated."""

    OK = "ok"
    #: Jobs take longer by `seconds` (default 1).
    SLOW = "slow"
    #: The worker is killed at the job's end: no answer, `started`, lock row free.
    DIE = "die"
    #: A proxy gives up: answered once the job is `started`; the job continues.
    GATEWAY_TIMEOUT = "504"
    #: In the following modes the job is not run.
    NOT_RUN = "not_run"
    NOT_FOUND = "404"
    REDIRECT = "303"
    ERROR = "500"
    UNAUTHORIZED = "401"
    BAD_GATEWAY = "502"
    #: Never answered.
    HANG = "hang"
    #: The job completes but is never answered: its worker hangs after the commit.
    UNANSWERED = "unanswered"
    #: For all databases: the listening socket is closed. For one: reset without an answer.
    REFUSE = "refuse"


_FIXED = {
    OdooMode.NOT_RUN: 200,
    OdooMode.NOT_FOUND: 404,
    OdooMode.REDIRECT: 303,
    OdooMode.ERROR: 500,
    OdooMode.UNAUTHORIZED: 401,
    OdooMode.BAD_GATEWAY: 502,
}


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """The head of an HTTP request; header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @classmethod
    def parse(cls, head: bytes) -> ReceivedRequest:
        """Parse a head. Raises ValueError if it is not a request."""
        first, *lines = head.decode("latin-1").split("\r\n")  # as WSGI reads it
        method, target, _version = first.split(" ")
        url = urlsplit(target)
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return cls(method, url.path, dict(parse_qsl(url.query, keep_blank_values=True)), headers)

    def database(self, series: int | None = None) -> tuple[str | None, str]:
        """(database or None if ambiguous, where it was named: query, header, both or none).

        `series`: Odoo up to 18 reads only the query, from 19 only the header, undecoded; None: either.
        """
        query = self.query.get("db") or None
        header = self.headers.get("x-odoo-database") or None
        addressed = {(True, True): "both", (True, False): "query", (False, True): "header"}.get(
            (query is not None, header is not None), "none"
        )
        if series is not None:
            return (header if series >= FIRST_LITERAL else query), addressed
        if query and header:
            return (query if query in (header, unquote(header)) else None), addressed
        return query or (unquote(header) if header else None), addressed


class Exchange(asyncio.Protocol):
    """One connection with one request and one answer: HTTP/1.0 without keep-alive."""

    def __init__(self, handle: Callable[[ReceivedRequest, Exchange], None], statistics: OdooStatistics | None) -> None:
        self._handle = handle
        self._statistics = statistics
        self._received = b""
        self._over = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._received.endswith(b"\r\n\r\n"):
            return  # ignore a body or a second request
        self._received += data
        head, complete, _ = self._received.partition(b"\r\n\r\n")
        if not complete:
            if len(self._received) > _LONGEST_REQUEST_BYTES:
                self.answer(431)
            return
        self._received = head + complete
        try:
            request = ReceivedRequest.parse(head)
        except ValueError:
            self.answer(400)
        else:
            self._handle(request, self)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._over and self._received and self._statistics is not None:
            self._statistics.count("hung_up")
        self._over = True

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Write the answer and close; does nothing if the client is gone."""
        if self._over or self.transport is None:
            return
        self._over = True
        lines = [
            f"HTTP/1.0 {status} {_REASONS.get(status, 'STATUS')}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        self.transport.close()

    def drop(self) -> None:
        """Close without an answer, as if the process had died."""
        self._over = True
        if self.transport is not None:
            self.transport.abort()


class Application:
    """Decides what happens to a request. All methods except `_run` are called in the loop's thread."""

    def __init__(
        self,
        jobs: JobRunner,
        statistics: OdooStatistics,
        workers: int,
        *,
        authorization: str | None,
        series: int | None = None,
    ) -> None:
        self._series = series
        self._jobs = jobs
        self._statistics = statistics
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="odoo")
        self._authorization = authorization
        self._loop = asyncio.get_running_loop()
        self._modes: dict[str, tuple[OdooMode, float]] = {}

    def exchange(self) -> Exchange:
        return Exchange(self.handle, self._statistics)

    def refuses(self) -> bool:
        """Whether connections are refused."""
        return self._modes.get(EVERYBODY, (OdooMode.OK, 0.0))[0] is OdooMode.REFUSE

    def set_mode(self, database: str, mode: OdooMode, seconds: float) -> None:
        self._modes[database] = mode, seconds

    def handle(self, request: ReceivedRequest, exchange: Exchange) -> None:
        if request.path == "/queue_job/runjob":
            self._runjob(request, exchange)
        elif request.path == _SELECTOR:
            self._statistics.count("redirects_followed")
            exchange.answer(200, b"<html>Which database?</html>", {"Content-Type": "text/html"})
        else:
            exchange.answer(404, b"<html>Not Found</html>", {"Content-Type": "text/html"})

    def _runjob(self, request: ReceivedRequest, exchange: Exchange) -> None:
        database, addressed = request.database(self._series)
        uuid = request.query.get("job_uuid", "")
        authorization = request.headers.get("authorization")
        self._statistics.asked(database or "", uuid, addressed, authorization)
        if self._authorization is not None and authorization != self._authorization:
            self._fixed(401, exchange)
        elif database is None or not uuid:
            self._fixed(500, exchange)
        else:
            self._treat(database, uuid, exchange)

    def _treat(self, database: str, uuid: str, exchange: Exchange) -> None:
        mode, seconds = self._modes.get(database) or self._modes.get(EVERYBODY) or (OdooMode.OK, 0.0)
        if mode is OdooMode.REFUSE:
            exchange.drop()
        elif mode in _FIXED:
            self._fixed(_FIXED[mode], exchange)
        elif mode is not OdooMode.HANG:
            order = Order(database, uuid, time.monotonic(), dies=mode is OdooMode.DIE)
            order.extra_s = seconds if mode is OdooMode.SLOW else 0.0
            if mode is OdooMode.GATEWAY_TIMEOUT:
                order.on_started = lambda: self._later(self._fixed, 504, exchange)
            self._statistics.queued(+1)
            self._workers.submit(self._run, order, exchange, answers=mode is not OdooMode.UNANSWERED)

    def _run(self, order: Order, exchange: Exchange, *, answers: bool) -> None:
        """Run a job, in a worker's thread."""
        self._statistics.queued(-1)
        try:
            status = self._jobs.run(order)
        except WorkerKilledError:
            self._later(exchange.drop)
        else:
            if answers:
                self._later(self._fixed, status, exchange)

    def _later(self, call: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(call, *arguments)

    def _fixed(self, status: int, exchange: Exchange) -> None:
        self._statistics.answered(status)
        headers = {"Content-Type": "text/html"}
        if status == 303:
            headers["Location"] = _SELECTOR
        elif status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="Odoo"'
        body = b"" if status == 200 else b"<html><h1>%d</h1></html>" % status
        exchange.answer(status, body, headers)
