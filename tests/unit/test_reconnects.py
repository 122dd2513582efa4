"""When a porter connects again: a few at a time, and one while the server is down."""

from __future__ import annotations

from typing import Any

import pytest

from qjsupervisor.errors import DatabaseUnavailable, ServerDown
from qjsupervisor.porter.dozer import DozeState
from qjsupervisor.porter.reconnects import AT_ONCE, AWAY_S, Reconnects
from qjsupervisor.postgres.failures import ADMIN_SHUTDOWN

from .supervised import FakeLoop


class Lost:
    """A database that has lost its connection; it notes when it was told to connect."""

    def __init__(self, name: str, connected: list[str]) -> None:
        self.name, self._connected = name, connected
        self.state, self.is_over = DozeState.LOST, False
        self.away_s: list[float] = []

    def connect(self, _now_s: float, *, waits: bool) -> None:
        assert not waits
        self.state = DozeState.CONNECTING
        self._connected.append(self.name)

    def say_away(self, for_s: float) -> None:
        self.away_s.append(for_s)


def stand(count: int) -> tuple[Any, FakeLoop, list[Any], list[str]]:
    loop, connected = FakeLoop(), list[str]()
    lost: list[Any] = [Lost(str(number), connected) for number in range(count)]
    reconnects = Reconnects(loop)  # type: ignore[arg-type]
    for each in lost:
        reconnects.add(each, 0.0)
    return reconnects, loop, lost, connected


def test_a_few_at_a_time() -> None:
    reconnects, loop, lost, connected = stand(AT_ONCE + 3)
    loop.run_until(0.0)
    assert len(connected) == AT_ONCE
    lost[0].state = DozeState.HOLDING
    reconnects.settled(lost[0], 1.0)
    loop.run_until(1.0)
    assert len(connected) == AT_ONCE + 1
    lost[1].is_over = True
    reconnects.settled(lost[1], 2.0)
    loop.run_until(2.0)
    assert len(connected) == AT_ONCE + 2


def test_one_finds_out_whether_the_server_is_back() -> None:
    reconnects, loop, lost, connected = stand(4)
    loop.run_until(0.0)
    for each in lost:
        each.state = DozeState.LOST
        reconnects.failed(each, ServerDown("", "here", "refused"), 0.0)
    del connected[:]
    loop.run_until(3.0)
    assert len(connected) == 1
    lost[0].state = DozeState.HOLDING
    reconnects.settled(lost[0], 3.0)
    loop.run_until(3.0)
    assert sorted(connected) == ["0", "1", "2", "3"]


def test_who_is_refused_for_its_own_sake_waits_alone() -> None:
    reconnects, loop, lost, connected = stand(2)
    loop.run_until(0.0)
    refused = DatabaseUnavailable("0", "too many connections")
    refused.refused = True
    lost[0].state = DozeState.LOST
    reconnects.failed(lost[0], refused, 0.0)
    loop.run_until(2.0)
    assert connected == ["0", "1"]
    loop.run_until(4.0)
    assert connected == ["0", "1", "0"]


def test_who_is_over_is_left_alone() -> None:
    reconnects, loop, lost, connected = stand(2)
    lost[0].is_over = True
    reconnects.add(lost[0], 0.0, later_s=5.0)
    loop.run_until(6.0)
    assert connected == ["1"]


def holding(count: int) -> tuple[Any, FakeLoop, list[Any], list[str]]:
    reconnects, loop, dozers, connected = stand(count)
    loop.run_until(0.0)
    for each in dozers:
        each.state = DozeState.HOLDING
        reconnects.settled(each, 0.0)
    del connected[:]
    return reconnects, loop, dozers, connected


def lose(reconnects: Any, dozer: Any, at_s: float, sqlstate: str | None = ADMIN_SHUTDOWN) -> None:
    error = DatabaseUnavailable(dozer.name, "terminating connection")
    error.sqlstate, dozer.state = sqlstate, DozeState.LOST
    reconnects.failed(dozer, error, at_s)


def test_one_that_is_ended_alone_is_left_to_an_administrator() -> None:
    reconnects, loop, dozers, connected = holding(2)
    lose(reconnects, dozers[1], 1.0, None)
    dozers[1].state = DozeState.HOLDING
    lose(reconnects, dozers[0], 10.0)
    loop.run_until(10.5)
    assert (dozers[0].away_s, connected) == ([AWAY_S], [])
    loop.run_until(10.5 + AWAY_S)
    assert connected == ["0"]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("sqlstate", [ADMIN_SHUTDOWN, None], ids=["ended", "broken"])
def test_who_is_ended_with_others_is_ended_by_the_server(first: int, sqlstate: str | None) -> None:
    """Also where the server could not say so in one of the sessions, because a statement was just sent to it."""
    reconnects, loop, dozers, connected = holding(2)
    ends = [(dozers[0], ADMIN_SHUTDOWN), (dozers[1], sqlstate)]
    for number, (dozer, said) in enumerate((ends[first], ends[1 - first])):
        lose(reconnects, dozer, 10.0 + 0.4 * number, said)
    loop.run_until(11.0)
    assert dozers[0].away_s == dozers[1].away_s == []
    assert sorted(connected) == ["0", "1"]


def test_one_that_cannot_connect_says_nothing_of_the_others() -> None:
    reconnects, loop, dozers, _connected = holding(2)
    dozers[1].state = DozeState.LOST
    reconnects.add(dozers[1], 9.0)
    loop.run_until(9.9)
    lose(reconnects, dozers[1], 9.9, None)
    lose(reconnects, dozers[0], 10.0)
    loop.run_until(10.5)
    assert dozers[0].away_s == [AWAY_S]
