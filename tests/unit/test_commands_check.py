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

from qjsupervisor.commands.check_server import Connections, judge_connections, judge_descriptors
from qjsupervisor.commands.check_target import explain_answer, explain_failure
from qjsupervisor.commands.findings import Level
from qjsupervisor.config.load import load

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


@pytest.mark.parametrize(
    ("server", "databases", "levels"),
    [
        (Connections(100, 3, -1, 20), 10, []),
        (Connections(100, 3, -1, 80), 10, [Level.WARNING]),
        (Connections(100, 3, -1, 0), 98, [Level.PROBLEM]),
        (Connections(100, 3, 10, 0), 10, [Level.WARNING]),
    ],
)
def test_connections(server: Connections, databases: int, levels: list[Level]) -> None:
    assert [finding.level for finding in judge_connections(server, databases)] == levels


@pytest.mark.parametrize(("hard_limit", "count"), [(-1, 0), (4096, 0), (600, 1)])
def test_descriptors(hard_limit: int, count: int) -> None:
    config = load({"config": "/dev/null"}, {"HOME": "/nonexistent"})
    assert len(list(judge_descriptors(hard_limit, config, 100))) == count
