"""The monitor as a process: what it answers, how it ends, and what hostile clients and names can do."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

import pytest
import requests

from qjsupervisor.control import Pipe
from qjsupervisor.errors import QJSupervisorError
from qjsupervisor.monitor import metrics
from qjsupervisor.monitor.monitor import EXIT_BIND_FAILED, run_monitor
from qjsupervisor.monitor.server import MonitorServer, Snapshot

from ..helpers import REPOSITORY, FakeClock, wait_until

EVIL = "db</td><script>alert(1)</script>\"'\n\\"


def status(**more: Any) -> dict[str, Any]:
    """What a master says of two databases."""
    database = {
        "name": "db1",
        "state": "ready",
        "pid": 2,
        "restarts": 1,
        "last_error": None,
        "pending": 12,
        "running": 4,
        "failed": 1,
        "dispatched": 1042,
        "heartbeat_age_s": 0.1,
        "wait_s": 0.5,
    }
    target = {"url": "http://localhost:8069", "state": "up", "failures": 0, "retry_in_s": None}
    return {
        "version": "1.0",
        "pid": 1,
        "uptime_s": 3.2,
        "log_lines_lost": 5,
        "mode": "server-wide",
        "fairness": "round-robin",
        "databases": [database, {**database, "name": EVIL, "state": "standby", "heartbeat_age_s": None}],
        "channels": [
            {
                "name": "root",
                "capacity": 4,
                "running": 4,
                "pending": 12,
                "failed": 1,
                "sequential": False,
                "throttle_s": 0,
                "paused": False,
            },
            {"name": "root.free", "capacity": None, "running": 0, "pending": 0, "failed": 0, "paused": True},
        ],
        "target": target,
        "targets": [target, {**target, "url": "http://b:1", "state": "down", "failures": 3, "retry_in_s": 7.5}],
        **more,
    }


STATUS = status()


def free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


_CHILD = """
import json, socket, sys
from qjsupervisor.control import NotRunning, Pipe
from qjsupervisor.monitor.monitor import run_monitor

def status():
    answer = json.loads(sys.argv[3])
    if answer is None:
        raise NotRunning("no answer")
    return answer

pipe = Pipe(socket.socket(fileno=int(sys.argv[1])))
sys.exit(run_monitor(("127.0.0.1", int(sys.argv[2])), status, pipe))
"""


class Monitor:
    """A monitor in a process of its own, and the master's end of its pipe; `answer` None: no master answers."""

    def __init__(self, answer: Mapping[str, Any] | None) -> None:
        self.port = free_port()
        self.pipe, theirs = Pipe.pair()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(theirs.fileno()), str(self.port), json.dumps(answer)],
            pass_fds=[theirs.fileno()],
            cwd=REPOSITORY,
        )
        theirs.close()
        wait_until(self.listens, "the monitor listens")

    def listens(self) -> bool:
        with closing(socket.socket()) as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def get(self, path: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()


StartMonitor = Callable[..., Monitor]


@pytest.fixture
def monitor() -> Iterator[StartMonitor]:
    started: list[Monitor] = []

    def start(answer: Mapping[str, Any] | None = STATUS) -> Monitor:
        started.append(Monitor(answer))
        return started[-1]

    yield start
    for one in started:
        one.close()


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
        'qjsupervisor_database_state{database="db1",state="ready"} 1.0',
        'qjsupervisor_channel_capacity{channel="root"} 4.0',
        'qjsupervisor_channel_capacity{channel="root.free"} +Inf',
        'qjsupervisor_channel_paused{channel="root.free"} 1.0',
        'qjsupervisor_target_up{url="http://localhost:8069"} 1.0',
        'qjsupervisor_target_up{url="http://b:1"} 0.0',
        'qjsupervisor_target_retry_seconds{url="http://b:1"} 7.5',
    ):
        assert line in lines
    assert all(re.match(r"# |qjsupervisor_\w+(\{.*\})? \S+$", line) for line in lines), "a name broke a line"


def test_page_escapes(monitor: StartMonitor) -> None:
    answer = monitor().get("/")
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert 'http-equiv="refresh"' in answer.text


def test_status_is_the_masters(monitor: StartMonitor) -> None:
    assert monitor().get("/status?x=1").json() == status()


def test_health(monitor: StartMonitor) -> None:
    one = monitor()
    for path in ("/healthz", "/livez"):
        answer = one.get(path)
        assert (answer.status_code, answer.text) == (200, "ok\n")


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


def test_what_is_not_there(monitor: StartMonitor) -> None:
    one = monitor()
    assert one.get("/nothing").status_code == 404
    assert requests.post(f"http://127.0.0.1:{one.port}/status", timeout=5).status_code == 501
    head = requests.head(f"http://127.0.0.1:{one.port}/", timeout=5)
    assert (head.status_code, head.text) == (200, "")
    assert int(head.headers["Content-Length"]) > 100


def test_silent_clients_do_not_stop_others(monitor: StartMonitor) -> None:
    one = monitor()
    clients = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(10)]
    try:
        assert one.get("/livez").status_code == 200
    finally:
        for client in clients:
            client.close()


def test_too_many_clients_are_hung_up_on(monitor: StartMonitor) -> None:
    one = monitor()
    clients = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(40)]
    try:
        clients[-1].settimeout(5)
        with suppress(ConnectionResetError):
            assert clients[-1].recv(1) == b""
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: _answers(one), "the monitor answers again")


def _answers(one: Monitor) -> bool:
    try:
        return one.get("/livez").status_code == 200
    except requests.ConnectionError:
        return False


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
        assert run_monitor(taken.getsockname(), status) == EXIT_BIND_FAILED
    assert [event["event"] for event in log_events] == ["monitor_bind_failed"]


def test_ipv6() -> None:
    with MonitorServer(("::1", 0), Snapshot(status)) as server:
        assert server.server_port > 0


def test_snapshot_is_shared_for_a_moment(clock: FakeClock) -> None:
    asked: list[float] = []

    def answer() -> Mapping[str, Any]:
        asked.append(clock())
        if len(asked) == 2:
            raise QJSupervisorError("no answer")
        return {"n": len(asked)}

    snapshot = Snapshot(answer, clock)
    assert [snapshot.get(), snapshot.get()] == [{"n": 1}, {"n": 1}]
    clock.advance(0.6)
    assert [snapshot.get(), snapshot.get()] == [None, None]
    clock.advance(0.6)
    assert snapshot.get() == {"n": 3}
