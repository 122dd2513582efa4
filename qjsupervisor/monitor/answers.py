"""Routes requests to the monitor and builds the answers.

    /healthz          200 while every database is served, else 503 with one line per problem;
                      then one line per warning
    /livez            200 while the master answers; for a container's liveness probe
    /readyz           200 once jobs are being started, until the supervisor stops
    /metrics          for Prometheus
    /status           the JSON of `qjsupervisor status --json`
    /                 the status page
    /database/NAME    the page of one database
Answers that do not depend on the client are built once per status of the master, so a hundred clients cost as much
as one. Orders are in orders.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from ..config.settings import Config
from ..logs import get_logger
from ..loop import Loop
from ..text import printable
from . import metrics, page
from .access import Access
from .background import Background
from .health import find_problems
from .http import BadRequest, ClientRequest, Response, plain
from .master_link import DEAD_S, MasterLink, Said
from .observer import Observer
from .orders import Orders
from .page import Visitor
from .ports import JobAccess
from .processes import processes_of
from .server import Reply, method_not_allowed

SECURITY = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", page.CONTENT_SECURITY_POLICY),
    ("Referrer-Policy", "same-origin"),
)
HTML = "text/html; charset=utf-8"
#: How long a list of jobs read from a database is reused for all clients.
_JOBS_FRESH_S = 3.0
_MOST_DATABASES_READ = 16
_DATABASE = "/database/"
_WEEK = [("Cache-Control", "max-age=604800")]

_log = get_logger()

Jobs = Mapping[str, Any]
Make = Callable[[Said], Response]


class Answers:
    """Answers requests from the master's status and the shared table."""

    def __init__(
        self, loop: Loop, config: Config, master: MasterLink, observer: Observer, jobs: JobAccess | None = None
    ) -> None:
        self._config = config
        self._master = master
        self._observer = observer
        self._jobs = jobs
        self._background = Background(loop)
        self._access = Access(config)
        self._orders = Orders(loop, config, self._access, master, self._background)
        self._orders.jobs = jobs
        self._kept: dict[object, Response] = {}
        self._kept_of = -1
        self._jobs_of: dict[str, tuple[float, Jobs]] = {}
        self._readers: dict[str, list[Callable[[Jobs], None]]] = {}
        self._simple: dict[str, Make] = {
            "/healthz": _healthz,
            "/livez": _livez,
            "/readyz": _readyz,
            "/status": _status,
        }

    def close(self) -> None:
        """Stop asking the master."""
        self._background.close()
        self._master.close()

    def handle(self, request: ClientRequest, reply: Reply) -> None:
        """Answer at once, or when the master has answered."""
        try:
            if request.path in self._orders.paths and request.method == "POST":
                self._orders.handle(request, reply)
            else:
                self._route(request, reply)
        except BadRequest as error:
            reply(plain(error.status, error.text))

    def _route(self, request: ClientRequest, reply: Reply) -> None:
        path = request.path
        make = self._simple.get(path)
        if request.method == "POST":
            reply(method_not_allowed("GET", "HEAD"))
        elif make is not None:
            self._reply_made(path, make, reply)
        elif path == "/metrics":
            kind = metrics.content_type(request.headers.get("accept", ""))
            self._reply_made(kind, lambda said: self._metrics(said, kind), reply)
        elif path == "/":
            self._overview(request, reply)
        elif path.startswith(_DATABASE):
            self._database(path.removeprefix(_DATABASE), request, reply)
        elif path == "/page.js":
            reply(Response(HTTPStatus.OK, "text/javascript; charset=utf-8", page.SCRIPT, [("ETag", page.SCRIPT_HASH)]))
        elif path == "/icon.svg":
            reply(Response(HTTPStatus.OK, "image/svg+xml", page.icon(request.query), _WEEK))
        elif path == "/login" and self._access.is_possible:
            visitor = self._visitor(request)
            body = page.login(self._master.said(), visitor, with_user=self._access.with_user)
            reply(Response(HTTPStatus.OK, HTML, body))
        elif path in self._orders.paths:
            reply(method_not_allowed("POST"))
        else:
            reply(plain(HTTPStatus.NOT_FOUND, f"not here: / /metrics {' '.join(self._simple)}"))

    def _reply_made(self, key: object, make: Make, reply: Reply) -> None:
        self._master.get(lambda said: _answer(reply, lambda: self._made(key, said, make)))

    def _made(self, key: object, said: Said, make: Make) -> Response:
        """The response for this status, cached unless the status is stale: then it states its age."""
        if said.age_s > 1:
            return make(said)
        if said.number != self._kept_of:
            self._kept, self._kept_of = {}, said.number
        if key not in self._kept:
            self._kept[key] = make(said)
        return self._kept[key]

    # -- pages -------------------------------------------------------------------------------------------------

    def _visitor(self, request: ClientRequest) -> Visitor:
        user = self._access.user_of(request) if self._access.is_possible else None
        note = self._orders.note(request)
        if user is None or not user.csrf:
            return Visitor(self._access.is_possible, note=note)
        return Visitor(self._access.is_possible, user.name, user.csrf, note)

    def _overview(self, request: ClientRequest, reply: Reply) -> None:
        visitor, history = self._visitor(request), self._observer.history

        def make(said: Said) -> Response:
            return Response(HTTPStatus.OK, HTML, page.overview(said, history, visitor))

        if visitor.user is None and not visitor.note:
            self._reply_made("/", make, reply)
        else:
            self._master.get(lambda said: _answer(reply, lambda: make(said)))

    def _database(self, name: str, request: ClientRequest, reply: Reply) -> None:
        visitor = self._visitor(request)

        def show(said: Said, jobs: Jobs) -> None:
            _answer(reply, lambda: made(said, jobs))

        def made(said: Said, jobs: Jobs) -> Response:
            body = page.database(said, name, self._observer.history, jobs, visitor)
            if body is None:
                return plain(HTTPStatus.NOT_FOUND, "there is no such database")
            return Response(HTTPStatus.OK, HTML, body)

        def take(said: Said) -> None:
            known = {view.get("name") for view in (said.status or {}).get("databases", ())}
            if said.status is None or name not in known:
                show(said, {})
            else:
                self._read_jobs(name, said.status, lambda jobs: show(said, jobs))

        self._master.get(take)

    def _read_jobs(self, database: str, status: Mapping[str, Any], take: Callable[[Jobs], None]) -> None:
        """Read a database's jobs; clients asking at the same time share one session."""
        port, now_s = self._jobs, time.monotonic()
        read_s, jobs = self._jobs_of.get(database, (-1e9, {}))
        if now_s - read_s <= _JOBS_FRESH_S:
            take(jobs)
        elif port is None:
            take({"waiting": [], "failed": [], "error": "jobs are not read here"})
        elif database in self._readers:
            self._readers[database].append(take)
        else:
            self._readers[database] = [take]

            def done(value: Jobs | None, error: str) -> None:
                found = value if value is not None else {"waiting": [], "failed": [], "error": error}
                self._jobs_of[database] = (time.monotonic(), found)
                while len(self._jobs_of) > _MOST_DATABASES_READ:
                    del self._jobs_of[next(iter(self._jobs_of))]
                for reader in self._readers.pop(database):
                    reader(found)

            self._background.submit(lambda: port.list_jobs(self._config, database, status), done)

    # -- for programs ------------------------------------------------------------------------------------------

    def _metrics(self, said: Said, kind: str) -> Response:
        status = said.status if said.is_alive else None
        facts = metrics.MetricSources(
            status,
            self._observer.totals(),
            self._observer.cells(),
            processes_of(said.status) if said.status is not None else (),
        )
        return Response(HTTPStatus.OK, kind, metrics.render(facts, kind))


def _answer(reply: Reply, make: Callable[[], Response]) -> None:
    """Reply with what `make` returns. If it raises, that is our bug: log it and answer 500."""
    try:
        response = make()
    except Exception as error:  # noqa: BLE001  (a bug of ours: the client is told, all others go on)
        _log.error("monitor_request_failed", reason=f"{type(error).__name__}: {error}", exc_info=error)
        response = plain(HTTPStatus.INTERNAL_SERVER_ERROR, "this cannot be shown: see the log")
    reply(response)


def _unanswered(said: Said) -> Response:
    if said.status is None:
        text = "the master does not answer"
    else:
        text = f"the master has not answered for {said.age_s:.0f} s (more than {DEAD_S:.0f} s)"
    return plain(HTTPStatus.SERVICE_UNAVAILABLE, text)


def _livez(said: Said) -> Response:
    return plain(HTTPStatus.OK, "ok") if said.is_alive else _unanswered(said)


def _readyz(said: Said) -> Response:
    if said.status is None or not said.is_alive:
        return _unanswered(said)
    if said.status.get("stopping"):
        return plain(HTTPStatus.SERVICE_UNAVAILABLE, "stopping")
    if not said.status.get("gate_open", True):
        return plain(HTTPStatus.SERVICE_UNAVAILABLE, "starting: the databases are being read, no job is started yet")
    return plain(HTTPStatus.OK, "ok")


def _healthz(said: Said) -> Response:
    if said.status is None or not said.is_alive:
        return _unanswered(said)
    found = find_problems(said.status)
    wrong = [printable(each.text) for each in found if not each.is_warning]
    odd = [f"warning: {printable(each.text)}" for each in found if each.is_warning]
    code = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
    return plain(code, "\n".join([*(wrong or ["ok"]), *odd]))


def _status(said: Said) -> Response:
    if said.status is None or not said.is_alive:
        return _unanswered(said)
    body = json.dumps(said.status, indent=2).encode("ascii") + b"\n"
    return Response(HTTPStatus.OK, "application/json", body, [("Age", f"{said.age_s:.0f}")])
