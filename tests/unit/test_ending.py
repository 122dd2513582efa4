"""All workers end: a few at a time, and their stacks one after the other."""

from __future__ import annotations

import signal

import pytest

from qjsupervisor.master.ending import STOP_AT_ONCE, STOP_NEXT_S
from qjsupervisor.master.worker_process import TimeLimits
from tests.unit.supervised import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_stopping_spawns_nothing_more(rig: Rig) -> None:
    rig.scan(a="ready", b="ready")
    rig.reap("b", 70)
    rig.fleet.stop_all(rig.now_s)
    rig.rescan.kill()
    assert rig.child("a").pipe.told == [{"do": "stop"}]
    rig.step(5)
    assert rig.fleet.alive == 1
    assert rig.fleet.want("c", "settings", 1, rig.now_s) == "the supervisor is stopping"
    rig.reap("a", 0)
    assert rig.fleet.alive == 0
    assert rig.next_scan_in_s is None


def test_many_workers_are_stopped_a_few_at_a_time() -> None:
    """Each database is served until it is its turn; whoever takes it over need not wait for all the others."""
    rig = Rig(slots=8)
    names = "abcdefg"
    rig.scan(a="ready", b="ready", c="ready", d="ready", e="ready", f="ready", g="ready")

    def told() -> str:
        return "".join(name for name in names if {"do": "stop"} in rig.child(name).pipe.told)

    rig.fleet.stop_all(rig.now_s)
    assert told() == names[:STOP_AT_ONCE]
    rig.reap("a", 0)
    assert told() == names[: STOP_AT_ONCE + 1]
    for more in range(2, 4):
        rig.step(STOP_NEXT_S)
        assert told() == names[: STOP_AT_ONCE + more], "however slow those before it are"


def test_all_workers_are_told_early_enough_to_end_in_time() -> None:
    rig = Rig(slots=8)
    rig.scan(a="ready", b="ready", c="ready", d="ready", e="ready", f="ready", g="ready")
    rig.fleet.replace_settings(lambda _name: "settings", TimeLimits(60, 2 * STOP_NEXT_S, 30), rig.now_s)
    rig.fleet.stop_all(rig.now_s)
    rig.step(STOP_NEXT_S)
    assert all({"do": "stop"} in rig.child(name).pipe.told for name in "abcdefg")


def test_stacks_are_asked_for_one_after_the_other_but_not_for_long(rig: Rig) -> None:
    rig.scan(a="ready", b="ready", c="ready")
    rig.fleet.abort_all(rig.now_s)
    asked = [name for name in "abc" if rig.child(name).signals]
    assert asked == ["a"]
    rig.reap("a", -6)
    assert rig.child("b").signals == [signal.SIGABRT]
    rig.step(1)
    assert rig.child("c").signals == [signal.SIGABRT]
