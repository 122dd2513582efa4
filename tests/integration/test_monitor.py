"""The monitor as a process: what it answers, how it ends, and what hostile clients and names can do."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from qjsupervisor.config.load import load
from qjsupervisor.control import Pipe
from qjsupervisor.loop import Loop
from qjsupervisor.monitor import metrics
from qjsupervisor.monitor.http import plain
from qjsupervisor.monitor.master_link import FRESH_S, MasterLink, Said
from qjsupervisor.monitor.monitor import EXIT_BIND_FAILED, run_monitor
from qjsupervisor.monitor.server import MAX_OF_ADDRESS, REQUEST_S, Server
from qjsupervisor.table.semaphore import SemaphoreTable

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
        "overdue": 2,
        "modules": {"states": {"sale": "to upgrade"}, "for_s": 4000.0, "overdue": True, "anyway": False},
        "modules_for_s": 4000.0,
        "upgrade_overdue": True,
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
                "stopped": False,
                "throttle_s": 0,
                "paused": False,
            },
            {"name": "root.free", "capacity": None, "running": 0, "pending": 0, "failed": 0, "paused": True},
        ],
        "postgresql": [{"server": "pg:5432", "state": "up"}],
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
import socket, sys
from qjsupervisor.config.load import load
from qjsupervisor.control import Pipe
from qjsupervisor.monitor.monitor import run_monitor
from qjsupervisor.table.semaphore import SemaphoreTable

pipe_number, *options = sys.argv[1:]
config = load(dict(option.split("=", 1) for option in options), {})
table = SemaphoreTable(config.channels, slots=4, fairness=config.fairness)
sys.exit(run_monitor(config, table, Pipe(socket.socket(fileno=int(pipe_number)))))
"""


class Master:
    """What a monitor asks: a control socket at which `answer` is told; None: nothing is, whoever waits."""

    def __init__(self, folder: Path, answer: Mapping[str, Any] | None) -> None:
        self.path = str(folder / "control.sock")
        self.answer = answer
        self.orders: list[dict[str, Any]] = []
        #: What orders are refused with.
        self.refusal: str | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._silent: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with suppress(OSError), client.makefile("rb") as file:
                order = json.loads(file.readline())
                if self.answer is None:
                    self._silent.append(client)
                    continue
                client.sendall(json.dumps(self._answered(order)).encode() + b"\n")
            client.close()

    def _answered(self, order: dict[str, Any]) -> dict[str, Any]:
        if order["do"] == "status":
            return {"ok": True, "status": self.answer}
        if self.refusal is not None:
            return {"ok": False, "error": self.refusal}
        self.orders.append(order)
        return {"ok": True}

    def close(self) -> None:
        with suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._silent:
            client.close()


class Monitor:
    """A monitor in a process of its own, the master's end of its pipe, and a master that it asks."""

    def __init__(self, answer: Mapping[str, Any] | None, **options: str) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="qjs-mon-", dir="/tmp"))
        self.master = Master(self.folder, answer)
        self.pipe, theirs = Pipe.pair()
        (self.folder / "odoo.conf").touch()
        options = {"config": str(self.folder / "odoo.conf"), "control_socket": self.master.path, **options}
        options["monitor"] = f"127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(theirs.fileno()), *(f"{k}={v}" for k, v in options.items())],
            pass_fds=[theirs.fileno()],
            cwd=REPOSITORY,
        )
        theirs.close()
        wait_until(self.listens, "the monitor listens")

    def listens(self) -> bool:
        with closing(socket.socket()) as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=5, headers=headers)

    def send(self, data: bytes) -> bytes:
        """What comes back for these bytes, to the end."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=5)) as sock:
            sock.sendall(data)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()
        self.master.close()
        shutil.rmtree(self.folder)


StartMonitor = Callable[..., Monitor]


@pytest.fixture
def monitor() -> Iterator[StartMonitor]:
    started: list[Monitor] = []

    def start(answer: Mapping[str, Any] | None = STATUS, **options: str) -> Monitor:
        started.append(Monitor(answer, **options))
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


def test_what_is_not_there(monitor: StartMonitor) -> None:
    one = monitor()
    assert one.get("/nothing").status_code == 404
    posted = requests.post(f"http://127.0.0.1:{one.port}/status", timeout=5)
    assert (posted.status_code, posted.headers["Allow"]) == (405, "GET, HEAD")
    head = requests.head(f"http://127.0.0.1:{one.port}/", timeout=5)
    assert (head.status_code, head.text) == (200, "")
    assert int(head.headers["Content-Length"]) > 100


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"<script>alert(1)</script> / HTTP/1.1\r\n\r\n", 400),
        (b"EVIL<b> / HTTP/1.1\r\n\r\n", 400),
        (b"PROPFIND / HTTP/1.1\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 20_000, 431),
        (b"POST /pause HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", 413),
        (b"POST /pause HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /pause HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
    ],
)
def test_garbage_is_answered_properly_and_nothing_of_it_comes_back(
    monitor: StartMonitor, sent: bytes, status: int
) -> None:
    answer = monitor().send(sent)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Type: text/plain; charset=utf-8" in head
    assert b"nosniff" in head
    assert not any(part in body for part in (b"<", b"EVIL", b"PROPFIND"))


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


def test_five_hundred_idle_and_dribbling_clients_keep_nobody_out(monitor: StartMonitor) -> None:
    """Clients of one address that say nothing, or a byte at a time; each probe is answered within a second."""
    one = monitor()
    clients: list[socket.socket] = []
    try:
        for number in range(500):
            client = socket.create_connection(("127.0.0.1", one.port))
            clients.append(client)
            if number % 2:
                client.sendall(b"G")
            if number % 50 == 49:
                _dribble(clients)
                asked_s = time.monotonic()
                assert one.get("/livez").status_code == 200
                assert time.monotonic() - asked_s < 1
        assert len(psutil.Process(one.process.pid).net_connections()) < MAX_OF_ADDRESS + 10
    finally:
        for client in clients:
            client.close()


def _dribble(clients: list[socket.socket]) -> None:
    for client in clients[1::2]:
        with suppress(OSError):
            client.sendall(b"E")


def test_the_slow_are_let_go_after_a_deadline_for_the_whole_request(monitor: StartMonitor) -> None:
    """A byte now and then does not prolong it."""
    one = monitor()
    with closing(socket.create_connection(("127.0.0.1", one.port))) as client:
        client.settimeout(0.2)
        began_s = time.monotonic()

        def is_closed() -> bool:
            try:
                client.sendall(b"G")
                return client.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_until(is_closed, "hung up on", REQUEST_S + 5)
        assert REQUEST_S - 1 < time.monotonic() - began_s < REQUEST_S + 4


def test_responses_are_compressed_for_who_takes_that(monitor: StartMonitor) -> None:
    one = monitor()
    for accepted, encoding in (("gzip, deflate", "gzip"), ("gzip;q=0", None), ("identity", None)):
        answer = one.get("/metrics", **{"Accept-Encoding": accepted})
        assert answer.headers.get("Content-Encoding") == encoding
        assert "qjsupervisor_up 1.0" in answer.text


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
        server = Server(loop, ("::1", 0), lambda _request, reply: reply(plain(HTTPStatus.OK, "ok")))
        assert server.port > 0
        server.close()
        assert loop.watched == 0


def test_one_answer_of_the_master_serves_all_of_a_moment(tmp_path: Path, clock: FakeClock) -> None:
    with Loop(clock) as loop:
        path = str(tmp_path / "c.sock")
        with closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(path)
            listener.listen()
            link = MasterLink(loop, path, clock)
            heard: list[Said] = []
            for _ in range(3):
                link.get(heard.append)
            client, _ = listener.accept()
            with closing(client):
                while not select.select([client], [], [], 0)[0]:
                    loop.turn(0.1)
                assert json.loads(client.recv(100)) == {"do": "status"}
                client.sendall(b'{"ok": true, "status": {"n": 1}}\n')
                while len(heard) < 3:
                    loop.turn(1)
            link.get(heard.append)
            assert [said.status for said in heard] == [{"n": 1}] * 4
            assert not select.select([listener], [], [], 0)[0]
            clock.advance(FRESH_S + 0.1)
            link.get(heard.append)
            assert select.select([listener], [], [], 1)[0]
            link.close()
