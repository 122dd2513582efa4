"""One Odoo that jobs are sent to: where it is, what a request to it says, and whether it may be asked now.

Two healths decide: `server`, which all databases share, whether it can be reached; `breaker`, of this database alone,
whether its jobs are run there.

One object in each worker. It sends nothing (dispatcher.py), and does not judge answers (worker/outcomes.py).
"""

from __future__ import annotations

import base64
import functools
import ssl
from typing import Protocol
from urllib.parse import quote, urlsplit

from ..config.settings import TargetSettings
from ..states import ServerVerdict, TargetHealth, TargetState
from .breaker import NO_LIMIT, Breaker
from .resolver import Resolver

#: So that the health of many fits into one message.
_LONGEST_REASON = 200


#: A path that Odoo answers without a database, whatever is installed; any answer will do.
_PROBE_PATH = "/web/health"


class Server(Protocol):
    """What the workers share of an Odoo: see table/servers.ServerHealth."""

    @property
    def is_down(self) -> bool: ...
    @property
    def state(self) -> TargetState: ...
    @property
    def reason(self) -> str: ...
    def succeeded(self, now_ns: int) -> None: ...
    def succeeded_since(self, moment_ns: int) -> bool: ...
    def failed(self, reason: str, began_ns: int) -> bool: ...
    def doubt(self) -> int: ...
    def probed_since(self, moment_ns: int) -> bool: ...
    def probe_due_ns(self) -> int | None: ...
    def take_probe(self) -> bool: ...
    def probed(self, began_ns: int, reason: str) -> ServerVerdict: ...
    def postpone(self) -> None: ...
    def release(self) -> None: ...


class Target:
    """One Odoo, with its healths."""

    def __init__(self, settings: TargetSettings, database: str, wakeup: int, server: Server) -> None:
        self.server = server
        #: When it was last said to all that it runs jobs.
        self.told_success_s = 0.0
        #: Whether nobody can reach it, as of the turn that goes on.
        self.is_down = server.is_down
        url = urlsplit(settings.url)
        self.url = settings.url
        self.host = url.hostname or "localhost"
        port = url.port or (443 if url.scheme == "https" else 80)
        self.resolver = Resolver(self.host, port, wakeup)
        self.context = tls_context(settings.ca_file) if url.scheme == "https" else None
        self.breaker = Breaker()
        #: Of uuids; Latin-1 where the database holds any bytes (SQL_ASCII), so that they come out as they are.
        self.encoding = "utf-8"
        #: When each open request was sent, by uuid.
        self.sent_s: dict[str, float] = {}
        #: Requests that were let go since its last answer: their jobs were over, and no answer came.
        self.unanswered = 0
        name = quote(database, safe="")
        self._head = f"GET {url.path.rstrip('/')}/queue_job/runjob?db={name}&job_uuid="
        headers = {"Host": url.netloc.rpartition("@")[2], "User-Agent": "qjsupervisor", "Accept": "*/*"}
        headers["Connection"] = "close"
        #: Why the database's name cannot stand in a header, which Odoo 19 and later need; '' = it can.
        self.header_problem = header_problem(database)
        if not self.header_problem:
            headers["X-Odoo-Database"] = database
        if settings.user is not None:
            pair = f"{settings.user}:{settings.password or ''}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        self._tail = _head_end(headers)
        headers.pop("X-Odoo-Database", None)
        headers.pop("Authorization", None)
        #: The connectivity probe: a request that names no database and no job.
        self.probe = f"GET {url.path.rstrip('/')}{_PROBE_PATH}{_head_end(headers)}".encode("latin-1")

    @property
    def health(self) -> TargetHealth:
        """How this database alone finds it."""
        breaker = self.breaker
        is_down = breaker.state is TargetState.DOWN
        retry_at_s, reason = (breaker.retry_at_s, breaker.reason[:_LONGEST_REASON]) if is_down else (0.0, "")
        return TargetHealth(self.url, breaker.state, breaker.failures, retry_at_s, reason)

    def payload(self, uuid: str) -> bytes:
        """The request for one job."""
        return (self._head + quote(uuid, safe="", encoding=self.encoding) + self._tail).encode("latin-1")

    def allowance(self, now_s: float) -> int:
        """How many more requests may be sent now."""
        if self.is_down:
            return 0
        if self.breaker.state is TargetState.UP:
            return NO_LIMIT
        return self.breaker.allowance(now_s, list(self.sent_s.values()))

    def wakes_at_s(self, now_s: float) -> float | None:
        """When more may be sent, if nothing happens before. Who waits for a server that is down is woken."""
        if self.breaker.state is TargetState.UP or self.is_down:
            return None
        return self.breaker.wakes_at_s(now_s, list(self.sent_s.values()))


def _head_end(headers: dict[str, str]) -> str:
    return " HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"


def header_problem(database: str) -> str:
    """Why a database's name cannot be sent in the header X-Odoo-Database; '' = it can.

    Odoo 19 takes the header's value as it is, and WSGI reads it as Latin-1. Up to 18 only the query is read, so
    a name that no header can carry is served there.
    """
    if not all(character.isprintable() or character == "\xa0" for character in database):
        return "it has control characters"
    if database != database.strip():
        return "it begins or ends with a blank"
    try:
        database.encode("latin-1")
    except UnicodeEncodeError:
        return "it has characters outside Latin-1"
    return ""


@functools.lru_cache(maxsize=8)
def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """The context for https to a target; made once for each CA file, in the master before any fork."""
    # Not at the top: it takes a fifth of the time of a start, and most targets are plain http on the same machine.
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    context.check_hostname = True
    if ca_file is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(ca_file)
    return context
