"""Is there an Odoo with queue_job behind a target? One request without parameters, which runs nothing.

Odoo refuses `/queue_job/runjob` without parameters by a 4xx or 500 where the route exists, and answers 404
where queue_job is not loaded. Redirects are never followed.
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
from .findings import Finding, note, problem, warning

PATH = "/queue_job/runjob"
#: A busy Odoo may be silent for longer; it is not waited for.
_READ_TIMEOUT_S = 5.0

_MEANS = {
    200: warning("answers 200 to a request without a job: is it Odoo? (a proxy's own page, or another program)"),
    401: problem("refuses user and password (401): set http_auth_user and http_auth_password for the proxy"),
    403: problem("forbids it (403): a proxy in front, or its rules, keep this machine out"),
    404: problem(
        "does not know /queue_job/runjob (404): add queue_job to Odoo's server_wide_modules and restart it;"
        " or Odoo could not tell which database is meant and has none loaded"
    ),
    429: warning("asks for fewer requests (429): a proxy limits the rate"),
    502: problem("is a proxy that cannot reach Odoo (502)"),
    503: problem("is a proxy without an Odoo to send to, or Odoo is starting (503)"),
    504: problem("is a proxy whose Odoo does not answer in time (504)"),
}


class TargetReport(NamedTuple):
    """One target and what its answer means."""

    url: str
    state: str
    finding: Finding


def check_target(target: TargetSettings, connect_timeout_s: float) -> TargetReport:
    """Ask once; blocks for at most the connect timeout and five seconds."""
    try:
        with _pool(target, connect_timeout_s) as pool:
            response = pool.request(
                "GET", target.url + PATH, headers=_headers(target), redirect=False, preload_content=False
            )
            response.close()
            finding = explain_answer(response.status)
    except (HTTPError, OSError, ValueError) as error:
        finding = explain_failure(error)
    state = {"problem": "problem", "warning": "warning", "note": "ok"}[finding.level.value]
    return TargetReport(target.url, state, finding)


def explain_answer(status: int) -> Finding:
    """What an HTTP status says about the target."""
    if status in _MEANS:
        return _MEANS[status]
    if 300 <= status < 400:
        return problem(
            f"redirects ({status}): to the database selector, a login? Set dbfilter or db_name in Odoo,"
            " or scheme = https here; redirects are never followed"
        )
    if status in (400, 422, 500):
        return note("Odoo with queue_job answers")
    return warning(f"answers {status}, which Odoo's queue_job does not")


def explain_failure(error: Exception) -> Finding:
    """What a request that got no answer says about the target."""
    if isinstance(error, NameResolutionError):
        return problem("has a name that cannot be resolved: check host")
    if isinstance(error, NewConnectionError):  # in urllib3 it is a kind of ConnectTimeoutError
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
    # Without retries the errors come as they are, not wrapped in MaxRetryError.
    return urllib3.PoolManager(
        num_pools=1,
        retries=False,
        timeout=urllib3.Timeout(connect=connect_timeout_s, read=_READ_TIMEOUT_S),
        cert_reqs="CERT_REQUIRED",
        ca_certs=target.ca_file,
    )


def _headers(target: TargetSettings) -> dict[str, str]:
    headers = {"User-Agent": "qjsupervisor check", "Accept": "*/*", "Connection": "close"}
    if target.user is not None:
        pair = f"{target.user}:{target.password or ''}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(pair).decode("ascii")
    return headers
