"""One Odoo that jobs are sent to: its address, the text of a request, and whether it may be asked now.

Two kinds of health decide: `server`, shared by all databases, says whether it can be reached; `breaker`, of this
database alone, says whether its jobs are run there.

Each worker has its own object. It sends nothing (dispatcher.py) and does not judge answers (worker/outcomes.py).
"""

from __future__ import annotations

import base64
import functools
import ssl
import zlib
from typing import Protocol
from urllib.parse import quote, urlsplit

from ..config.settings import TargetSettings
from ..states import ServerVerdict, TargetHealth, TargetState
from .breaker import Breaker
from .request import Request
from .resolver import Resolver

#: Keeps the health of many targets within one message.
_LONGEST_REASON = 200


#: A job that does not exist: Odoo answers 200 where it serves the database, with a line in its log, and runs nothing.
NO_JOB = "00000000-0000-0000-0000-000000000000"
#: A path that every Odoo answers without a database; any answer will do.
_PROBE_PATH = "/web/health"


class SharedHealth(Protocol):
    """The health of an Odoo that the workers share; see table/servers.ServerHealth."""

    @property
    def is_down(self) -> bool: ...
    @property
    def state(self) -> TargetState: ...
    @property
    def reason(self) -> str: ...
    def succeeded(self, now_ns: int) -> None: ...
    def succeeded_since(self, moment_ns: int) -> bool: ...
    def let_go(self) -> None: ...
    def answered(self) -> None: ...
    def failed(self, reason: str, began_ns: int) -> bool: ...
    def doubt(self) -> int: ...
    def probed_since(self, moment_ns: int) -> bool: ...
    def probe_due_s(self) -> float | None: ...
    def take_probe(self) -> bool: ...
    def probed(self, began_ns: int, reason: str) -> ServerVerdict: ...
    def postpone(self) -> None: ...
    def release(self) -> None: ...


class Target:
    """One Odoo and its health."""

    def __init__(self, settings: TargetSettings, database: str, wakeup: int, server: SharedHealth) -> None:
        self.server = server
        #: When this worker last told the others that it runs jobs.
        self.told_success_s = 0.0
        #: Whether nobody can reach it, as of the current turn.
        self.is_down = server.is_down
        url = urlsplit(settings.url)
        self.url = settings.url
        self.host = url.hostname or "localhost"
        port = url.port or (443 if url.scheme == "https" else 80)
        self.resolver = Resolver(self.host, port, wakeup, first_turn(database))
        self.context = tls_context(settings.ca_file) if url.scheme == "https" else None
        self.breaker = Breaker()
        #: Encoding of uuids; Latin-1 if the database may hold any bytes (SQL_ASCII), so that they pass unchanged.
        self.encoding = "utf-8"
        name = quote(database, safe="")
        self._head = f"GET {url.path.rstrip('/')}/queue_job/runjob?db={name}&job_uuid="
        headers = {"Host": url.netloc.rpartition("@")[2], "User-Agent": "qjsupervisor", "Accept": "*/*"}
        headers["Connection"] = "close"
        #: Why the database's name cannot be sent in a header, which Odoo 19 and later need; '' if it can.
        self.header_problem = header_problem(database)
        if not self.header_problem:
            headers["X-Odoo-Database"] = database
        if settings.user is not None:
            pair = f"{settings.user}:{settings.password or ''}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        self._tail = _head_end(headers)
        headers.pop("X-Odoo-Database", None)
        headers.pop("Authorization", None)
        #: The connectivity probe: a request without a database or job.
        self.probe = f"GET {url.path.rstrip('/')}{_PROBE_PATH}{_head_end(headers)}".encode("latin-1")

    @property
    def health(self) -> TargetHealth:
        """Its health as seen by this database alone."""
        breaker = self.breaker
        is_down = breaker.state is TargetState.DOWN
        retry_at_s, reason = (breaker.retry_at_s, breaker.reason[:_LONGEST_REASON]) if is_down else (0.0, "")
        return TargetHealth(self.url, breaker.state, breaker.failures, retry_at_s, reason)

    def payload(self, uuid: str) -> bytes:
        """The request for one job."""
        return (self._head + quote(uuid, safe="", encoding=self.encoding) + self._tail).encode("latin-1")


def first_turn(database: str) -> int:
    """Where a database begins among several Odoos; spreads databases evenly, and is the same after a restart."""
    return zlib.crc32(database.encode(errors="surrogateescape"))


def _head_end(headers: dict[str, str]) -> str:
    return " HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"


def header_problem(database: str) -> str:
    """Why a database's name cannot be sent in the header X-Odoo-Database; '' if it can.

    Odoo 19 takes the header's value literally, and WSGI reads it as Latin-1. Up to 18 only the query is read, so a name
    that no header can carry still works there.
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
    """The context for https to a target; made once per CA file, in the master before any fork."""
    # Not imported at the top: that takes a fifth of the start-up time, and most targets are plain http on this machine.
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    context.check_hostname = True
    if ca_file is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(ca_file)
    return context


class OpenRequest:
    """An open request to a target; without a uuid a connectivity probe, with NO_JOB's a knock (connectivity.py)."""

    __slots__ = ("began_s", "deadline_s", "head_deadline_s", "request", "target", "uuid")

    def __init__(self, target: Target, uuid: str, now_s: float) -> None:
        self.target = target
        self.uuid = uuid
        self.began_s = now_s
        self.deadline_s: float | None = None
        #: Deadline for the head that has started to arrive; None: none has.
        self.head_deadline_s: float | None = None
        self.request: Request | None = None

    @property
    def is_of_job(self) -> bool:
        return self.uuid not in ("", NO_JOB)
