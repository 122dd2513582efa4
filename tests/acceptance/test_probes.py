"""Probes of an orchestrator during a reload that replaces every worker, beside clients that take up the monitor.

With more databases: QJS_PROBED_DATABASES=200.
"""

from __future__ import annotations

import http.client
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from qjsupervisor.testing import schema
from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import StandInFactory, SupervisorFactory
from ..helpers import Supervisor, odoo_conf, wait_until
from ..scripted import unused_port

_log = logging.getLogger(__name__)
DATABASES = int(os.environ.get("QJS_PROBED_DATABASES", "30"))
CLIENTS = 100
#: An orchestrator's usual time-out.
LIMIT_S = 1.0
#: What is asked, and what may be said while workers are on their way.
PROBES = {"/livez": {200}, "/readyz": {200}, "/healthz": {200, 503}}


@pytest.fixture
def cluster() -> Iterator[ThrowawayPostgres]:
    settings: dict[str, str | int] = {"max_connections": 3 * DATABASES + 50, "fsync": "off"}
    with ThrowawayPostgres(settings=settings) as cluster:
        cluster.create_database("a_template")
        with closing(cluster.connect("a_template")) as connection:
            schema.install(connection)
        cluster.make_template("a_template")
        for number in range(DATABASES):
            cluster.create_database(f"shop{number:03}", "a_template")
        yield cluster


def ask(port: int, path: str) -> tuple[int, float]:
    """(status, seconds until it was read whole)."""
    began_s = time.monotonic()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
    return answer.status, time.monotonic() - began_s


class Crowd:
    """Clients that take up the monitor: half of them send a byte now and then, of a head that never ends."""

    def __init__(self, port: int, size: int) -> None:
        self._port = port
        self._clients = [self._client() for _ in range(size)]

    def _client(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self._port))
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        return client

    def dribble(self) -> None:
        """A byte more; those that were hung up on come again."""
        for number in range(0, len(self._clients), 2):
            if not self._says_more(self._clients[number]):
                self._clients[number].close()
                self._clients[number] = self._client()

    @staticmethod
    def _says_more(client: socket.socket) -> bool:
        try:
            client.sendall(b"x")
        except OSError:
            return False
        return True

    def close(self) -> None:
        for client in self._clients:
            client.close()


def replaced(running: Supervisor, former: dict[str, int]) -> bool:
    now = running.pids()
    return len(now) == DATABASES and not {*now.values()} & {*former.values()}


@pytest.mark.timeout(120 + DATABASES)
def test_each_probe_is_answered_in_time_while_all_workers_are_replaced(
    cluster: ThrowawayPostgres, stand_in: StandInFactory, supervisor: SupervisorFactory
) -> None:
    odoo, port = stand_in(cluster), unused_port()

    def conf(connect_timeout: int) -> str:
        own = {"monitor": f"127.0.0.1:{port}", "connect_timeout": connect_timeout}
        return odoo_conf(cluster, odoo.port, sections={"qjsupervisor": own})

    running = supervisor(conf(5))
    names = [f"shop{number:03}" for number in range(DATABASES)]
    running.wait_ready(*names, timeout_s=30 + DATABASES / 2)
    running.wait_for("monitor_started")
    wait_until(lambda: ask(port, "/readyz")[0] == 200, "it is ready, as the orchestrator sees it")
    former = running.pids()
    with closing(Crowd(port, CLIENTS)) as crowd:
        running.write_conf(conf(6))
        assert running.run("reload").returncode == 0
        took_s: dict[str, list[float]] = {path: [] for path in PROBES}

        def is_over() -> bool:
            crowd.dribble()
            for path, expected in PROBES.items():
                status, seconds = ask(port, path)
                assert status in expected, path
                took_s[path].append(seconds)
            return len(took_s["/livez"]) >= 10 and replaced(running, former)

        wait_until(is_over, "all workers were replaced", 60 + DATABASES / 2)
    asked = sum(map(len, took_s.values()))
    _log.info("%d probes, the slowest took %.3f s", asked, max(map(max, took_s.values())))
    for path, each in took_s.items():
        assert max(each) < LIMIT_S, (path, sorted(each)[-3:])
