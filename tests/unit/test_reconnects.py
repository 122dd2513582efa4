"""When a porter connects again: a few at a time, and one while the server is down."""

from __future__ import annotations

from typing import Any

from qjsupervisor.errors import DatabaseUnavailable, ServerDown
from qjsupervisor.porter.dozer import State
from qjsupervisor.porter.reconnects import AT_ONCE, Reconnects

from .supervised import FakeLoop


class Lost:
    """A database that has lost its connection; it notes when it was told to connect."""

    def __init__(self, name: str, connected: list[str]) -> None:
        self.name, self._connected = name, connected
        self.state, self.is_over = State.LOST, False

    def connect(self, _now_s: float, *, waits: bool) -> None:
        assert not waits
        self.state = State.CONNECTING
        self._connected.append(self.name)


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
    lost[0].state = State.HOLDING
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
        each.state = State.LOST
        reconnects.failed(each, ServerDown("", "here", "refused"), 0.0)
    del connected[:]
    loop.run_until(3.0)
    assert len(connected) == 1
    lost[0].state = State.HOLDING
    reconnects.settled(lost[0], 3.0)
    loop.run_until(3.0)
    assert sorted(connected) == ["0", "1", "2", "3"]


def test_who_is_refused_for_its_own_sake_waits_alone() -> None:
    reconnects, loop, lost, connected = stand(2)
    loop.run_until(0.0)
    refused = DatabaseUnavailable("0", "too many connections")
    refused.refused = True
    lost[0].state = State.LOST
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
