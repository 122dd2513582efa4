"""Calls on the table that are retried while its lock is taken."""

from __future__ import annotations

import math

from qjsupervisor.loop import Timers
from qjsupervisor.master.table_calls import RETRY_S, RetriedCalls


class Call:
    """Says False a few times."""

    def __init__(self, busy: int = 0) -> None:
        self.busy = busy
        self.count = 0

    def __call__(self) -> bool:
        self.count += 1
        return self.count > self.busy


def test_one_that_works_is_over_at_once() -> None:
    timers = Timers()
    calls = RetriedCalls(timers)
    call = Call()
    calls.add("a", call)
    assert (call.count, "a" in calls, timers.next_s()) == (1, False, math.inf)


def test_one_that_finds_the_lock_taken_is_made_again_until_it_works() -> None:
    timers = Timers()
    calls = RetriedCalls(timers)
    call = Call(busy=3)
    calls.add("a", call)
    for turn in range(3):
        assert "a" in calls
        timers.run_due(100.0 + turn * RETRY_S)
    assert (call.count, "a" in calls, timers.next_s()) == (4, False, math.inf)


def test_a_later_call_of_the_same_key_takes_the_place_of_the_earlier() -> None:
    timers = Timers()
    calls = RetriedCalls(timers)
    first, second = Call(busy=9), Call(busy=1)
    calls.add("a", first)
    calls.add("a", second)
    timers.run_due(100.0)
    timers.run_due(101.0)
    assert (first.count, second.count) == (1, 2)


def test_a_call_may_add_the_next_one_under_its_own_key() -> None:
    """A dead worker's slot is released, then given up: the second one found the lock taken."""
    timers = Timers()
    calls = RetriedCalls(timers)
    second = Call(busy=1)

    def first() -> bool:
        calls.add("a", second)
        return True

    calls.add("a", first)
    assert "a" in calls
    timers.run_due(100.0)
    assert (second.count, "a" in calls) == (2, False)
