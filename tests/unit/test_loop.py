"""The loop: what is called, when, and what is not called any more."""

from __future__ import annotations

import math
import os
import selectors
import time
from collections.abc import Iterator

import pytest

from qjsupervisor.loop import RETRY_S, Alarm, Deadline, Loop, Timers

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    made = Loop(clock)
    yield made
    made.close()


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    """Three pipes with something to read in each."""
    made = [os.pipe() for _ in range(3)]
    for _reader, writer in made:
        os.write(writer, b"x")
    yield made
    for fd in {fd for pair in made for fd in pair}:
        os.close(fd)


# -- descriptors -------------------------------------------------------------------------------------------------


def test_a_ready_descriptor_is_called_with_the_moment(loop: Loop, clock: Clock, pipes: list[tuple[int, int]]) -> None:
    calls: list[float] = []
    loop.register(pipes[0][0], READ, calls.append)
    assert loop.turn()
    assert calls == [clock.now_s]
    loop.unregister(pipes[0][0])
    assert not loop.turn(0)
    assert len(calls) == 1


def test_what_was_removed_in_the_same_turn_is_not_called(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """Two connections of a worker end at once: the first one's callback closes both."""
    calls: list[int] = []
    readers = [reader for reader, _ in pipes]

    def end(reader: int) -> None:
        calls.append(reader)
        for each in readers:
            loop.unregister(each)

    for reader in readers:
        loop.register(reader, READ, lambda _now_s, reader=reader: end(reader))
    loop.turn()
    assert len(calls) == 1


def test_a_number_that_is_used_again_is_another_descriptor(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """The first callback closes the others' descriptor, and a new one gets its number: the old event is not its."""
    first, second = pipes[0][0], pipes[1][0]
    old: list[float] = []
    new: list[float] = []

    def replace(other: int) -> None:
        for each in (first, second):
            loop.unregister(each)
        reader, writer = os.pipe()  # nothing to be read there
        os.dup2(reader, other)
        os.close(reader)
        loop.register(other, READ, new.append)
        writers.append(writer)

    writers: list[int] = []
    loop.register(first, READ, lambda now_s: (old.append(now_s), replace(second))[0])
    loop.register(second, READ, lambda now_s: (old.append(now_s), replace(first))[0])
    loop.turn()
    assert len(old) == 1
    assert new == []
    assert not loop.turn(0)
    os.write(writers[0], b"x")
    assert loop.turn(0)
    assert len(new) == 1
    os.close(writers[0])


def test_what_was_changed_in_the_same_turn_waits_for_its_next_event(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    readers = [reader for reader, _ in pipes[:2]]
    former: list[float] = []
    later: list[float] = []

    def change(now_s: float) -> None:
        former.append(now_s)
        for reader in readers:
            loop.modify(reader, READ, later.append)

    for reader in readers:
        loop.register(reader, READ, change)
    loop.turn()
    assert (len(former), len(later)) == (1, 0)
    loop.turn()
    assert (len(former), len(later)) == (1, 2)


def test_a_callback_that_raises_ends_a_loop_that_does_not_survive(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    def fail(_now_s: float) -> None:
        raise IndexError("between two looks")

    loop.register(pipes[0][0], READ, fail)
    with pytest.raises(IndexError):
        loop.turn()


def test_a_callback_that_raises_is_survived_and_rests(clock: Clock, pipes: list[tuple[int, int]]) -> None:
    errors: list[Exception] = []
    loop = Loop(clock, errors.append)
    others: list[float] = []

    def fail(_now_s: float) -> None:
        raise IndexError("between two looks")

    loop.register(pipes[0][0], READ, fail)
    loop.register(pipes[1][0], READ, others.append)
    for _ in range(3):
        loop.turn()
    assert (len(errors), len(others)) == (1, 3), "it rests, the others go on"
    clock.now_s += RETRY_S
    loop.turn(0)
    loop.turn(0)
    assert len(errors) == 2
    loop.unregister(pipes[0][0])
    clock.now_s += RETRY_S
    loop.turn(0)
    loop.turn(0)
    assert len(errors) == 2, "removed while it rested"
    loop.modify(pipes[1][0], READ, fail)
    loop.turn()
    loop.modify(pipes[1][0], READ, others.append)
    assert loop.turn(0), "changed while it rested: called at once"
    loop.close()


# -- timers ------------------------------------------------------------------------------------------------------


def test_timers_are_called_in_order_once_and_not_early() -> None:
    timers = Timers()
    calls: list[str] = []
    timers.call_at(12.0, lambda _: calls.append("b"))
    timers.call_at(11.0, lambda _: calls.append("a"))
    timers.call_at(12.0, lambda _: calls.append("c"))
    timers.call_at(13.0, lambda _: calls.append("d"))
    assert timers.next_s() == 11.0
    timers.run_due(10.9)
    assert calls == []
    timers.run_due(12.0)
    assert calls == ["a", "b", "c"]
    timers.run_due(12.0)
    assert calls == ["a", "b", "c"]
    assert timers.next_s() == 13.0


def test_a_cancelled_timer_is_not_called_nor_waited_for() -> None:
    timers = Timers()
    calls: list[str] = []
    handle = timers.call_at(11.0, lambda _: calls.append("a"))
    timers.call_at(10.0, lambda _: second.cancel())
    second = timers.call_at(10.0, lambda _: calls.append("b"))
    handle.cancel()
    handle.cancel()
    timers.run_due(20.0)
    assert calls == []
    assert math.isinf(timers.next_s())


def test_what_a_timer_adds_waits_for_the_next_turn() -> None:
    """Or two that call each other would never let the descriptors have their turn."""
    timers = Timers()
    calls: list[float] = []

    def again(now_s: float) -> None:
        calls.append(now_s)
        timers.call_at(now_s, again)

    timers.call_at(10.0, again)
    timers.run_due(10.0)
    assert calls == [10.0]
    assert timers.next_s() == 10.0


def test_timers_that_are_moved_for_ever_take_no_room() -> None:
    timers = Timers()
    rung: list[float] = []
    alarm = Alarm(timers, rung.append)
    for moment in range(10_000):
        alarm.set(100.0 + moment)
    assert timers.kept < 200
    timers.run_due(10_098.0)
    assert rung == []
    timers.run_due(10_099.0)
    assert rung == [10_099.0]


def test_a_timer_that_raises_is_called_again() -> None:
    """A watch that failed once goes on watching."""
    errors: list[Exception] = []
    timers = Timers(errors.append)
    calls: list[float] = []

    def fail_once(now_s: float) -> None:
        calls.append(now_s)
        if len(calls) == 1:
            raise ValueError("once")

    timers.call_at(10.0, fail_once)
    timers.run_due(10.0)
    assert (len(errors), timers.next_s()) == (1, 10.0 + RETRY_S)
    timers.run_due(10.0 + RETRY_S)
    timers.run_due(20.0)
    assert len(calls) == 2


def test_an_alarm_is_set_moved_and_cleared() -> None:
    timers = Timers()
    rung: list[float] = []
    alarm = Alarm(timers, rung.append)
    alarm.set(15.0)
    alarm.set_earlier(20.0)
    assert alarm.at_s == 15.0
    alarm.set_earlier(12.0)
    timers.run_due(12.0)
    assert rung == [12.0]
    assert math.isinf(alarm.at_s)
    alarm.set(16.0)
    alarm.clear()
    alarm.set(math.inf)
    timers.run_due(100.0)
    assert rung == [12.0]


def test_an_alarm_whose_callback_raised_can_still_be_cleared_and_set() -> None:
    errors: list[Exception] = []
    timers = Timers(errors.append)

    def fail(_now_s: float) -> None:
        raise ValueError

    alarm = Alarm(timers, fail)
    alarm.set(10.0)
    timers.run_due(10.0)
    alarm.clear()
    timers.run_due(50.0)
    assert len(errors) == 1
    alarm.set(60.0)
    timers.run_due(60.0)
    alarm.set(70.0)
    timers.run_due(69.0)
    assert len(errors) == 2, "the retry gave way to the new moment"


def test_a_deadline_stays_due_until_it_is_set_or_cleared() -> None:
    """For who looks at it in turns: what rang is not forgotten, and does not ring again."""
    timers = Timers()
    rung: list[float] = []
    deadline = Deadline(timers, rung.append)
    deadline.set(10.0)
    assert not deadline.is_due
    timers.run_due(10.0)
    assert (deadline.is_due, deadline.at_s, rung) == (True, math.inf, [10.0])
    deadline.set_earlier(5.0)
    deadline.set_if_idle(20.0)
    assert (deadline.is_due, timers.next_s()) == (True, math.inf), "it is due already"
    deadline.set(20.0)
    assert not deadline.is_due
    deadline.set_if_idle(30.0)
    deadline.set_earlier(25.0)
    assert deadline.at_s == 20.0
    deadline.set_earlier(15.0)
    assert timers.next_s() == 15.0
    deadline.ring()
    assert (deadline.is_due, timers.next_s()) == (True, math.inf)
    deadline.clear()
    assert not deadline.is_due
    deadline.set_if_idle(30.0)
    assert timers.next_s() == 30.0


def test_the_loop_wakes_for_a_timer() -> None:
    loop = Loop()
    rung: list[float] = []
    loop.call_at(time.monotonic() + 0.02, rung.append)
    while not rung:
        assert not loop.turn()
    loop.close()
