"""Scans step by step: what is concluded from what a scout says, and when the next one is due."""

from __future__ import annotations

import errno
import math
import signal

import pytest

from qjsupervisor.master.rescan import RESTING_INTERVAL_S
from qjsupervisor.scout.scout import NOT_LOOKED_AT, scan_limit_s
from qjsupervisor.states import Wakefulness, WorkerState
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
    gone = [{"do": "stop", "gone": True}]
    told = {name: rig.child(name).pipe.told for name in "abcd"}
    assert told == {"a": [], "b": [], "c": gone, "d": gone}
    for name in "cd":
        rig.reap(name, 0)
    assert rig.workers() == ["a", "b"]
    assert [call for call in rig.table.calls if call[0] == "vacate"] == [("vacate", 2), ("vacate", 3)]


def test_a_worker_is_told_that_a_module_of_its_database_is_in_transition(rig: Rig) -> None:
    """It would notice at its next claim or reconcile."""
    rig.scan(a="ready", b="ready")
    rig.rescan.request(rig.now_s)
    rig.step()
    found = {"verdict": "blocked", "reason": "module sale is 'to upgrade'"}
    rig.scout.pipe.said += [{"listed": ["a", "b"]}, {"database": "a", **found, "look": True}]
    rig.loop.registered[rig.scout.pipe](rig.now_s)
    assert {name: rig.child(name).pipe.told for name in "ab"} == {"a": [{"do": "look"}], "b": []}


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
    rig.step(scan_limit_s(1))
    assert scout.signals == []
    rig.step(5)
    assert scout.signals == [signal.SIGKILL]
    rig.rescan.reaped(scout.pid, -9, rig.now_s)
    assert rig.workers() == ["a"]
    assert not rig.rescan.has_listed


def test_very_many_databases_take_longer(rig: Rig) -> None:
    rig.rescan.begin(rig.now_s)
    for part in range(2):
        rig.scout.pipe.said += [{"listed": [f"{part}_{number}" for number in range(1000)]}]
        rig.loop.registered[rig.scout.pipe](rig.now_s)
        rig.step(1)
    rig.step(scan_limit_s(2000) - 2)
    assert rig.scout.signals == []
    rig.step(5)
    assert rig.scout.signals == [signal.SIGKILL]


def test_a_database_that_needs_no_worker_is_told_once(rig: Rig) -> None:
    told = []
    rig.rescan.on_rest = lambda database, _now_s: told.append(database)
    for _ in range(2):
        rig.rescan.request(rig.now_s)
        rig.step()
        found = {"verdict": "ready", "reason": None}
        rig.scout.pipe.said += [
            {"listed": ["a", "b"]},
            {"database": "a", **found, "rests": True},
            {"database": "b", **found},
        ]
        rig.loop.registered[rig.scout.pipe](rig.now_s)
        rig.rescan.reaped(rig.scout.pid, 0, rig.now_s)
    assert told == ["a"]
    assert rig.workers() == ["a", "b"]


def test_last_words_that_are_nonsense_do_not_end_all_scans() -> None:
    errors: list[Exception] = []
    rig = Rig(on_error=errors.append)
    rig.rescan.begin(rig.now_s)
    first = rig.scout
    first.pipe.said += [{"listed": ["a"]}, {"listed": 7}]
    assert rig.rescan.reaped(first.pid, 0, rig.now_s)
    assert [type(each) for each in errors] == [TypeError]
    assert first.pipe.closed
    rig.step(2)
    assert rig.scout is not first
    rig.scan(a="ready")
    assert rig.workers() == ["a"]


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


def test_what_a_scan_had_no_time_for_is_first_in_the_next_one_in_that_order(rig: Rig) -> None:
    """Also where that one cannot be started."""
    firsts: list[list[str]] = []
    rig.parts.run_scout = lambda _config, _pipe, first: firsts.append(list(first)) or 0
    rig.rescan.request(rig.now_s)
    rig.step()
    scout = rig.scout
    missed = [{"database": name, "verdict": "unreachable", "reason": NOT_LOOKED_AT} for name in ("c", "b", "a")]
    scout.pipe.said += [{"listed": ["a", "b", "c"]}, *missed, {"done": True}]
    rig.loop.registered[scout.pipe](rig.now_s)
    rig.spawner.error = OSError(errno.ENOMEM, "Cannot allocate memory")
    assert rig.rescan.reaped(scout.pid, 0, rig.now_s)
    rig.step()
    rig.step(2)
    assert rig.scout is not scout
    rig.scout.body(rig.scout.pipe)  # type: ignore[arg-type]
    assert firsts == [["c", "b", "a"]]


def test_the_barrier_knows_what_could_not_be_reached(rig: Rig) -> None:
    rig.scan(a="ready", away="unreachable")
    assert rig.rescan.unreachable == {"away": "is unreachable"}
    assert (rig.next_scan_in_s or 9) <= 0.5, "the others wait for it"
    rig.table.open_start_barrier()
    rig.scan(a="ready", away="unreachable")
    assert (rig.next_scan_in_s or 0) > 0.5
    rig.scan(a="ready", away="ready")
    assert rig.rescan.unreachable == {}


def test_the_barrier_waits_while_the_first_scan_finds_more(rig: Rig) -> None:
    """Jobs may run in what was not looked at yet; one that cannot be reached keeps nobody for long."""
    assert rig.rescan.barrier_until_s(10) == math.inf
    rig.rescan.begin(rig.now_s)
    scout, began_s = rig.scout, rig.now_s
    names = [f"db{number}" for number in range(600)]
    listed = [{"listed": names}]
    for number in range(5):
        found = {"database": names[number], "verdict": "ready", "reason": None}
        scout.pipe.said += [*listed, found]
        listed = []
        rig.loop.registered[scout.pipe](rig.now_s)
        assert rig.rescan.barrier_until_s(10) == rig.now_s + 10
        rig.step(9)
    found_s = rig.now_s - 9
    scout.pipe.said += [{"database": names[9], "verdict": "unreachable", "reason": "it hangs"}]
    scout.pipe.said += [{"database": names[0], "verdict": "ready", "reason": None}]
    rig.loop.registered[scout.pipe](rig.now_s)
    assert rig.rescan.barrier_until_s(10) == found_s + 10
    rig.step(20)
    scout.pipe.said += [{"database": names[5], "verdict": "ready", "reason": None}]
    rig.loop.registered[scout.pipe](rig.now_s)
    assert rig.rescan.barrier_until_s(10) == began_s + scan_limit_s(600) + 10, "not for ever"


# -- an administrator who works on a database ----------------------------------------------------------------------


def test_no_scan_begins_while_an_administrator_works_on_a_database(rig: Rig) -> None:
    """He ended its session; what he renames or copies would be found under its new name, and connected to."""
    rig.scan(a="ready", b="ready")
    rig.table.open_start_barrier()
    rig.hear("a", {"is": "away", "for_s": 5})
    scans = len([each for each in rig.spawner.children if "scout" in each.title])

    def begun() -> int:
        return len([each for each in rig.spawner.children if "scout" in each.title]) - scans

    rig.rescan.request(rig.now_s)
    rig.step()
    rig.step(4.9)
    assert begun() == 0
    assert rig.next_scan_in_s == pytest.approx(0.1)
    rig.hear("a", {"is": "away", "for_s": 5})
    rig.step(4.8)
    assert begun() == 0, "he ended it once more"
    rig.hear("a", {"is": "away", "for_s": 5})
    rig.step(0.4)
    assert begun() == 1, "not for ever"


def test_the_restart_of_a_server_puts_off_no_scan(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.table.open_start_barrier()
    rig.hear("a", {"is": "away", "for_s": 5})
    rig.hear("a", {"is": "away", "for_s": 0})
    rig.rescan.request(rig.now_s)
    rig.step()
    assert rig.rescan.is_running


@pytest.mark.parametrize("ended", [1, 2])
def test_a_scan_whose_own_session_was_ended_comes_back_later(rig: Rig, ended: int) -> None:
    """In one database by an administrator; in several the server was stopped."""
    rig.scan(a="unreachable", b="unreachable")
    rig.table.open_start_barrier()
    rig.rescan.begin(rig.now_s)
    scout = rig.scout
    verdict = {"verdict": "unreachable", "reason": "terminating connection due to administrator command"}
    scout.pipe.said += [{"database": name, **verdict, "ended": True} for name in "ab"[:ended]]
    rig.loop.registered[scout.pipe](rig.now_s)
    rig.rescan.reaped(scout.pid, 0, rig.now_s)
    rig.rescan.request(rig.now_s)
    rig.step()
    assert rig.rescan.is_running == (ended == 2)
    rig.step(5)
    assert rig.rescan.is_running


def probed_not(rig: Rig) -> set[str]:
    """What the next regular scan leaves out."""
    left_out: list[frozenset[str]] = []
    rig.parts.run_scout = lambda config, _pipe, _first: left_out.append(config.untouched) or 0
    rig.step(rig.next_scan_in_s or 0.0)
    rig.scout.body(rig.scout.pipe)  # type: ignore[arg-type]
    assert rig.rescan.reaped(rig.scout.pid, 0, rig.now_s)
    return set(left_out[0])


def test_what_dozes_is_probed_once_an_hour_and_by_order(rig: Rig) -> None:
    rig.scan(one="ready", two="ready")
    rig.fleet.workers["one"].wakefulness = Wakefulness.DOZING
    assert probed_not(rig) == {"one"}
    rig.now_s += RESTING_INTERVAL_S
    assert probed_not(rig) == set(), "an hour is over"
    rig.scan(one="ready", two="ready")
    assert probed_not(rig) == {"one"}
    rig.rescan.request(rig.now_s)
    assert probed_not(rig) == set(), "it was ordered"


def test_a_dozing_database_that_is_to_be_looked_at_gets_a_worker(rig: Rig) -> None:
    rig.scan(one="ready")
    worker = rig.fleet.workers["one"]
    rig.hear("one", {"is": "read"}, {"is": "ready"}, {"is": "dozes"})
    rig.reap("one", 0)
    assert (worker.wakefulness, worker.pid) == (Wakefulness.DOZING, None)
    rig.rescan.request(rig.now_s)
    rig.step()
    said = {"database": "one", "verdict": "ready", "reason": "to upgrade", "look": True}
    rig.scout.pipe.said += [{"listed": ["one"]}, said, {"done": True}]
    rig.loop.registered[rig.scout.pipe](rig.now_s)
    rig.step()
    assert worker.pid is not None
