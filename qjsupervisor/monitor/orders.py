"""Orders given on the page: log in, pause, resume, requeue.

Each is checked (access.py), passed to the master or carried out in the database, logged with its user and address,
and answered by a redirect to the page it came from, which shows the result.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from ..channelspec import ROOT
from ..config.settings import Config
from ..logs import get_logger
from ..loop import Loop
from .access import Access, User, check_origin, cookie_header
from .background import Background
from .http import BadRequest, ClientRequest, Response, plain
from .master_link import MasterLink, order
from .ports import JobAccess
from .server import Reply

#: Number of results kept for pages to show.
_MOST_NOTES = 64
_LONGEST_NAME = 500
_MOST_UUIDS = 200
_log = get_logger()

Form = Mapping[str, list[str]]


class Orders:
    """Carries out orders."""

    def __init__(self, loop: Loop, config: Config, access: Access, master: MasterLink, background: Background) -> None:
        self._loop = loop
        self._config = config
        self._access = access
        self._master = master
        self._background = background
        self._notes: dict[str, str] = {}
        #: Set at start; None if jobs cannot be changed from here.
        self.jobs: JobAccess | None = None
        self._handlers: dict[str, Callable[[User, ClientRequest, Form, Reply], None]] = {
            "/pause": self._pause,
            "/resume": self._resume,
            "/resume_anyway": self._resume_anyway,
            "/requeue": self._requeue,
        }

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that accept POST."""
        return (*self._handlers, "/login", "/logout")

    def note(self, request: ClientRequest) -> str:
        """The result of the order that led to this page."""
        return self._notes.get(request.query.removeprefix("note="), "")

    def handle(self, request: ClientRequest, reply: Reply) -> None:
        """Carry out an order. Raises BadRequest if it is not allowed or malformed."""
        if not self._access.is_possible:
            raise BadRequest(HTTPStatus.FORBIDDEN, "this page only reads: set monitor_token to give orders on it")
        form = request.form()
        if request.path == "/login":
            self._log_in(request, form, reply)
            return
        user = self._access.check_order(request, form)
        if request.path == "/logout":
            reply(_redirect("/", [cookie_header("", secure=False)]))
            return
        self._handlers[request.path](user, request, form, reply)

    def _log_in(self, request: ClientRequest, form: Form, reply: Reply) -> None:
        check_origin(request)
        found = self._access.log_in(form)
        if found is None:
            _log.warning("login_refused", client=request.client)
            reply(plain(HTTPStatus.FORBIDDEN, "wrong: not logged in"))
            return
        user, cookie = found
        _log.info("login_accepted", user=user, client=request.client)
        secure = request.headers.get("origin", "").startswith("https://")
        reply(_redirect("/", [cookie_header(cookie, secure=secure)]))

    # -- the orders --------------------------------------------------------------------------------------------

    def _pause(self, user: User, request: ClientRequest, form: Form, reply: Reply) -> None:
        database, channel, text = _field(form, "database"), _field(form, "channel") or ROOT, _field(form, "for_s")
        if text and not (text.isascii() and text.isdigit() and 0 < int(text) < 10**9):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "for_s must be whole seconds, or empty")
        message = {"do": "pause", "database": database or None, "channel": channel}
        self._give(user, request, form, reply, {**message, "for_s": int(text) if text else None}, "Paused.")

    def _resume(self, user: User, request: ClientRequest, form: Form, reply: Reply) -> None:
        database, channel = _field(form, "database"), _field(form, "channel") or ROOT
        message = {"do": "resume", "database": database or None, "channel": channel}
        self._give(user, request, form, reply, message, "Resumed.")

    def _resume_anyway(self, user: User, request: ClientRequest, form: Form, reply: Reply) -> None:
        """Run a database's jobs although modules of it are in transition."""
        message = {"do": "resume", "database": _field(form, "database") or None, "channel": ROOT, "anyway": True}
        self._give(user, request, form, reply, message, "Its jobs run until the modules' transition is over.")

    def _give(
        self, user: User, request: ClientRequest, form: Form, reply: Reply, message: Mapping[str, Any], done: str
    ) -> None:
        """Pass an order to the master."""
        facts = {key: value for key, value in message.items() if key != "do"}
        _log.info("order_given", order=message["do"], user=user.name, client=request.client, **facts)

        def answered(answer: Mapping[str, Any] | None) -> None:
            self._master.forget()
            if answer is None:
                reply(plain(HTTPStatus.SERVICE_UNAVAILABLE, "the supervisor does not answer: nothing is known of it"))
            elif not answer.get("ok"):
                reply(plain(HTTPStatus.CONFLICT, f"not done: {answer.get('error')}"))
            else:
                warning = answer.get("warning")
                reply(self._done(user, form, done + (f" {warning}" if warning else "")))

        by = f"{user.name} from {request.client}"
        order(self._loop, self._config.control_socket, {**message, "by": by}, answered)

    def _requeue(self, user: User, request: ClientRequest, form: Form, reply: Reply) -> None:
        """Requeue the named jobs, or without `chosen` all failed ones."""
        database, jobs = _field(form, "database"), self.jobs
        uuids = form.get("uuid", [])[:_MOST_UUIDS] if "chosen" in form or "uuid" in form else None
        if jobs is None or database not in self._known():
            raise BadRequest(HTTPStatus.NOT_FOUND, "there is no such database")
        if uuids is not None and not uuids:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "no job was chosen")
        chosen = "all" if uuids is None else uuids
        _log.info("order_given", order="requeue", user=user.name, client=request.client, database=database, jobs=chosen)

        def requeued(value: tuple[int, int] | None, error: str) -> None:
            if value is None:
                reply(plain(HTTPStatus.BAD_GATEWAY, f"not done: {error}"))
                return
            moved, left = value
            text = f"{moved} job{'' if moved == 1 else 's'} put back to pending."
            reply(self._done(user, form, text + (f" {left} left alone: not failed any more." if left else "")))

        self._background.submit(lambda: jobs.requeue(self._config, database, uuids), requeued)

    def _known(self) -> set[str]:
        status = self._master.said().status or {}
        return {str(view.get("name")) for view in status.get("databases", ())}

    def _done(self, user: User, form: Form, text: str) -> Response:
        """Redirect to the page with the result; plain text for a program."""
        if not user.csrf:
            return plain(HTTPStatus.OK, text)
        number = secrets.token_urlsafe(6)
        self._notes[number] = text
        while len(self._notes) > _MOST_NOTES:
            del self._notes[next(iter(self._notes))]
        back = _field(form, "back")
        return _redirect(f"{back if _is_ours(back) else '/'}?note={number}", [])


def _is_ours(path: str) -> bool:
    """Whether a path is on this server, not another one's."""
    printable = path.isascii() and path.isprintable() and not any(char in path for char in " \\?#")
    return printable and (path == "/" or path.startswith("/database/"))


def _redirect(path: str, headers: list[tuple[str, str]]) -> Response:
    return plain(HTTPStatus.SEE_OTHER, "see there", [("Location", path), *headers])


def _field(form: Form, name: str) -> str:
    values = form.get(name, [""])
    if len(values) != 1 or len(values[0]) > _LONGEST_NAME:
        raise BadRequest(HTTPStatus.BAD_REQUEST, f"{name} is given twice, or too long")
    return values[0]
