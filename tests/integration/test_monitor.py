"""The monitor as a process: what it answers, how it ends, and what hostile clients and names can do."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from contextlib import closing
from http import HTTPStatus
from typing import Any

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.loop import Loop
from qjsupervisor.monitor import metrics
from qjsupervisor.monitor.http import plain
from qjsupervisor.monitor.listener import listen
from qjsupervisor.monitor.master_link import FRESH_S
from qjsupervisor.monitor.monitor import EXIT_BIND_FAILED, run_monitor
from qjsupervisor.monitor.server import HttpServer
from qjsupervisor.table.semaphore import SemaphoreTable

from ..helpers import wait_until
from .monitored import StartMonitor, status


def test_metrics(monitor: StartMonitor) -> None:
    answer = monitor().get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == metrics.CONTENT_TYPE
    lines = answer.text.splitlines()
    for line in (
        "qjsupervisor_up 1.0",
        'qjsupervisor_info{fairness="round-robin",mode="server-wide",version="1.0"} 1.0',
        'qjsupervisor_database_up{database="db1"} 1.0',
        'qjsupervisor_database_pending{database="db1"} 12.0',
        "qjsupervisor_log_lines_lost_total 5.0",
        'qjsupervisor_database_dispatched_total{database="db1"} 1042.0',
        'qjsupervisor_database_restarts_total{database="db1"} 1.0',
        'qjsupervisor_database_heartbeat_age_seconds{database="db1"} 0.1',
        'qjsupervisor_database_wait_seconds{database="db1"} 0.5',
        'qjsupervisor_database_overdue{database="db1"} 2.0',
        'qjsupervisor_database_modules_seconds{database="db1"} 4000.0',
        'qjsupervisor_database_upgrade_overdue{database="db1"} 1.0',
        'qjsupervisor_database_state{database="db1",state="ready"} 1.0',
        'qjsupervisor_channel_capacity{channel="root"} 4.0',
        'qjsupervisor_channel_capacity{channel="root.free"} +Inf',
        'qjsupervisor_channel_paused{channel="root.free"} 1.0',
        'qjsupervisor_target_up{url="http://localhost:8069"} 1.0',
        'qjsupervisor_target_up{url="http://b:1"} 0.0',
        'qjsupervisor_postgresql_up{server="pg:5432"} 1.0',
        'qjsupervisor_target_retry_seconds{url="http://b:1"} 7.5',
    ):
        assert line in lines
    assert all(re.match(r"# |qjsupervisor_\w+(\{.*\})? \S+$", line) for line in lines), "a name broke a line"


def test_page_shows_what_is_to_be_looked_at(monitor: StartMonitor) -> None:
    text = monitor().get("/").text
    assert "2 jobs run for longer than max_runtime" in text
    assert "module sale is &#39;to upgrade&#39;, for 66 min now" in text


def test_page_escapes(monitor: StartMonitor) -> None:
    answer = monitor().get("/")
    assert answer.status_code == 200
    assert "<script>" not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert 'http-equiv="refresh"' in answer.text


def test_status_is_the_masters(monitor: StartMonitor) -> None:
    assert monitor().get("/status?x=1").json() == status()


def test_health(monitor: StartMonitor) -> None:
    """A warning is told, and is no reason for 503."""
    one = monitor()
    answer = one.get("/livez")
    assert (answer.status_code, answer.text) == (200, "ok\n")
    answer = one.get("/healthz")
    first, *warnings = answer.text.splitlines()
    assert (answer.status_code, first) == (200, "ok")
    assert warnings
    assert all(line.startswith("warning: ") for line in warnings)
    quiet = {key: value for key, value in status()["databases"][0].items() if key not in ("overdue", "modules")}
    assert monitor(status(databases=[quiet])).get("/healthz").text == "ok\n"


def test_health_says_what_is_wrong(monitor: StartMonitor) -> None:
    worker = {"name": "db2", "state": "backing off", "last_error": "killed by SIGKILL"}
    one = monitor(status(databases=[worker], problems=["the databases cannot be listed"]))
    answer = one.get("/healthz")
    assert answer.status_code == 503
    assert answer.text == "the databases cannot be listed\ndb2: backing off: killed by SIGKILL\n"
    assert one.get("/livez").status_code == 200


def test_master_does_not_answer(monitor: StartMonitor) -> None:
    one = monitor(None)
    for path in ("/healthz", "/livez", "/status"):
        assert one.get(path).status_code == 503
    assert "qjsupervisor_up 0.0" in one.get("/metrics").text
    assert "does not answer" in one.get("/").text


def test_control_characters_of_names_are_escaped_everywhere(monitor: StartMonitor) -> None:
    evil = "db\x1b]0;owned\x07\nok\u202e"
    worker = {**status()["databases"][0], "name": evil, "state": "blocked", "last_error": "a\nb\x1b[2J"}
    channel = {**status()["channels"][1], "name": f"root.{evil}"}
    one = monitor(status(databases=[worker], channels=[channel]))
    for path in ("/healthz", "/", "/metrics", "/status"):
        text = one.get(path).text
        assert not any(char in text for char in "\x1b\x07\u202e"), path
    said = one.get("/healthz").text.splitlines()
    assert len([line for line in said if not line.startswith("warning: ")]) == 1
    assert len(said) == 3


def test_readiness(monitor: StartMonitor) -> None:
    one = monitor(status(gate_open=False))
    assert one.get("/readyz").status_code == 503
    assert one.get("/livez").status_code == 200
    one.master.answer = status(gate_open=True)
    wait_until(lambda: one.get("/readyz").status_code == 200, "it is ready")
    one.master.answer = status(gate_open=True, stopping=True)
    wait_until(lambda: one.get("/readyz").text == "stopping\n", "it stops")


def test_probes_are_answered_while_the_master_is_silent(monitor: StartMonitor) -> None:
    """As it is while it forks two hundred workers: what it said last holds for a while."""
    one = monitor()
    assert one.get("/healthz").status_code in (200, 503)
    one.master.answer = None
    began_s = time.monotonic()
    wait_until(lambda: time.monotonic() > began_s + FRESH_S, "the answer is old")
    for path in ("/livez", "/status", "/", "/metrics"):
        asked_s = time.monotonic()
        assert one.get(path).status_code == 200
        assert time.monotonic() - asked_s < 2


def test_a_master_that_is_gone_is_told_at_once(monitor: StartMonitor) -> None:
    one = monitor()
    assert one.get("/livez").status_code == 200
    one.master.close()
    wait_until(lambda: one.get("/livez").status_code == 503, "it is not alive")


@pytest.mark.parametrize("how", ["master gone", "order", "SIGTERM"])
def test_end(monitor: StartMonitor, how: str) -> None:
    one = monitor()
    if how == "master gone":
        one.pipe.close()
    elif how == "order":
        one.pipe.send({"do": "stop"})
    else:
        one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(10) == 0


def test_address_in_use(log_events: list[Any]) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        host, port = taken.getsockname()
        config = load({"monitor": f"{host}:{port}", "config": os.devnull}, {})
        table = SemaphoreTable(config.channels, slots=1, fairness=config.fairness)
        assert run_monitor(config, table) == EXIT_BIND_FAILED
    assert [event["event"] for event in log_events] == ["monitor_bind_failed"]


def test_ipv6() -> None:
    with Loop() as loop:
        server = HttpServer(loop, listen(("::1", 0)), lambda _request, reply: reply(plain(HTTPStatus.OK, "ok")))
        assert server.port > 0
        server.close()
        assert loop.watched == 0
