"""A short storm, and a master that is stopped, slow, or has a flood of work, while workers work."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from qjsupervisor.states import Fairness

from .ledger import Job, Ledger, overruns
from .storm import TREE, Options, Storm

#: What a loaded machine may take for what is done in milliseconds.
IDLE_LIMIT_MS = 1500


@pytest.mark.parametrize(
    ("fairness", "stops"),
    [(Fairness.ROUND_ROBIN, True), (Fairness.PRIORITY, True), (Fairness.ROUND_ROBIN, False)],
    ids=["stops", "stops, by priority", "kills only"],
)
def test_storm(fairness: Fairness, stops: bool) -> None:
    found = Storm(Options(seconds=6, processes=6, seed=5, stops=stops, strikes_per_s=12, fairness=fairness)).run()
    assert found["over_capacity"] == 0, found
    assert found["leaked"] == {}, found
    assert found["drained_s"] is not None, found
    assert found.get("faults", 0) == 0, found
    assert found["jobs_per_s"] > 5, found
    assert found["killed inside the lock"] > 0, found
    assert max(each["longest_ms"] for each in found["idle"].values()) < IDLE_LIMIT_MS, found


@pytest.mark.parametrize("fairness", Fairness)
def test_storm_with_minimums_weights_and_rates(fairness: Fairness) -> None:
    options = Options(seconds=6, processes=6, seed=7, strikes_per_s=12, fairness=fairness, shares=True)
    found = Storm(options).run()
    for wrong in ("over_capacity", "borrowed", "beyond_most", "over_rate"):
        assert found[wrong] == 0, found
    assert found["leaked"] == {}, found
    assert found["drained_s"] is not None, found
    assert found.get("faults", 0) == 0, found
    assert found["paced"] > 20, found


def work_on(storm: Storm, during: Callable[[Storm], None]) -> tuple[float, float]:
    """Jobs a second of a calm storm: before `during`, and while it goes on. The rest as in any storm."""
    until_s = time.monotonic() + 2
    storm._blow(until_s)
    before = storm.ledger.begun()
    start_s = time.monotonic()
    during(storm)
    took_s = time.monotonic() - start_s
    rate = (storm.ledger.begun() - before) / took_s
    assert storm._drain(watch=True) is not None
    assert storm._left() == {}
    storm._end()
    paths = storm.table.core.tree().paths
    assert list(overruns(storm.ledger, paths, [spec.capacity or -1 for spec in TREE])) == []
    return before / 2, rate


def calm() -> Storm:
    return Storm(Options(seconds=10, processes=6, strikes_per_s=0))


def test_workers_go_on_while_the_master_is_stopped() -> None:
    """A process of its own is the master, so that it can be stopped; after it goes on, so does its watch."""
    done, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            storm = calm()

            def stop_myself(storm: Storm) -> None:
                os.write(say, b"%d " % storm.ledger.begun())
                os.kill(os.getpid(), signal.SIGSTOP)
                os.write(say, b"%d " % storm.ledger.begun())

            before, during = work_on(storm, stop_myself)
            os.write(say, b"%d %d" % (before, during))
            code = 0
        finally:
            os._exit(code)
    os.close(say)
    try:
        _pid, status = os.waitpid(pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        threading.Event().wait(2)  # the time that is measured
        os.kill(pid, signal.SIGCONT)
        _pid, status = os.waitpid(pid, 0)
        pid = 0
        assert status == 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    with os.fdopen(done, "rb") as stream:
        at_stop, at_continue, before, during = map(int, stream.read().split())
    assert at_continue - at_stop > before, "two seconds without the master: more than half of what they did with it"
    assert during > before / 2


def test_workers_go_on_while_the_master_is_slow() -> None:
    """It turns once a second only."""

    def turn_slowly(storm: Storm) -> None:
        for _ in range(2):
            storm.attend(time.monotonic())
            threading.Event().wait(1)

    before, during = work_on(calm(), turn_slowly)
    assert during > before / 2


def test_workers_go_on_while_the_master_is_flooded() -> None:
    """It has nothing but reloads and deaths of databases that are not there, as fast as it can."""

    def flood(storm: Storm) -> None:
        until_s, tried = time.monotonic() + 2, 0
        while time.monotonic() < until_s:
            assert storm.table.try_configure(TREE) in (True, False)
            storm.attend(time.monotonic())
            tried += 1
        assert tried > 100

    before, during = work_on(calm(), flood)
    assert during > before / 4


def test_the_ledger_finds_what_is_over() -> None:
    """The measure itself: two jobs at once where one may run are found, one after the other are not."""
    ledger = Ledger(2, 10)
    paths: list[tuple[int, ...]] = [(0,), (1, 0)]
    ledger.begin(0, Job(1, 100, 200))
    ledger.begin(1, Job(1, 200, 300))
    assert list(overruns(ledger, paths, [5, 1])) == []
    ledger.begin(0, Job(1, 250, 400))
    assert list(overruns(ledger, paths, [5, 1])) == [(1, 2, 250)]
    assert list(overruns(ledger, paths, [1, -1])) == [(0, 2, 250)]
    assert [len(ledger.running(0, now_ns)) for now_ns in (150, 260, 400)] == [2, 1, 0]
    assert ledger.begun() == 3
