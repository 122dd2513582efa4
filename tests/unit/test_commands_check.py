"""What `check` makes of answers, errors and numbers."""

from __future__ import annotations

from pathlib import Path
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

from qjsupervisor.commands.check_odoo import check_odoo_settings, duplicates
from qjsupervisor.commands.check_server import Connections, judge_connections, judge_descriptors
from qjsupervisor.commands.check_target import explain_answer, explain_failure
from qjsupervisor.commands.findings import Level
from qjsupervisor.config.load import load
from qjsupervisor.odoo.answers import meaning
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


def settings(text: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "odoo.conf"
    file.write_text(text)
    return [finding.text for finding in check_odoo_settings(load({"config": str(file)}, {}))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[options]\nworkers = 4\n[queue_job]\nchannels = root:4\n", "root (4) is not below workers (4)"),
        ("[options]\nworkers = 4\n[queue_job]\nchannels = root:3\n", None),
        ("[options]\nworkers = 4\n[queue_job]\nchannels = root:7\nhost = a,b\n", None),
        ("[options]\nworkers = 0\n[queue_job]\nchannels = root:7\n", None),
        ("[options]\nworkers = many\n[queue_job]\nchannels = root:7\n", None),
        ("[options]\nserver_wide_modules = base,web\n", "lacks queue_job"),
        ("[options]\nserver_wide_modules = base, web, queue_job\n", None),
        ("", None),
    ],
)
def test_odoo_s_own_settings(text: str, said: str | None, tmp_path: Path) -> None:
    found = settings(text, tmp_path)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_databases_of_one_uuid() -> None:
    (found,) = duplicates([("a", "u1"), ("b", "u2"), ("c", "u1"), ("d", None), ("e", None)])
    assert found.level is Level.WARNING
    assert found.text.startswith("a, c have one database.uuid")


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
