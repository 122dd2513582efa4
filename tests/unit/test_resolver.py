"""In which order the addresses of a name are tried. Look-ups are in integration/test_dispatch.py."""

from __future__ import annotations

import socket
import time

import pytest

from qjsupervisor.odoo.request import Address
from qjsupervisor.odoo.resolver import AVOIDED_S, FRESH_S, Resolver

from ..helpers import FakeClock

FOUR = [Address(socket.AF_INET, (f"10.0.0.{n}", 80)) for n in (1, 2, 3)]
SIX = [Address(socket.AF_INET6, ("fd00::1", 80, 0, 0))]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock(time.monotonic())
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def make(monkeypatch: pytest.MonkeyPatch, addresses: list[Address]) -> Resolver:
    """As if looked up just now; a number needs no thread."""
    found = [(a.family, socket.SOCK_STREAM, 6, "", a.sockaddr) for a in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: found)
    return Resolver("localhost", 80, -1)


def order(made: Resolver) -> list[Address]:
    found = made.addresses()
    assert found is not None
    return found


def test_each_address_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(monkeypatch, FOUR)
    firsts = [order(made)[0] for _ in range(6)]
    assert firsts == FOUR * 2
    assert sorted(order(made)) == sorted(FOUR)


def test_the_other_family_is_for_need_only(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(monkeypatch, SIX + FOUR)
    assert {order(made)[0] for _ in range(6)} == set(SIX)
    made.note_reached(FOUR[0], SIX)
    assert {order(made)[0] for _ in range(6)} == set(FOUR)
    assert order(made)[-1] == SIX[0]


def test_one_request_tries_an_address_again(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    made = make(monkeypatch, FOUR[:2])
    made.note_reached(FOUR[1], FOUR[:1])
    assert {order(made)[0] for _ in range(4)} == {FOUR[1]}
    clock.advance(AVOIDED_S + 1)
    assert [order(made)[0] for _ in range(6)].count(FOUR[0]) == 1
    made.note_reached(FOUR[0], [])
    assert {order(made)[0] for _ in range(2)} == set(FOUR[:2])


def test_a_name_is_looked_up_again_after_a_while_and_not_for_each_job(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """Containers that were added to a service, or moved."""
    asked: list[object] = []
    reader, writer = socket.socketpair()
    with reader, writer:
        made = Resolver("odoo.internal", 80, writer.fileno())

        def look_up(addresses: list[Address]) -> None:
            found = [(a.family, socket.SOCK_STREAM, 6, "", a.sockaddr) for a in addresses]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: asked.append(1) or found)
            assert made.addresses() is None
            assert len(reader.recv(8)) == 8

        look_up(FOUR[:1])
        assert [order(made) for _ in range(5)] == [FOUR[:1]] * 5
        clock.advance(FRESH_S - 1)
        assert order(made) == FOUR[:1]
        assert len(asked) == 1
        clock.advance(2)
        look_up(FOUR)
        assert {order(made)[0] for _ in range(3)} == set(FOUR)
        assert len(asked) == 2


def test_all_are_tried_where_none_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(monkeypatch, FOUR)
    made.note_reached(None, FOUR)
    assert sorted(order(made)) == sorted(FOUR)
