"""What `check` makes of answers, errors and numbers."""

from __future__ import annotations

from socket import gaierror

import pytest
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from qjsupervisor.commands.check_target import explain_answer, explain_failure
from qjsupervisor.commands.findings import Level
from qjsupervisor.odoo.http_status import meaning
from qjsupervisor.worker.outcomes import explain

_CONNECTION = HTTPConnection("nowhere")


@pytest.mark.parametrize(
    ("status", "level", "said"),
    [
        (400, Level.NOTE, "answers"),
        (500, Level.NOTE, "answers"),
        (404, Level.PROBLEM, "server_wide_modules"),
        (301, Level.PROBLEM, "redirects"),
        (303, Level.PROBLEM, "dbfilter"),
        (401, Level.PROBLEM, "http_auth_user"),
        (403, Level.PROBLEM, "proxy"),
        (502, Level.PROBLEM, "proxy"),
        (503, Level.PROBLEM, "proxy"),
        (504, Level.PROBLEM, "proxy"),
        (429, Level.WARNING, "rate"),
        (200, Level.WARNING, "is it Odoo"),
        (418, Level.WARNING, "418"),
    ],
)
def test_answers(status: int, level: Level, said: str) -> None:
    finding = explain_answer(status)
    assert finding.level is level
    assert said in finding.text


@pytest.mark.parametrize(
    ("status", "level", "said"),
    [
        (200, Level.NOTE, "answers"),
        (500, Level.PROBLEM, "dbfilter = ^%d$"),
        (500, Level.PROBLEM, "{database}"),
        (404, Level.PROBLEM, "server_wide_modules"),
    ],
)
def test_answers_for_a_database(status: int, level: Level, said: str) -> None:
    finding = explain_answer(status, by_name=True, dbfilter="^%d$")
    assert (finding.level, said in finding.text) == (level, True)


@pytest.mark.parametrize("status", [303, 401, 403, 404, 502, 503, 504])
def test_worker_and_check_read_a_status_alike(status: int) -> None:
    assert explain(status, "") == f"HTTP {status}: {meaning(status)}"
    assert meaning(status) in explain_answer(status, by_name=True).text


@pytest.mark.parametrize(
    ("error", "level", "said"),
    [
        (NameResolutionError("nowhere", _CONNECTION, gaierror()), Level.PROBLEM, "cannot be resolved"),
        (NewConnectionError(_CONNECTION, "refused"), Level.PROBLEM, "refuses"),
        (ConnectTimeoutError("slow"), Level.PROBLEM, "firewall"),
        (ReadTimeoutError(None, "/", "slow"), Level.WARNING, "busy"),  # type: ignore[arg-type]
        (SSLError("certificate verify failed"), Level.PROBLEM, "ca_file"),
        (LocationParseError("x"), Level.PROBLEM, "no address"),
        (ProtocolError("reset"), Level.PROBLEM, "broke off"),
        (FileNotFoundError("ca.pem"), Level.PROBLEM, "broke off"),
    ],
)
def test_failures(error: Exception, level: Level, said: str) -> None:
    finding = explain_failure(error)
    assert finding.level is level
    assert said in finding.text
