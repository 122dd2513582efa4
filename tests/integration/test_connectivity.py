"""Connectivity probes against scripted servers: an Odoo that was down is asked until it answers."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from qjsupervisor.config.settings import TargetSettings
from qjsupervisor.odoo.request import End, RequestOutcome
from qjsupervisor.states import ServerVerdict

from ..scripted import black_hole, say, serving, silence, unused_port
from .asking import OK, Asking, at


def take_down(loop: Asking, reason: str = "Connection refused") -> None:
    (target,) = loop.dispatcher.targets
    assert target.server.failed(reason, time.monotonic_ns())
    loop.dispatcher.tick(time.monotonic())


def verdicts(loop: Asking) -> list[ServerVerdict]:
    return [verdict for _target, verdict in loop.dispatcher.connectivity.verdicts]


def test_probing(loops: Callable[..., Asking]) -> None:
    """A server that was down is asked without a job, by a request that names no database, until it answers."""
    with serving(say(b"HTTP/1.0 404 NOT FOUND\r\n\r\n")) as server:
        target = TargetSettings(url=at(server.port), user="runner", password="secret")
        loop = loops(target)
        take_down(loop)
        assert loop.dispatcher.allowance(time.monotonic()) == 0
        loop.turn(0)
        assert server.connections == 0, "the pause is not over"
        loop.until(lambda: verdicts(loop) == [ServerVerdict.CAME_BACK], 5)
        loop.dispatcher.tick(time.monotonic())
        assert loop.dispatcher.allowance(time.monotonic()) > 0
        (request,) = server.requests
        assert request.startswith(b"GET /web/health HTTP/1.1\r\n")
        assert b"prod" not in request
        assert b"Authorization" not in request
        loop.until(lambda: loop.loop.watched == 1)
    assert loop.dispatcher.ended == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (say(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), "HTTP 502"),
        (say(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), "HTTP 503"),
        (say(), "closed without an answer"),
        (silence, "no answer for"),
    ],
)
def test_a_proxy_before_a_dead_odoo_is_no_answer(loops: Callable[..., Asking], script: Any, reason: str) -> None:
    with serving(script) as server:
        loop = loops(at(server.port), connect_timeout_s=0.3)
        take_down(loop)
        (target,) = loop.dispatcher.targets
        loop.until(lambda: len(verdicts(loop)) == 2)
        assert verdicts(loop) == [ServerVerdict.NOTHING] * 2
        assert target.server.is_down
        assert reason in target.server.reason


def test_probing_in_vain(loops: Callable[..., Asking]) -> None:
    """Refused again and again: at least every five seconds, and at no time in a tight loop."""
    loop = loops(at(unused_port()))
    take_down(loop)
    began_s = time.monotonic()
    loop.until(lambda: len(verdicts(loop)) == 4)
    assert 2.5 < time.monotonic() - began_s < 15
    assert loop.dispatcher.allowance(time.monotonic()) == 0
    assert loop.loop.next_s() - time.monotonic() < 5


def test_probing_a_black_hole(loops: Callable[..., Asking]) -> None:
    with black_hole() as port:
        loop = loops(at(port), connect_timeout_s=0.3)
        take_down(loop, "no connection in time")
        (target,) = loop.dispatcher.targets
        loop.until(lambda: loop.loop.watched == 2, 5)
        for _ in range(5):  # one at a time, however often the loop turns
            loop.turn(0)
        assert loop.loop.watched == 2
        loop.until(lambda: verdicts(loop) == [ServerVerdict.NOTHING])
        assert target.server.is_down
        assert loop.loop.watched == 1


def test_a_worker_without_descriptors_tells_nothing_of_its_server(
    loops: Callable[..., Asking], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(say(OK)) as server:
        loop = loops(at(server.port))
        (target,) = loop.dispatcher.targets
        monkeypatch.setattr(socket, "socket", lacks_descriptors)
        assert loop.ask("a")[0].outcome == RequestOutcome(End.UNASKED, None, "Too many open files", own=True)
        target.server.doubt()
        loop.turn(0)
        monkeypatch.undo()
        assert not target.server.is_down
        loop.until(lambda: verdicts(loop) == [ServerVerdict.NOTHING])
        assert not target.server.is_down


def lacks_descriptors(*_args: object) -> None:
    raise OSError(errno.EMFILE, "Too many open files")
