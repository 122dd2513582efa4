"""When a supervisor that does not answer is restarted, and when not."""

from __future__ import annotations

from qjsupervisor.commands.eventlistener import Watch

from ..helpers import FakeClock


def watched(clock: FakeClock) -> tuple[Watch, list[str]]:
    reasons: list[str] = []
    return Watch(25.0, reasons.append, clock), reasons


def test_a_busy_one_is_left_alone(clock: FakeClock) -> None:
    watch, reasons = watched(clock)
    for answers in (True, False, False, False, False, True, False, False, False, False):
        clock.advance(5)
        watch.look(answers)
    assert reasons == []


def test_one_that_is_silent_is_restarted_once_and_has_its_time_again(clock: FakeClock) -> None:
    watch, reasons = watched(clock)
    for _ in range(9):
        clock.advance(5)
        watch.look(False)
    assert reasons == ["no answer for 25 s"]
    clock.advance(5)
    watch.look(False)
    assert len(reasons) == 2


def test_one_that_was_just_started_has_all_its_time(clock: FakeClock) -> None:
    watch, reasons = watched(clock)
    clock.advance(1000)
    watch.begin()
    clock.advance(5)
    watch.look(False)
    assert reasons == []
