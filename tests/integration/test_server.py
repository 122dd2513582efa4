"""The monitor's server: slow, many and hostile clients."""

from __future__ import annotations

import socket
import time
from contextlib import closing, suppress

import psutil
import pytest
import requests

from qjsupervisor.monitor.server import MAX_OF_ADDRESS, REQUEST_S

from ..helpers import wait_until
from .monitored import StartMonitor


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
