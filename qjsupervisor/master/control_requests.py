"""What the control socket may be asked for: status, reload, stop, pause, resume. Checks and answers.

    request                                                        response, beside "ok": true
    {"do": "status"}                                               "status": see report
    {"do": "reload"}                                               "restarted", "channels_changed", "needs_restart"
    {"do": "stop"}                                                 "pid"
    {"do": "pause", "database", "channel", "for_s", "by"}          "scope", "warning"
    {"do": "release", "database", "for_s"}                         "database"
    {"do": "resume", "database", "channel"}                        "resumed": scopes; "warning"
    {"do": "resume", "database", "anyway": true}                   "resumed": [database]; "modules": name -> state
    {"do": "note", "order", "database", ...}                       nothing: a command did something itself, for the log

"database" may be null (all), "channel" too (root), "for_s" too (until resumed), "by" too (who says so, in any order).
The caller is trusted (see control), its input is not. Each order is logged with who gave it: by his own words, and as
the kernel knows him. A reload is answered when the configuration was read; refused, with "option".
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ..channelspec import ROOT, complete_name
from ..config.values import is_unicode
from ..control import Message
from ..errors import ProtocolError, QJSupervisorError
from ..logs import get_logger
from ..states import RELEASED, Mode
from .control_socket import Deferred, Peer
from .operations import Operations
from .pauses import LONGEST_NAME, LONGEST_S, Scope

#: Of a request, in the log; of a note "order" says which it was.
_LOGGED = ("order", "database", "channel", "for_s", "anyway", "state", "jobs", "by")


class ControlRequests:
    """Turns a request into what is done, and into the response. `stop` ends the master."""

    def __init__(
        self,
        operations: Operations,
        stop: Callable[[float], None],
        clock: Callable[[], float],
        peer: Callable[[], Peer],
    ) -> None:
        self._operations = operations
        self._peer = peer
        self._log = get_logger()
        self._stop_master = stop
        self._clock = clock
        self._handlers: dict[str, Callable[[Message], Message | Deferred]] = {
            "status": lambda _: {"status": operations.status(clock())},
            "reload": self._reload,
            "stop": self._stop,
            "pause": self._pause,
            "release": self._release,
            "resume": self._resume,
            "note": lambda _: {},
        }

    def handle(self, request: Message) -> Message | Deferred:
        """Obey. ProtocolError for what is no order."""
        do = request.get("do")
        if not isinstance(do, str) or do not in self._handlers:
            known = ", ".join(self._handlers)
            raise ProtocolError(f"unknown order {str(do)[:80]!r}; known are {known}")
        if do == "status":
            return {"ok": True, "status": self._operations.status(self._clock())}
        facts = self._facts(do, request)
        try:
            response = self._handlers[do](request)
        except QJSupervisorError as error:
            self._log.warning("order_refused", **facts, reason=str(error))
            raise
        self._log.info("order_accepted", **facts)
        return response if isinstance(response, Deferred) else {"ok": True, **response}

    def _facts(self, do: str, request: Message) -> dict[str, object]:
        """What is logged of an order."""
        peer = self._peer()
        told = {key: request[key] for key in _LOGGED if isinstance(request.get(key), (str, int, float))}
        return {"order": do, **told, "client_uid": peer.uid, "client_pid": peer.pid}

    def _reload(self, _request: Message) -> Deferred:
        deferred = Deferred()
        self._operations.reload(deferred.settle, self._clock())
        return deferred

    def _stop(self, _request: Message) -> Message:
        self._stop_master(self._clock())
        return {"pid": os.getpid()}

    def _until_s(self, request: Message) -> float | None:
        for_s = request.get("for_s")
        if for_s is None:
            return None
        if isinstance(for_s, bool) or not isinstance(for_s, (int, float)) or not 0 < for_s <= LONGEST_S:
            raise ProtocolError("for_s must be seconds above 0 and at most ten years, or null")
        return self._clock() + for_s

    def _release(self, request: Message) -> Message:
        """Let an administrator have a database for himself."""
        database = self._scope({"database": request.get("database")}).database
        if database is None:
            raise ProtocolError("which database is to be released?")
        self._operations.pauses.add(Scope(database, RELEASED), self._until_s(request))
        self._operations.pauses_changed()
        return {"database": database}

    def _pause(self, request: Message) -> Message:
        scope, until_s = self._scope(request), self._until_s(request)
        self._check_room(scope, until_s)
        self._operations.pauses.add(scope, until_s, _name(request, "by"))
        self._operations.pauses_changed()
        return {"scope": str(scope), "warning": self._unknown_channel(scope)}

    def _check_room(self, scope: Scope, until_s: float | None) -> None:
        if not self._operations.pauses.has_room(scope, until_s):
            raise ProtocolError("too many channels are paused: pause one above them, or resume some first")

    def _resume(self, request: Message) -> Message:
        scope = self._scope(request)
        if request.get("anyway") is True:
            return self._run_anyway(scope)
        removed, rescan = self._operations.pauses.remove(scope), self._operations.rescan
        self._operations.pauses_changed()
        if scope.channel == ROOT and scope.database is not None and rescan.resume(scope.database, self._clock()):
            removed.append(scope)
        if any(each.channel == RELEASED for each in removed):
            rescan.request(self._clock())  # it may be another one by now
        wider = self._operations.pauses.covering(scope)
        if not removed and wider:
            raise ProtocolError(f"{scope} is paused by a wider pause: resume {wider[0]} instead")
        if not removed:
            held = ", ".join(self._operations.rescan.known.held)
            new = f"; new databases wait, to be resumed by name: {held}" if held and scope.database is None else ""
            closed = self._operations.timetable.closed_until(scope.channel)
            by_schedule = f"; {scope.channel} is {closed}, by schedule" if closed else ""
            raise ProtocolError(f"{scope} is not paused{new}{by_schedule}")
        still = f"still paused by {', '.join(map(str, wider))}" if wider else None
        return {"resumed": [str(each) for each in removed], "warning": still}

    def _run_anyway(self, scope: Scope) -> Message:
        """Jobs run though modules are in transition."""
        if scope.database is None or scope.channel != ROOT:
            raise ProtocolError("which database is to run although modules of it are half installed? name that alone")
        modules = self._operations.run_anyway(scope.database)
        if not modules:
            raise ProtocolError(f"no module of {scope.database} is being installed, upgraded or removed")
        return {"resumed": [scope.database], "modules": dict(modules)}

    def _scope(self, request: Message) -> Scope:
        database, channel = (_name(request, key) for key in ("database", "channel"))
        if database is not None and database not in self._operations.known_databases():
            known = ", ".join(sorted(self._operations.known_databases())[:20]) or "none"
            raise ProtocolError(f"database {database!r} is not served; known are {known}")
        return Scope(database, complete_name(channel))

    def _unknown_channel(self, scope: Scope) -> str | None:
        if self._operations.mode is not Mode.SERVER_WIDE or scope.channel in self._operations.known_channels():
            return None
        return f"channel {scope.channel} is not configured; the pause holds for jobs that name it"


def _name(request: Message, key: str) -> str | None:
    value = request.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise ProtocolError(f"{key} must be a name, or null")
    if not is_unicode(value):
        raise ProtocolError(f"{key} {value!r} is not UTF-8")
    return value
