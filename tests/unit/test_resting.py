"""What the master does with databases that doze: who has which, and which messages pass between whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from qjsupervisor.master import resting
from qjsupervisor.master.database_log import DatabaseLog
from qjsupervisor.master.fleet import Fleet
from qjsupervisor.master.parts import MasterParts
from qjsupervisor.master.resting import DEATHS, FEW, Resting
from qjsupervisor.master.worker_process import TimeLimits, WorkerProcess
from qjsupervisor.porter.settings import PorterSettings
from qjsupervisor.states import Wakefulness, WorkerState

from .supervised import FakeChild, FakeLoop, FakeSpawner, FakeTable


class Settings:
    """Of a worker, as far as the master looks at them."""

    connect_kwargs: Mapping[str, Any] = {"dbname": "one"}
    server = "here"


class Stand:
    """A fleet of databases, their porters, and what they are told."""

    def __init__(self, *names: str, most: int = 500, slots: int = 8) -> None:
        self.now_s = 100.0
        self.parts = MasterParts()
        self.loop = self.parts.loop = FakeLoop()  # type: ignore[assignment]
        self.parts.table = FakeTable(slots=slots)
        self.spawner = self.parts.spawner = FakeSpawner()  # type: ignore[assignment]
        self.parts.database_log = DatabaseLog(self.loop, lambda: self.now_s)
        limits = TimeLimits(boot_s=60, graceful_s=8, hang_s=30)
        self.fleet = Fleet(self.parts, limits, lambda _name: {}, lambda _now_s: None, lambda _message: None)
        self.settings = PorterSettings(session_mark=7, connect_timeout_s=5)
        self.resting = Resting(self.parts, self.fleet, lambda: self.settings, 30, most)
        self.fleet.on_rest = self.resting.hear_worker
        self.fleet.end_rest, self.fleet.has_porter = self.resting.forget, self.resting.has
        for name in names:
            self.fleet.want(name, Settings(), 1, self.now_s)
        self.turn()

    def turn(self, later_s: float = 0.0) -> None:
        self.now_s += later_s
        self.loop.run_until(self.now_s)

    def child(self, title: str) -> FakeChild:
        """The youngest of that title."""
        return [each for each in self.spawner.children if each.title == f"qjsupervisor: {title}"][-1]

    def worker(self, name: str) -> WorkerProcess:
        return self.fleet.workers[name]

    def says(self, title: str, *messages: Mapping[str, Any]) -> None:
        child = self.child(title)
        child.pipe.said += [dict(message) for message in messages]
        self.loop.registered[child.pipe](self.now_s)
        self.turn()

    def porter_of(self, name: str) -> str:
        """The title of the porter that was last told to take a database."""
        take = [each for each in self.spawner.children for told in each.pipe.told if told.get("database") == name]
        return take[-1].title.removeprefix("qjsupervisor: ")

    def reap(self, title: str, exit_code: int) -> None:
        pid = self.child(title).pid
        assert self.fleet.reaped(pid, exit_code, self.now_s) or self.resting.reaped(pid, exit_code, self.now_s)
        self.turn()

    def doze(self, name: str) -> None:
        """All the way from a worker that is ready."""
        self.says(f"worker {name}", {"is": "read"}, {"is": "ready"}, {"is": "idle", "failed": "1/7"})
        self.says("porter", {"is": "waits", "database": name})
        assert {"do": "doze"} in self.child(f"worker {name}").pipe.told
        self.says(f"worker {name}", {"is": "dozes"})
        self.reap(f"worker {name}", 0)
        self.says("porter", {"is": "holds", "database": name})
        assert self.worker(name).wakefulness is Wakefulness.DOZING


def test_there_and_back() -> None:
    stand = Stand("one")
    stand.doze("one")
    (take,) = stand.child("porter").pipe.told
    assert take == {"do": "take", "database": "one", "dsn": {"dbname": "one"}, "server": "here", "failed": "1/7",
                    "waits": True, "asleep": False}  # fmt: skip
    worker = stand.worker("one")
    assert (worker.pid, worker.state, worker.restarts) == (None, WorkerState.READY, 0)
    assert stand.fleet.is_settled
    first = stand.child("worker one")
    stand.says("porter", {"is": "wake", "database": "one"})
    assert stand.child("worker one") is not first
    assert stand.child("worker one").orders == [{"do": "take_over"}]
    stand.says("worker one", {"is": "door"})
    assert stand.child("porter").pipe.told[-1] == {"do": "hand_over", "database": "one"}
    stand.says("porter", {"is": "left", "database": "one"})
    assert not stand.resting.has("one")
    stand.says("worker one", {"is": "read"}, {"is": "ready"})
    assert (worker.wakefulness, worker.state) == (Wakefulness.AWAKE, WorkerState.READY)


@pytest.mark.parametrize("comes_first", ["wake", "dozes"])
def test_a_job_comes_while_the_worker_exits(comes_first: str) -> None:
    """The porter has the lock, and calls, before the worker's last words were read, or before it is reaped."""
    stand = Stand("one")
    stand.says("worker one", {"is": "ready"}, {"is": "idle", "failed": ""})
    stand.says("porter", {"is": "waits", "database": "one"})
    both = {"wake": ("porter", {"is": "wake", "database": "one"}), "dozes": ("worker one", {"is": "dozes"})}
    stand.says(*both.pop(comes_first))
    stand.says(*both.popitem()[1])
    former = stand.child("worker one")
    stand.reap("worker one", 0)
    assert stand.child("worker one") is not former
    assert stand.worker("one").wakefulness is Wakefulness.AWAKE


def test_a_worker_that_stays() -> None:
    stand = Stand("one")
    stand.says("worker one", {"is": "ready"}, {"is": "idle", "failed": ""})
    stand.says("worker one", {"is": "stays"})
    assert stand.child("porter").pipe.told[-1] == {"do": "drop", "database": "one"}
    stand.says("porter", {"is": "left", "database": "one"})
    stand.doze("one")
    assert stand.worker("one").pid is None, "that a porter left it before calls no worker now"


def test_a_worker_that_crashes_on_its_way_is_told_of_the_porter() -> None:
    stand = Stand("one")
    stand.says("worker one", {"is": "read"}, {"is": "ready"}, {"is": "idle", "failed": ""})
    stand.reap("worker one", -9)
    stand.turn(5)
    assert stand.child("worker one").orders == [{"do": "take_over"}]
    assert stand.worker("one").restarts == 1


def test_a_porter_that_dies_is_replaced_and_told_what_dozes() -> None:
    stand = Stand("one", "two")
    stand.doze("one")
    stand.doze("two")
    former = stand.child("porter")
    stand.reap("porter", -9)
    assert stand.worker("one").state is WorkerState.STARTING
    assert "porter" in str(stand.worker("one").reason)
    stand.turn(5)
    assert stand.child("porter") is not former
    told = stand.child("porter").pipe.told
    assert {(each["do"], each["database"], each["waits"]) for each in told} == {
        ("take", "one", False), ("take", "two", False)
    }  # fmt: skip
    stand.says("porter", {"is": "holds", "database": "one"})
    assert stand.worker("one").state is WorkerState.READY


def test_a_porter_that_dies_leaves_what_it_knew_to_the_next_and_nothing_of_dropped_databases() -> None:
    stand = Stand("one", "two")
    stand.doze("one")
    stand.doze("two")
    stand.fleet.drop("two", "it does not exist any more", stand.now_s, gone=True)
    stand.says("porter", {"is": "left", "database": "two"})
    stand.reap("porter", -9)
    stand.turn(5)
    (take,) = stand.child("porter").pipe.told
    assert (take["database"], take["failed"]) == ("one", "1/7")
    assert "two" not in repr(vars(stand.resting))
    assert all("two" not in porter.databases for porter in stand.resting._porters)


def test_a_porter_that_dies_again_and_again_leaves_its_databases_to_workers() -> None:
    stand = Stand("one")
    stand.doze("one")
    for _ in range(DEATHS - 1):
        stand.reap("porter", -11)
        assert stand.worker("one").pid is None
        stand.turn(10)
    stand.reap("porter", -11)
    assert stand.worker("one").pid is not None
    assert stand.child("worker one").orders == []


def test_a_database_that_kills_its_porter_costs_few_others_theirs() -> None:
    """It is found by halves: never do all databases get workers at once."""
    names = [f"db{number:03}" for number in range(200)]
    killer = names[77]
    stand = Stand(slots=256)
    for name in names:
        stand.fleet.want(name, Settings(), 1, stand.now_s)
        stand.resting.begin(name, stand.now_s)
    stand.turn()
    deaths = 0
    while stand.resting.has(killer):
        deaths += 1
        title = stand.porter_of(killer)
        stand.reap(title, -11)
        stand.turn(10)
    assert deaths <= 10
    with_workers = [name for name in names if stand.worker(name).pid is not None]
    assert killer in with_workers
    assert len(with_workers) <= FEW
    assert all(stand.resting.has(name) for name in names if name not in with_workers)


def test_the_porter_dies_in_the_middle_of_a_hand_over() -> None:
    """The worker has let go, and nobody has the database."""
    stand = Stand("one")
    stand.says("worker one", {"is": "ready"}, {"is": "idle", "failed": ""})
    stand.says("porter", {"is": "waits", "database": "one"})
    stand.reap("porter", -9)
    stand.says("worker one", {"is": "dozes"})
    former = stand.child("worker one")
    stand.reap("worker one", 0)
    assert stand.child("worker one") is not former


def test_a_porter_that_hangs_is_killed() -> None:
    stand = Stand("one")
    stand.doze("one")
    for _ in range(8):
        stand.says("porter", {"is": "alive"})
        stand.turn(5)
    assert stand.child("porter").signals == []
    stand.turn(40)
    assert stand.child("porter").signals == [9]


def test_another_porter_for_more() -> None:
    stand = Stand("one", "two", "three", most=2)
    for name in ("one", "two", "three"):
        stand.says(f"worker {name}", {"is": "ready"}, {"is": "idle", "failed": ""})
    assert [each["database"] for each in stand.child("porter").pipe.told] == ["one", "two"]
    assert [each["database"] for each in stand.child("porter 2").pipe.told] == ["three"]
    assert len(stand.resting.pids) == 2


def test_what_sleeps_takes_no_room() -> None:
    stand = Stand("one", "two", "three", most=1)
    stand.settings = replace(stand.settings, sleep_timeout_s=60)
    for name in ("one", "two"):
        stand.says(f"worker {name}", {"is": "ready"}, {"is": "idle", "failed": ""})
        stand.says("porter", {"is": "waits", "database": name})
        stand.says(f"worker {name}", {"is": "dozes"})
        stand.reap(f"worker {name}", 0)
        stand.says("porter", {"is": "holds", "database": name}, {"is": "asleep", "database": name})
    assert len(stand.resting.pids) == 1
    stand.says("porter", {"is": "holds", "database": "one"})
    stand.says("worker three", {"is": "ready"}, {"is": "idle", "failed": ""})
    assert [each["database"] for each in stand.child("porter 2").pipe.told] == ["three"]


@pytest.mark.parametrize("sleep_timeout_s", [None, 60.0])
def test_a_new_database_without_jobs_has_no_worker(sleep_timeout_s: float | None) -> None:
    stand = Stand()
    stand.settings = replace(stand.settings, sleep_timeout_s=sleep_timeout_s)
    stand.fleet.want("one", Settings(), 1, stand.now_s)
    stand.resting.begin("one", stand.now_s)
    stand.turn()
    (take,) = stand.child("porter").pipe.told
    assert (take["failed"], take["waits"], take["asleep"]) == ("0/0", False, sleep_timeout_s is not None)
    worker = stand.worker("one")
    assert (worker.pid, worker.state) == (None, WorkerState.STARTING)
    assert stand.fleet.is_settled
    stand.says("porter", {"is": "holds", "database": "one"})
    assert (worker.wakefulness, worker.state) == (Wakefulness.DOZING, WorkerState.READY)
    stand.says("porter", {"is": "wake", "database": "one"})
    assert stand.child("worker one").orders == [{"do": "take_over"}]
    assert not stand.fleet.is_settled


def test_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "AT_ONCE", 2)
    stand = Stand("one", "two", "three", "four")
    for name in ("one", "two", "three", "four"):
        stand.says(f"worker {name}", {"is": "read"}, {"is": "ready"}, {"is": "idle", "failed": ""})
    told = stand.child("porter").pipe.told
    assert [each["database"] for each in told] == ["one", "two"]
    stand.says("porter", {"is": "holds", "database": "one"})
    assert [each["database"] for each in told] == ["one", "two", "three"]
    stand.says("worker two", {"is": "stays"})
    stand.says("porter", {"is": "left", "database": "two"})
    assert [each["database"] for each in told if each["do"] == "take"] == ["one", "two", "three", "four"]
    stand.says("worker four", {"is": "idle", "failed": ""})
    assert len(told) == 5, "it is on its way already"


def test_what_a_busy_porter_did_not_take_is_sent_later() -> None:
    stand = Stand("one")
    stand.doze("one")
    stand.child("porter").pipe.full = True
    stand.resting.forget("one", stand.now_s)
    stand.turn()
    assert len(stand.child("porter").pipe.told) == 1
    stand.child("porter").pipe.full = False
    stand.turn(1)
    assert stand.child("porter").pipe.told[-1] == {"do": "drop", "database": "one"}


def test_without_idle_timeout_all_wake() -> None:
    stand = Stand("one")
    stand.doze("one")
    stand.resting.reload(stand.now_s, is_wanted=False)
    stand.turn()
    assert stand.worker("one").pid is not None


def test_other_settings_of_the_porter() -> None:
    stand = Stand("one")
    stand.doze("one")
    stand.settings = PorterSettings(session_mark=7, connect_timeout_s=6)
    stand.resting.reload(stand.now_s, is_wanted=True)
    assert stand.child("porter").signals == [15]


def test_a_stop_ends_it_without_a_worker() -> None:
    stand = Stand("one")
    stand.doze("one")
    stand.resting.dismiss()
    stand.fleet.stop_all(stand.now_s)
    assert stand.child("porter").pipe.told[-1] == {"do": "stop"}
    stand.says("porter", {"is": "left", "database": "one"})
    stand.reap("porter", 0)
    stand.turn(10)
    assert stand.resting.pids == []
    assert stand.fleet.alive == 0
