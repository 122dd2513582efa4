"""A child that has to be there: started, started again, replaced."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from structlog.typing import EventDict

from qjsupervisor.backoff import Backoff, RestartPolicy
from qjsupervisor.master.service import Service
from tests.unit.supervised import FakeChild, FakeLoop, FakeSpawner


def _take(message: Mapping[str, Any], _now_s: float) -> None:
    if not isinstance(message["is"], str):
        raise ValueError(message["is"])


class Rig:
    """One service at a time that the test sets."""

    def __init__(self, on_error: Callable[[Exception], None] | None = None) -> None:
        """`on_error`: takes what a callback raises, as in the master."""
        self.now_s = 1000.0
        self.spawner, self.loop = FakeSpawner(), FakeLoop(on_error)
        policy = RestartPolicy(Backoff(jitter=0))
        self.service = Service("monitor", self.spawner, self.loop, policy, take=_take)  # type: ignore[arg-type]

    def run(self) -> None:
        self.service.run(lambda _pipe: 0, self.now_s)
        self.step()

    def step(self, after_s: float = 0.0) -> None:
        self.now_s += after_s
        self.loop.run_until(self.now_s)

    @property
    def child(self) -> FakeChild:
        return self.spawner.children[-1]

    def reap(self, exit_code: int) -> None:
        assert self.service.reaped(self.child.pid, exit_code, self.now_s)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_one_that_dies_is_started_again_after_pauses_that_grow(rig: Rig) -> None:
    rig.run()
    for pause_s in (1.0, 2.0, 4.0):
        before = rig.child
        rig.reap(1)
        assert rig.service.last_error == "exit code 1"
        rig.step(pause_s - 0.1)
        assert rig.child is before
        rig.step(0.1)
        assert rig.child is not before


def test_one_whose_last_words_are_nonsense_is_started_again() -> None:
    errors: list[Exception] = []
    rig = Rig(errors.append)
    rig.run()
    former = rig.child
    former.pipe.said.append({"is": 7})
    rig.reap(1)
    assert [str(each) for each in errors] == ["7"]
    rig.step(1.0)
    assert rig.child is not former


def test_one_that_is_replaced_has_not_crashed(rig: Rig, log_events: list[EventDict]) -> None:
    """A reload that changed `monitor`: the old one ends by our signal, and the new one starts at once."""
    rig.run()
    first = rig.child
    rig.now_s += 5
    rig.run()
    assert first.signals == [signal.SIGTERM]
    assert rig.child is first
    rig.now_s += 0.3
    rig.reap(0)
    rig.step()
    assert rig.child is not first
    assert rig.service.last_error is None
    assert [each for each in log_events if each["log_level"] == "warning"] == []


def test_one_that_is_not_wanted_any_more_stays_away(rig: Rig) -> None:
    rig.run()
    rig.service.run(None, rig.now_s)
    rig.reap(0)
    rig.step(100)
    assert rig.service.pid is None
    assert rig.service.last_error is None
    assert len(rig.spawner.children) == 1


def test_no_process_for_it(rig: Rig) -> None:
    rig.spawner.error = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    rig.run()
    assert rig.service.pid is None
    assert rig.service.last_error == "no process could be started: Resource temporarily unavailable"
    rig.step(1)
    assert rig.service.pid is not None


def test_the_end_of_its_pipe_is_heard_once(rig: Rig) -> None:
    rig.run()
    rig.child.pipe.said.append(EOFError())
    rig.loop.registered[rig.child.pipe](rig.now_s)
    assert rig.loop.registered == {}
    rig.reap(0)


def test_one_with_a_listener_serves_until_its_successor_does(rig: Rig, log_events: list[EventDict]) -> None:
    rig.run()
    former = rig.child
    with socket.socket() as listener:
        rig.service.listener = listener
        rig.run()
        assert rig.child is not former
        assert former.signals == [], "it still serves"
        rig.reap(1)
        rig.step(1.0)
        assert former.signals == [], "the successor died before it served"
        rig.child.pipe.said.append({"is": "serving"})
        rig.loop.registered[rig.child.pipe](rig.now_s)
        assert former.signals == [signal.SIGTERM]
        assert rig.service.reaped(former.pid, 0, rig.now_s)
        assert former.pipe.closed
        assert rig.service.pid == rig.child.pid
    assert [each["event"] for each in log_events if each["log_level"] == "warning"] == ["service_reaped"]


def test_the_end_is_the_end_of_both(rig: Rig) -> None:
    rig.run()
    former = rig.child
    with socket.socket() as listener:
        rig.service.listener = listener
        rig.run()
        rig.service.kill()
        assert former.signals == rig.child.signals == [signal.SIGKILL]
        rig.reap(-9)
        assert rig.service.pid == former.pid
        assert rig.service.reaped(former.pid, -9, rig.now_s)
        assert rig.service.pid is None


def test_only_its_own_process_keeps_the_listener(rig: Rig) -> None:
    with socket.socket() as listener:
        rig.service.listener = listener
        kept: list[bool] = []
        spawn = rig.spawner.spawn

        def spawned(*args: Any) -> FakeChild:
            rig.service.close_in_child()
            kept.append(listener.fileno() >= 0)
            return spawn(*args)

        rig.spawner.spawn = spawned  # type: ignore[method-assign,assignment]
        rig.run()
        assert kept == [True]
        rig.service.close_in_child()
        assert listener.fileno() < 0
