"""A monitor as a process, with a master that answers what the test says."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from qjsupervisor.control import Pipe

from ..helpers import REPOSITORY, wait_until
from ..scripted import unused_port

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
        self.port = unused_port()
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
        """The end of the pipe ends it in order: a process that is killed says nothing of what it covered."""
        self.pipe.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
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
