"""The workers of all databases step by step: lives, deaths and the end."""

from __future__ import annotations

import math
import signal

import pytest

from qjsupervisor.backoff import GIVE_UP_S
from qjsupervisor.master.fleet import LATE_S
from qjsupervisor.states import EXIT_GONE, WorkerState
from tests.unit.supervised import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_new_life_waits_until_the_table_knows_of_the_death(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.hear("a", {"is": "read"}, {"is": "ready"})
    first = rig.child("a")
    rig.table.busy = 3
    rig.reap("a", -9)
    rig.step(5)
    assert rig.child("a") is first, "the table's lock is still taken"
    assert rig.loop.next_s() <= rig.now_s + 0.05
    for _ in range(3):
        rig.step(0.05)
    assert ("after_death", 0) in rig.table.calls
    assert rig.child("a") is not first


def test_a_worker_whose_last_words_we_cannot_take_is_started_again() -> None:
    errors: list[Exception] = []
    rig = Rig(on_error=errors.append)
    rig.scan(a="ready")
    first = rig.child("a")
    first.pipe.said.append(ValueError("a bug"))
    rig.reap("a", -9)
    assert [str(each) for each in errors] == ["a bug"]
    rig.step(5)
    assert rig.child("a") is not first


def test_places_are_given_again_only_when_the_table_let_go(rig: Rig) -> None:
    rig = Rig(slots=1)
    rig.scan(a="ready")
    rig.scan(b="ready")
    assert rig.rescan.unserved == {"b": "max_databases = 1, or what ulimit -n allows, are served already"}
    rig.table.busy = 1
    rig.reap("a", 0)
    rig.scan(b="ready")
    assert rig.workers() == ["b"]
    assert rig.rescan.unserved == {}


def test_permits_of_a_database_nobody_can_read_are_given_up_once_and_said(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.hear("a", {"is": "read"}, {"is": "ready"})
    for _ in range(30):
        rig.reap("a", 70)
        rig.step(rig.fleet.workers["a"].due_s - rig.now_s)
    assert rig.now_s > 1000 + 10 * GIVE_UP_S
    assert rig.table.calls.count(("give_up", 0)) == 1


def test_nothing_is_given_up_while_a_process_could_be_about_to_read(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.hear("a", {"is": "read"}, {"is": "ready"})
    rig.reap("a", 70)
    rig.step(2)
    for _ in range(3):
        rig.step(GIVE_UP_S)
    assert ("give_up", 0) not in rig.table.calls


def test_a_stuck_owner_of_the_lock_is_killed(rig: Rig) -> None:
    rig.scan(a="ready", b="ready")
    rig.table.owner = rig.child("b").pid
    rig.step(1)
    assert rig.child("b").signals == [signal.SIGKILL]
    assert rig.child("a").signals == []
    rig.reap("b", -9)
    assert "held the shared table's lock" in (rig.fleet.workers["b"].last_error or "")


def test_heartbeats_are_looked_at_each_second_and_only_while_somebody_lives(rig: Rig) -> None:
    assert rig.loop.next_s() == math.inf
    rig.scan(a="ready")
    assert rig.loop.next_s() == rig.now_s + 1
    rig.table.ages_s[0] = 31
    for _ in range(40):
        rig.step(1)
    assert rig.child("a").signals[0] == signal.SIGABRT


def test_a_master_that_slept_blames_nobody(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.hear("a", {"is": "ready"})
    rig.table.ages_s[0] = 120
    rig.step(120)
    assert rig.child("a").signals == []
    rig.table.ages_s[0] = 1
    for _ in range(10):
        rig.step(1)
    assert rig.child("a").signals == []
    rig.table.ages_s[0] = 31
    rig.step(1)
    assert rig.child("a").signals == [signal.SIGABRT]
    assert LATE_S < 31


def test_a_database_that_is_gone_is_looked_for_but_not_in_a_circle(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.hear("a", {"is": "ready"})
    rig.reap("a", EXIT_GONE)
    assert rig.state("a") is WorkerState.FAILED
    assert 1 <= (rig.next_scan_in_s or 0) <= 1.2
    first = rig.child("a")
    rig.scan(a="ready")
    assert rig.child("a") is first
    rig.step(1.2)
    assert rig.child("a") is not first


def test_one_that_is_dropped_while_backed_off_leaves_at_once(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.reap("a", 70)
    rig.scan()
    assert rig.workers() == []
    assert rig.table.calls[-1] == ("vacate", 0)


def test_one_that_comes_back_while_it_is_dropped_stays(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.scan()
    rig.scan(a="ready")
    rig.reap("a", 0)
    rig.step()
    assert rig.state("a") is WorkerState.STARTING
    assert ("vacate", 0) not in rig.table.calls
