"""Scans step by step: what is concluded from what a scout says, and when the next one is due."""

from __future__ import annotations

import errno
import signal

import pytest

from qjsupervisor.scout.scout import SCAN_DEADLINE_S
from qjsupervisor.states import WorkerState
from tests.unit.supervised import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_follows_from_each_verdict(rig: Rig) -> None:
    rig.scan(good="ready", ill="blocked", away="unreachable", other="absent")
    assert rig.workers() == ["good"]
    assert rig.rescan.unserved == {"ill": "is blocked", "away": "is unreachable"}
    assert rig.rescan.ignored == {"other": "is absent"}
    assert rig.table.calls == [("assign", 0, "good", 1)]


def test_a_running_worker_is_ended_only_where_its_database_is_gone(rig: Rig) -> None:
    rig.scan(a="ready", b="ready", c="ready", d="ready")
    rig.scan(a="blocked", b="unreachable", c="absent")
    told = {name: rig.child(name).pipe.told for name in "abcd"}
    assert told == {"a": [], "b": [], "c": [{"do": "stop"}], "d": [{"do": "stop"}]}
    for name in "cd":
        rig.reap(name, 0)
    assert rig.workers() == ["a", "b"]
    assert [call for call in rig.table.calls if call[0] == "vacate"] == [("vacate", 2), ("vacate", 3)]


def test_what_an_unfinished_scan_did_not_say_means_nothing(rig: Rig) -> None:
    rig.scan(a="ready", b="ready")
    rig.scan(ended=False, a="ready")
    assert rig.state("b") is WorkerState.STARTING
    assert "ended early" in (rig.rescan.error or "")
    assert (rig.next_scan_in_s or 9) < 2


def test_scans_come_sooner_while_something_is_away_and_less_and_less_so(rig: Rig) -> None:
    pauses = []
    for _ in range(8):
        rig.scan(a="unreachable")
        pauses.append(rig.next_scan_in_s or 0)
        rig.now_s += pauses[-1]
    assert all(1 <= pause <= 60 for pause in pauses)
    assert pauses[5] > pauses[3] > pauses[1]
    rig.scan(a="ready")
    assert rig.next_scan_in_s == 60
    rig.scan(a="unreachable")
    assert (rig.next_scan_in_s or 9) < 2


def test_a_scan_that_hangs_is_ended_and_what_it_said_holds(rig: Rig) -> None:
    rig.rescan.begin(rig.now_s)
    scout = rig.scout
    scout.pipe.said += [{"listed": ["a"]}, {"database": "a", "verdict": "ready", "reason": None}]
    rig.loop.registered[scout.pipe](rig.now_s)
    rig.step(SCAN_DEADLINE_S)
    assert scout.signals == []
    rig.step(5)
    assert scout.signals == [signal.SIGKILL]
    rig.rescan.reaped(scout.pid, -9, rig.now_s)
    assert rig.workers() == ["a"]
    assert not rig.rescan.has_listed


def test_a_request_during_a_scan_is_followed_by_another_scan(rig: Rig) -> None:
    rig.rescan.begin(rig.now_s)
    first = rig.scout
    rig.rescan.request(rig.now_s)
    rig.rescan.reaped(first.pid, 0, rig.now_s)
    rig.step()
    assert rig.scout is not first


def test_no_process_for_a_scan(rig: Rig) -> None:
    rig.spawner.error = OSError(errno.ENOMEM, "Cannot allocate memory")
    rig.rescan.begin(rig.now_s)
    assert not rig.rescan.is_running
    assert 1 <= (rig.next_scan_in_s or 0) <= 1.2
    rig.step(2)
    assert rig.rescan.is_running


def test_the_barrier_knows_what_could_not_be_reached(rig: Rig) -> None:
    rig.scan(a="ready", away="unreachable")
    assert rig.rescan.unreachable == {"away": "is unreachable"}
    assert (rig.next_scan_in_s or 9) <= 0.5, "the others wait for it"
    rig.table.open_start_barrier()
    rig.scan(a="ready", away="unreachable")
    assert (rig.next_scan_in_s or 0) > 0.5
    rig.scan(a="ready", away="ready")
    assert rig.rescan.unreachable == {}
