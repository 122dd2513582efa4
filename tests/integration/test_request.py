"""One request against a server that answers whatever comes to its mind."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from qjsupervisor.odoo.request import MAX_HEAD_BYTES, Address, End, Request, RequestOutcome
from qjsupervisor.odoo.target import tls_context

from ..scripted import Script, black_hole, reset, say, say_and_keep, serving, silence, unused_port

PAYLOAD = b"GET /queue_job/runjob?db=d&job_uuid=u HTTP/1.1\r\nHost: odoo\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def local(port: int) -> Address:
    return Address(socket.AF_INET, ("127.0.0.1", port))


def drive(request: Request, *, to_the_end: bool = False, timeout_s: float = 30.0) -> RequestOutcome:
    """Step it as a worker's loop does, until its outcome is known (or all of the answer has come)."""
    if request.sock is None:
        request.begin()
    deadline_s = time.monotonic() + timeout_s
    while request.outcome is None or (to_the_end and request.events):
        left_s = deadline_s - time.monotonic()
        assert left_s > 0, f"no outcome within {timeout_s} s"
        assert request.sock is not None
        assert request.events
        reads, writes = ([request.sock], []) if request.events == select.EPOLLIN else ([], [request.sock])
        if any(select.select(reads, writes, [], left_s)):
            request.step()
    request.close()
    return request.outcome


def ask(port: int, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> RequestOutcome:
    return drive(Request(PAYLOAD, [local(port)], host, context))


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (say(OK), 200),
        (say(*(bytes([byte]) for byte in OK)), 200),
        (say(b"HTTP/1.1 200\r\n\r\n"), 200),
        (say_and_keep(b"HTTP/1.0 200 OK\nContent-Length: 0\n\n"), 200),
        (say_and_keep(b"HTTP/1.1 103 Early Hints\n\nHTTP/1.1 404\nX: y\r\n\n"), 404),
        (say(b"HTTP/1.0 500 INTERNAL SERVER ERROR\r\nContent-Type: text/html\r\n\r\n<html>", b"</html>"), 500),
        (say(b"HTTP/1.1 303 SEE OTHER\r\nLocation: /web/database/selector\r\nContent-Length: 0\r\n\r\n"), 303),
        (say(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n" + OK), 200),
        (say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n"), 404),
        (say(b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 502),
        (say(b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD_BYTES - 100) + b"\r\n\r\n"), 200),
        (say_and_keep(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"), 200),
        (say(b"HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n"), 200),
        (say(b"HTTP/1.1 200 OK\r\nX: \xff\xfe\x00\r\n\r\n"), 200),
    ],
)
def test_an_answer_is_its_status(script: Script, status: int) -> None:
    with serving(script) as server:
        assert ask(server.port) == RequestOutcome(End.ANSWERED, status, f"HTTP {status}")
        assert server.requests == [PAYLOAD]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (say(), "closed without an answer"),
        (say(b"HTTP/1.0 200 OK\r\nContent-Le"), "closed without an answer"),
        (say(b"HTTP/1.1 100 Continue\r\n\r\n"), "closed without an answer"),
        (say(b"HT"), "closed without an answer"),
        (reset, "reset by peer"),
        (say_and_keep(b"SSH-2.0-OpenSSH_9.2\r\n"), "not HTTP"),
        (say_and_keep(b"\x15\x03\x01\x00\x02\x02\x16"), "not HTTP"),
        (say(b"HTTP/1.1 2000 OK\r\n\r\n"), "not HTTP"),
        (say(b"HTTP/1.1 -20 OK\r\n\r\n"), "not HTTP"),
        (say(b"HTTP/2.0 200 OK\r\n\r\n"), "not HTTP"),
        (say(b"ICY 200 OK\r\n\r\n"), "not HTTP"),
        (say_and_keep(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2 * MAX_HEAD_BYTES), "has no end"),
        (say_and_keep(b"HTTP/1.1 102 Processing\r\n\r\n" * 4000), "has no end"),
    ],
)
def test_no_answer_is_lost(script: Script, reason: str) -> None:
    """The whole request was sent, so somebody may run the job: the row decides."""
    with serving(script) as server:
        outcome = ask(server.port)
    assert (outcome.end, outcome.status) == (End.LOST, None)
    assert reason in outcome.reason


def test_the_body_of_lines_in_lf_is_read_to_its_end() -> None:
    """Its length is known: the connection is closed when it is complete, though the server keeps it open."""
    with serving(say_and_keep(b"HTTP/1.1 500 X\nContent-Length: 5\n\n12345")) as server:
        began_s = time.monotonic()
        assert drive(Request(PAYLOAD, [local(server.port)], "127.0.0.1", None), to_the_end=True).status == 500
        assert time.monotonic() - began_s < 2


def test_body_is_waited_for_and_no_longer() -> None:
    """The outcome is known by the head; the server still gets to write what it promised."""
    written = threading.Event()

    def slowly(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 500 X\r\ncontent-length: 10\r\n\r\n12345")
        threading.Event().wait(0.1)
        connection.sendall(b"67890")
        written.set()
        connection.recv(1)

    with serving(slowly) as server:
        outcome = drive(Request(PAYLOAD, [local(server.port)], "127.0.0.1", None), to_the_end=True)
        assert outcome.status == 500
        assert written.wait(5)


def test_refused_is_unasked() -> None:
    outcome = ask(unused_port())
    assert (outcome.end, outcome.reason) == (End.UNASKED, "Connection refused")


def test_no_address_is_unasked() -> None:
    assert drive(Request(PAYLOAD, [], "nowhere", None)).end is End.UNASKED


@pytest.mark.parametrize("tls", [False, True])
def test_next_address_is_tried(tls: bool, authority: Authority) -> None:
    """Also where it is the first byte that is refused, and not the connection."""
    with serving(say(OK), authority.server("localhost") if tls else None) as server:
        addresses = [local(unused_port()), Address(socket.AF_INET6, ("::1", server.port)), local(server.port)]
        request = Request(PAYLOAD, addresses, "localhost", authority.client if tls else None)
        assert drive(request).status == 200
        assert request.address == local(server.port)


def test_next_address_after_a_black_hole() -> None:
    with serving(say(OK)) as server, black_hole() as hole:
        request = Request(PAYLOAD, [local(hole), local(server.port)], "127.0.0.1", None)
        request.begin()
        assert request.sock is not None
        assert not select.select([], [request.sock], [], 0.1)[1], "the black hole took the connection"
        assert request.connecting
        assert request.go_elsewhere()
        assert request.address == local(server.port)
        assert not request.go_elsewhere()
        request.close()


def test_giving_up() -> None:
    with serving(silence) as server, black_hole() as hole:
        for port, end in ((hole, End.UNASKED), (server.port, End.LOST)):
            request = Request(PAYLOAD, [local(port)], "127.0.0.1", None)
            request.begin()
            assert request.asked is (end is End.LOST)
            request.give_up("too long")
            assert request.outcome == RequestOutcome(end, None, "too long")
            assert request.events == 0
            request.close()


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.file)

    @property
    def client(self) -> ssl.SSLContext:
        return tls_context(str(self.file))

    def server(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*names).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    yield Authority(tmp_path_factory.mktemp("authority"))
    tls_context.cache_clear()


def test_tls_with_a_known_authority(authority: Authority) -> None:
    with serving(say(OK), authority.server("odoo.test")) as server:
        assert ask(server.port, authority.client, "odoo.test").status == 200
        assert server.requests == [PAYLOAD]


def test_large_head_over_tls(authority: Authority) -> None:
    """It comes in several records, the last of which the socket no longer announces."""
    head = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 50_000 + b"\r\n\r\n"
    with serving(say(head), authority.server("odoo.test")) as server:
        assert ask(server.port, authority.client, "odoo.test").status == 200


@pytest.mark.parametrize(
    ("certified", "known", "reason"),
    [
        ("odoo.test", False, "self-signed certificate in certificate chain|unable to get local issuer"),
        ("other.test", True, "odoo.test"),
    ],
)
def test_tls_that_proves_nothing(
    certified: str, known: bool, reason: str, authority: Authority, tmp_path: Path
) -> None:
    """Nothing is sent, so nobody was asked."""
    other = authority if known else Authority(tmp_path)
    with serving(say(OK), authority.server(certified)) as server:
        outcome = ask(server.port, other.client, "odoo.test")
        assert outcome.end is End.UNASKED
        assert outcome.reason.startswith("TLS: ")
        assert any(part in outcome.reason for part in reason.split("|"))
        assert server.requests == []


def test_https_to_an_http_port(authority: Authority) -> None:
    """To a server that talks at once, and not TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        request = Request(PAYLOAD, [local(listener.getsockname()[1])], "odoo.test", authority.client)
        request.begin()
        connection, _ = listener.accept()
        connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        outcome = drive(request)
        connection.close()
    assert outcome.end is End.UNASKED
    assert outcome.reason.startswith("TLS: ")
