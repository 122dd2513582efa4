"""The dispatcher against scripted servers, name servers that fail, and hosts that are silent."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from qjsupervisor.config.settings import TargetSettings
from qjsupervisor.odoo import dispatcher, resolver
from qjsupervisor.odoo.request import End
from qjsupervisor.odoo.target import first_turn

from ..scripted import black_hole, reset, say, serving, silence, unused_port
from .asking import OK, Asking, at


def test_what_is_sent(loops: Callable[..., Asking]) -> None:
    with serving(say(OK)) as server:
        target = TargetSettings(url=at(server.port), user="runner", password="pässwörd €:@/")
        (ended,) = loops(target, database="my db&x=%ä").ask("a-uuid")
        assert (ended.uuid, ended.outcome.end, ended.outcome.status) == ("a-uuid", End.ANSWERED, 200)
        (request,) = server.requests
    lines = request.decode("latin-1").split("\r\n")
    assert lines[0] == "GET /queue_job/runjob?db=my%20db%26x%3D%25%C3%A4&job_uuid=a-uuid HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    assert headers["Host"] == f"127.0.0.1:{server.port}"
    assert headers["X-Odoo-Database"] == "my db&x=%ä"
    assert headers["Connection"] == "close"
    kind, pair = headers["Authorization"].split(" ")
    assert (kind, base64.b64decode(pair).decode()) == ("Basic", "runner:pässwörd €:@/")


@pytest.mark.parametrize(
    ("uuid", "encoded"),
    [
        ("../../web/login", "..%2F..%2Fweb%2Flogin"),
        ("x&db=other", "x%26db%3Dother"),
        ("x#y?z", "x%23y%3Fz"),
        ("x HTTP/1.1\r\nX-Odoo-Database: other\r\n\r\n", "x%20HTTP%2F1.1%0D%0AX-Odoo-Database%3A%20other%0D%0A%0D%0A"),
        ("%2e%00", "%252e%2500"),
        ("ünï ☃", "%C3%BCn%C3%AF%20%E2%98%83"),
    ],
)
def test_a_uuid_stays_a_uuid(loops: Callable[..., Asking], uuid: str, encoded: str) -> None:
    with serving(say(OK)) as server:
        loops(at(server.port)).ask(uuid)
        (request,) = server.requests
    first, *headers = request.decode("ascii").split("\r\n")
    assert first == f"GET /queue_job/runjob?db=prod&job_uuid={encoded} HTTP/1.1"
    assert sum(line.startswith("X-Odoo-Database") for line in headers) == 1


def test_no_redirect_is_followed(loops: Callable[..., Asking]) -> None:
    with serving(say(OK)) as elsewhere:
        answer = f"HTTP/1.0 303 SEE OTHER\r\nLocation: {at(elsewhere.port)}/queue_job/runjob\r\n\r\n"
        with serving(say(answer.encode())) as server:
            (ended,) = loops(at(server.port)).ask("u")
            assert ended.outcome.status == 303
            assert (server.connections, elsewhere.connections) == (1, 0)


def test_many_at_once(loops: Callable[..., Asking]) -> None:
    """None is mixed up with another, and nothing is left behind."""
    with serving(say(OK)) as server:
        loop = loops(at(server.port))
        ended = loop.ask(*(f"job-{number}" for number in range(60)))
        assert {one.uuid for one in ended} == {f"job-{n}" for n in range(60)}
        assert loop.dispatcher.open == 0
        loop.until(lambda: loop.loop.watched == 1)  # the wake-up: no connection is left


@pytest.mark.parametrize(("script", "end"), [(say(), End.LOST), (reset, End.LOST), (say(b"\x00\r\n"), End.LOST)])
def test_no_answer(loops: Callable[..., Asking], script: Any, end: End) -> None:
    with serving(script) as server:
        assert loops(at(server.port)).ask("u")[0].outcome.end is end


def test_refused(loops: Callable[..., Asking]) -> None:
    (ended,) = loops(at(unused_port())).ask("u")
    assert (ended.outcome.end, ended.outcome.reason) == (End.UNASKED, "Connection refused")


def test_read_timeout(loops: Callable[..., Asking]) -> None:
    with serving(silence) as server:
        (ended,) = loops(at(server.port), read_timeout_s=0.3).ask("u")
        assert (ended.outcome.end, ended.outcome.reason) == (End.LOST, "no answer for 0 s")
        assert ended.duration_s >= 0.3


def test_no_read_timeout_by_default(loops: Callable[..., Asking]) -> None:
    """The connect timeout ends with the connection: a job may take hours."""
    with serving(silence) as server:
        loop = loops(at(server.port), connect_timeout_s=0.1)
        loop.dispatcher.send("u")
        loop.until(lambda: bool(server.requests))
        until_s = time.monotonic() + 0.4
        loop.until(lambda: time.monotonic() >= until_s)
        assert loop.dispatcher.open == 1
        assert loop.dispatcher.unsent() == []


def test_a_slow_answer_does_not_outlive_the_read_timeout(loops: Callable[..., Asking]) -> None:
    """A byte now and then is no answer."""

    def drip(connection: socket.socket) -> None:
        for byte in OK:
            connection.sendall(bytes([byte]))
            threading.Event().wait(0.2)

    with serving(drip) as server:
        (ended,) = loops(at(server.port), read_timeout_s=0.5).ask("u")
        assert ended.outcome.end is End.LOST


def test_a_head_has_a_time_from_its_first_byte(loops: Callable[..., Asking], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the request's start: that is the job's time; and a complete 1xx is none that has begun."""
    monkeypatch.setattr(dispatcher, "HEAD_S", 0.4)
    go_on = threading.Event()

    def slowly(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        go_on.wait(10)
        for byte in OK[:-1]:
            connection.sendall(bytes([byte]))
            threading.Event().wait(0.05)

    with serving(slowly) as server:
        loop = loops(at(server.port))
        loop.dispatcher.send("u")
        until_s = time.monotonic() + 0.8
        loop.until(lambda: time.monotonic() >= until_s)
        assert loop.dispatcher.open == 1
        go_on.set()
        (ended,) = loop.ended(timeout_s=2)
        assert (ended.outcome.end, ended.outcome.reason) == (End.LOST, "the head of the answer has no end")


def test_black_hole(loops: Callable[..., Asking]) -> None:
    with black_hole() as port:
        loop = loops(at(port), connect_timeout_s=0.3)
        loop.dispatcher.send("u")
        assert loop.dispatcher.unsent() == ["u"]
        (ended,) = loop.ended()
        assert (ended.outcome.end, ended.outcome.reason) == (End.UNASKED, "no connection in time")


def test_tls_that_never_shakes_hands(loops: Callable[..., Asking]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        loop = loops(f"https://127.0.0.1:{silent.getsockname()[1]}", connect_timeout_s=0.3)
        loop.dispatcher.send("u")
        loop.turn(0.1)
        assert loop.dispatcher.unsent() == ["u"]
        assert loop.ended()[0].outcome.end is End.UNASKED


# -- names -----------------------------------------------------------------------------------------------


def answers(monkeypatch: pytest.MonkeyPatch, found: Callable[[], list[tuple[str, int]]]) -> list[str]:
    """Replace the name server; what was asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str | bytes, port: int, **_kwargs: object) -> list[tuple[Any, ...]]:
        asked.append(host if isinstance(host, str) else host.decode())
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found()]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_unknown_host(loops: Callable[..., Asking]) -> None:
    """RFC 6761: nobody will ever have that name."""
    (ended,) = loops("http://odoo.invalid:8069", connect_timeout_s=9).ask("u")
    assert ended.outcome.end is End.UNASKED
    assert ended.outcome.reason.startswith("odoo.invalid: ")


def test_a_failed_look_up_is_shared(loops: Callable[..., Asking], monkeypatch: pytest.MonkeyPatch) -> None:
    """All who waited for it fail by it, and the next one asks again."""

    def fail() -> list[tuple[str, int]]:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    asked = answers(monkeypatch, fail)
    loop = loops("http://odoo.test:8069")
    ends = loop.ask("a", "b", "c", "d")
    assert [end.outcome.reason for end in ends] == ["odoo.test: Temporary failure in name resolution"] * 4
    assert asked == ["odoo.test"]
    later_s = time.monotonic() + resolver.FAILED_S + 0.05
    loop.until(lambda: time.monotonic() > later_s)
    loop.ask("e")
    assert asked == ["odoo.test"] * 2


def test_no_thread_to_look_a_name_up_in(loops: Callable[..., Asking], monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    (ended,) = loops("http://odoo.test:8069").ask("u")
    assert ended.outcome.end is End.UNASKED
    assert ended.outcome.reason == "odoo.test: can't start new thread"


def test_a_name_server_that_is_silent(loops: Callable[..., Asking], monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def wait() -> list[tuple[str, int]]:
        answered.wait(10)
        return []

    answers(monkeypatch, wait)
    loop = loops("http://odoo.test:8069", connect_timeout_s=0.2)
    loop.dispatcher.send("u")
    assert loop.dispatcher.unsent() == ["u"]
    (ended,) = loop.ended()
    answered.set()
    assert ended.outcome.end is End.UNASKED
    assert "name server does not answer" in ended.outcome.reason


def test_several_addresses(loops: Callable[..., Asking], monkeypatch: pytest.MonkeyPatch) -> None:
    """One refuses, one is silent, one works, which is tried first from then on."""
    with serving(say(OK)) as server, black_hole() as hole:
        addresses = [("127.0.0.1", unused_port()), ("127.0.0.1", hole), ("127.0.0.1", server.port)]
        begin = first_turn("prod") % 3
        addresses = addresses[-begin:] + addresses[:-begin] if begin else addresses
        asked = answers(monkeypatch, lambda: addresses)
        loop = loops("http://odoo.test:8069", connect_timeout_s=2.0)
        (ended,) = loop.ask("u")
        assert ended.outcome.status == 200
        assert ended.duration_s >= 2.0
        (again,) = loop.ask("v")
        assert again.outcome.status == 200
        assert again.duration_s < 2.0
        assert asked == ["odoo.test"]


def test_jobs_are_spread_over_the_addresses_of_a_name(
    loops: Callable[..., Asking], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one look-up; one address of the three refuses, and is passed over."""
    with serving(say(OK)) as one, serving(say(OK), host="127.0.0.2") as other:
        addresses = [("127.0.0.1", one.port), ("127.0.0.1", unused_port()), ("127.0.0.2", other.port)]
        asked = answers(monkeypatch, lambda: addresses)
        loop = loops("http://odoo.test:8069")
        (target,) = loop.dispatcher.targets
        target.breaker.record_success()
        for number in range(20):
            assert loop.ask(f"job-{number}")[0].outcome.status == 200
        assert {len(one.requests), len(other.requests)} <= {9, 10, 11}
        assert len(one.requests) + len(other.requests) == 20
        assert asked == ["odoo.test"]


def test_localhost_on_one_protocol_only(loops: Callable[..., Asking]) -> None:
    with serving(say(OK)) as server:
        assert loops(at(server.port, "localhost")).ask("u")[0].outcome.status == 200


# -- several targets, and their health ---------------------------------------------------------------------


def test_targets_take_turns(loops: Callable[..., Asking]) -> None:
    with serving(say(OK)) as one, serving(say(OK)) as other:
        loop = loops(at(one.port), at(other.port))
        for target in loop.dispatcher.targets:
            target.breaker.record_success()
        loop.ask(*"abcdefgh")
        assert (len(one.requests), len(other.requests)) == (4, 4)


def test_the_first_jobs_of_many_databases_are_spread(
    loops: Callable[..., Asking], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the addresses of a name, and over several targets: most databases send few jobs."""
    with serving(say(OK)) as one, serving(say(OK)) as other:
        answers(monkeypatch, lambda: [("127.0.0.1", one.port), ("127.0.0.1", other.port)])
        for number in range(40):
            loops("http://odoo.test:8069", database=f"shop_{number}").ask("job")
        assert min(len(one.requests), len(other.requests)) >= 12
        before = len(one.requests)
        for number in range(40):
            loops(at(one.port), at(other.port), database=f"shop_{number}").ask("job")
        assert 12 <= len(one.requests) - before <= 28


def test_a_target_that_is_down_is_left_out(loops: Callable[..., Asking]) -> None:
    with serving(say(OK)) as one, serving(say(OK)) as other:
        loop = loops(at(one.port), at(other.port))
        down, up = loop.dispatcher.targets
        up.breaker.record_success()
        down.breaker.failed(time.monotonic(), "HTTP 404", "99")
        loop.ask(*"abcdefgh")
        assert (len(one.requests), len(other.requests)) == (0, 8)


def test_closing_with_open_requests() -> None:
    with serving(silence) as server, black_hole() as hole:
        targets = [at(server.port), at(hole)]
        loop = Asking(*(targets[::-1] if first_turn("prod") % 2 else targets))
        loop.dispatcher.send("a")
        loop.dispatcher.send("b")
        loop.until(lambda: bool(server.requests))
        assert loop.dispatcher.unsent() == ["b"]
        loop.close()
