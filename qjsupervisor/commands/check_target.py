"""Checks with one request whether a target is an Odoo with queue_job and serves a database. Runs nothing.

The request names the database and a job that does not exist: Odoo answers 200 if it serves the database, 500 if it
does not, and 404 if queue_job is not loaded. Without a known database it names none, which Odoo refuses with a 4xx or
500. Redirects are never followed.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from ..config.settings import TargetSettings
from ..odoo.http_status import KNOWN, meaning
from ..odoo.target import NO_JOB, header_problem
from .findings import Finding, note, problem, warning

PATH = "/queue_job/runjob"
#: A busy Odoo may take longer; we do not wait for it.
_READ_TIMEOUT_S = 5.0


class TargetReport(NamedTuple):
    """A target and the meaning of its answer for some databases (none: asked without a database)."""

    url: str
    state: str
    finding: Finding
    databases: tuple[str, ...] = ()


def check_target(
    target: TargetSettings, connect_timeout_s: float, database: str | None = None, dbfilter: str | None = None
) -> TargetReport:
    """Ask once for a non-existent job of the database; blocks for at most the connect timeout plus five seconds."""
    fields = {} if database is None else {"db": database, "job_uuid": NO_JOB}
    try:
        with _pool(target, connect_timeout_s) as pool:
            response = pool.request(
                "GET",
                target.url + PATH,
                fields=fields,
                headers=_headers(target, database),
                redirect=False,
                preload_content=False,
            )
            response.close()
            finding = explain_answer(response.status, by_name=database is not None, dbfilter=dbfilter)
    except (HTTPError, OSError, ValueError) as error:
        finding = explain_failure(error)
    state = {"problem": "problem", "warning": "warning", "note": "ok"}[finding.level.value]
    return TargetReport(target.url, state, finding, () if database is None else (database,))


def explain_answer(status: int, *, by_name: bool = False, dbfilter: str | None = None) -> Finding:
    """What an HTTP status means; `by_name`: the request named a database and a non-existent job."""
    if by_name and status == 200:
        return note("Odoo with queue_job answers")
    if by_name and status == 500:
        shown = f" (here: dbfilter = {dbfilter})" if dbfilter else ""
        return problem(
            f"answers 500: it does not serve this database under this address{shown}; Odoo 19 takes dbfilter by the"
            " host's name: set targets = *:https://{database}.example.com, or a dbfilter that fits, or see Odoo's log"
        )
    if status in (400, 422, 500):
        return note("Odoo with queue_job answers")
    text = f"{meaning(status)} ({status})"
    if 200 <= status < 300:
        return warning(f"answers {status} where no job was asked for: is it Odoo? (a proxy's page, or another program)")
    if status == 429 or (status not in KNOWN and not 300 <= status < 400):
        return warning(text)
    return problem(text)


def explain_failure(error: Exception) -> Finding:
    """What a request without an answer says about the target."""
    if isinstance(error, NameResolutionError):
        return problem("has a name that cannot be resolved: check host")
    if isinstance(error, NewConnectionError):  # a subclass of ConnectTimeoutError in urllib3
        return problem("refuses the connection: is Odoo started, are host and port right?")
    if isinstance(error, ConnectTimeoutError):
        return problem("does not take the connection in time: a firewall, or the machine is down")
    if isinstance(error, ReadTimeoutError):
        return warning(
            f"took the request and was silent for {_READ_TIMEOUT_S:g} s: are all its workers busy?"
            " (a proxy may also wait for a dead Odoo)"
        )
    if isinstance(error, SSLError):
        return problem(f"cannot be trusted (TLS): {error}; set ca_file to its certificate authority")
    if isinstance(error, LocationValueError):
        return problem(f"is no address: {error}")
    return problem(f"broke off: {error}; is it http behind an https address, or the reverse?")


def _pool(target: TargetSettings, connect_timeout_s: float) -> urllib3.PoolManager:
    # With retries=False errors are not wrapped in MaxRetryError.
    return urllib3.PoolManager(
        num_pools=1,
        retries=False,
        timeout=urllib3.Timeout(connect=connect_timeout_s, read=_READ_TIMEOUT_S),
        cert_reqs="CERT_REQUIRED",
        ca_certs=target.ca_file,
    )


def _headers(target: TargetSettings, database: str | None) -> dict[str, str]:
    headers = {"User-Agent": "qjsupervisor check", "Accept": "*/*", "Connection": "close"}
    if database is not None and not header_problem(database):
        headers["X-Odoo-Database"] = database
    if target.user is not None:
        pair = f"{target.user}:{target.password or ''}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(pair).decode("ascii")
    return headers
