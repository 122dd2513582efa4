"""What the monitor answers.

    /healthz   200 while every database is served, else 503 and one line for each thing that is wrong
    /livez     200 while the master answers: what a container's liveness probe should look at
    /readyz    200 once jobs are started, until the supervisor stops
    /metrics   for Prometheus
    /status    the JSON of `qjsupervisor status --json`
    /          a page for people

All of it is made of one status of the master, and kept until the next: a hundred clients cost what one does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus

from ..text import printable
from . import metrics
from . import page as statuspage
from .health import problems
from .http import BadRequest, Request, Response, plain
from .master_link import DEAD_S, MasterLink, Said
from .server import Reply, method_not_allowed

SECURITY = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", statuspage.CONTENT_SECURITY_POLICY),
    ("Referrer-Policy", "no-referrer"),
)

Make = Callable[[Said], Response]


class Answers:
    """Answers requests from what the master says."""

    def __init__(self, master: MasterLink) -> None:
        self._master = master
        self._kept: dict[object, Response] = {}
        self._kept_of = -1
        self._pages: dict[str, Make] = {
            "/": _page,
            "/healthz": _healthz,
            "/livez": _livez,
            "/readyz": _readyz,
            "/status": _status,
        }

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer now, or when the master has spoken."""
        try:
            self._route(request, reply)
        except BadRequest as error:
            reply(plain(error.status, error.text))

    def _route(self, request: Request, reply: Reply) -> None:
        make = self._pages.get(request.path)
        if request.path == "/metrics":
            make = _metrics
        if make is None:
            reply(plain(HTTPStatus.NOT_FOUND, f"not here: {' '.join((*self._pages, '/metrics'))}"))
        elif request.method == "POST":
            reply(method_not_allowed("GET", "HEAD"))
        else:
            self._master.get(lambda said: reply(self._made(request.path, said, make)))

    def _made(self, key: object, said: Said, make: Make) -> Response:
        """The response that was made of this status already, or a new one. What is old says its age: not kept."""
        if said.age_s > 1:
            return make(said)
        if said.number != self._kept_of:
            self._kept, self._kept_of = {}, said.number
        if key not in self._kept:
            self._kept[key] = make(said)
        return self._kept[key]


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
    wrong = [printable(line) for line in problems(said.status)]
    code = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
    return plain(code, "\n".join(wrong) or "ok")


def _status(said: Said) -> Response:
    if said.status is None or not said.is_alive:
        return _unanswered(said)
    body = json.dumps(said.status, indent=2).encode("ascii") + b"\n"
    return Response(HTTPStatus.OK, "application/json", body, [("Age", f"{said.age_s:.0f}")])


def _metrics(said: Said) -> Response:
    return Response(HTTPStatus.OK, metrics.CONTENT_TYPE, metrics.render(said.status if said.is_alive else None))


def _page(said: Said) -> Response:
    targets = [] if said.status is None else metrics.targets_of(said.status)
    status = said.status if said.is_alive else None
    return Response(HTTPStatus.OK, "text/html; charset=utf-8", statuspage.render(status, targets))
