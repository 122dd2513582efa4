"""Records of channels that are retired, and given to others: renames without end, and workers that are late."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence

import pytest

from qjsupervisor.channelspec import ROOT, ChannelSpec
from qjsupervisor.errors import SemaphoreError
from qjsupervisor.job import Key
from qjsupervisor.states import Fairness
from qjsupervisor.table.channels import SPARE_CHANNELS
from qjsupervisor.table.layout import Header
from qjsupervisor.table.semaphore import SemaphoreTable

SLOTS = 3


@pytest.fixture
def table() -> Iterator[SemaphoreTable]:
    made = SemaphoreTable([spec(ROOT, None)], slots=SLOTS, fairness=Fairness.ROUND_ROBIN)
    made.open_start_barrier()
    yield made
    for wakeup in made.core.wakeups:
        os.close(wakeup)


def spec(name: str, capacity: int | None = 100) -> ChannelSpec:
    return ChannelSpec(name=name, capacity=capacity)


class Worker:
    """A worker that goes by the channels as it read them last (grants.Source); it only counts its jobs."""

    def __init__(self, table: SemaphoreTable, slot: int) -> None:
        table.assign(slot, f"db{slot}", 1)
        self.worker_slot = table.worker_slot(slot)
        self.worker_slot.attach()
        #: Running jobs by the name of their channel.
        self.jobs: dict[str, int] = {}
        self.failed: dict[int, int] = {}
        self.new_heads: set[int] = set()
        self.changed: set[int] = set()
        self.withdrawn: list[int] = []
        self.read()

    def read(self) -> None:
        """Channels anew; jobs of one that is gone run in its nearest ancestor that there is."""
        found = self.worker_slot.channels()
        self.tree_generation = self.worker_slot.tree_generation
        self.index = {each.name: number for number, each in enumerate(found) if each is not None}
        self.worker_slot.begin_again()
        self.exchange()

    def known(self, name: str) -> str:
        while name not in self.index:
            name = name.rpartition(".")[0]
        return name

    def put(self, name: str, jobs: int) -> None:
        self.jobs[name] = jobs
        self.changed.add(self.index[self.known(name)])
        self.exchange()

    wanted_channels = 0

    def exchange(self) -> None:
        self.held: dict[int, int] = {}
        for name, jobs in self.jobs.items():
            channel = self.index[self.known(name)]
            self.held[channel] = self.held.get(channel, 0) + jobs
        self.worker_slot.exchange(self)

    def take(self, channel: int) -> None:
        raise AssertionError("it wants nothing")

    def order(self) -> Sequence[int]:
        return ()

    def best(self, _candidates: int) -> int:
        raise AssertionError("it wants nothing")

    def key(self, _channel: int) -> Key:
        raise AssertionError("it wants nothing")


def used(table: SemaphoreTable) -> int:
    return table.core.words[Header.USED_CHANNELS]


def names(table: SemaphoreTable) -> list[str]:
    return [view.name for view in table.channel_views() if not view.retired]


def test_a_record_is_another_channels_only_when_every_worker_knows(table: SemaphoreTable) -> None:
    workers = [Worker(table, slot) for slot in range(2)]
    for number in range(3):
        assert table.try_configure([spec(f"root.a{number}")])
        workers[0].read()
    assert used(table) == 4, "the second worker goes by the first tree"
    workers[1].read()
    assert table.try_configure([spec("root.b")])
    workers[0].put("root.b", 1)
    assert used(table) == 4
    assert table.try_configure([spec("root.c")])
    assert {view.name: view.running for view in table.channel_views()}["root.b"] == 0, "it never knew of it"


def test_a_record_in_which_jobs_run_stays(table: SemaphoreTable) -> None:
    worker = Worker(table, 0)
    assert table.try_configure([spec("root.a.deep")])
    worker.read()
    worker.put("root.a.deep", 2)
    for number in range(4):
        assert table.try_configure([spec(f"root.b{number}")])
    views = {view.name: (view.running, view.retired) for view in table.channel_views()}
    assert views["root.a"] == views["root.a.deep"] == (2, True)
    worker.read()
    for number in range(4):
        assert table.try_configure([spec(f"root.b{number}")])
        worker.read()
    assert "root.a" not in {view.name for view in table.channel_views()}
    assert {view.name: view.running for view in table.channel_views()}[ROOT] == 2


def test_a_record_in_which_jobs_of_a_dead_worker_run_stays(table: SemaphoreTable) -> None:
    assert table.try_configure([spec("root.a")])
    Worker(table, 0).put("root.a", 2)
    assert table.try_after_death(0)
    for number in range(3):
        assert table.try_configure([spec(f"root.b{number}")])
    assert {view.name: view.running for view in table.channel_views()}["root.a"] == 2
    assert table.try_give_up(0)
    assert table.try_configure([spec("root.c")])
    assert "root.a" not in {view.name for view in table.channel_views()}


def test_a_thousand_renames_need_no_more_room_than_a_few(table: SemaphoreTable) -> None:
    """Of channels and of their ancestors, by reloads that find workers late, or in another life."""
    rng = random.Random(18)
    workers = [Worker(table, slot) for slot in range(SLOTS)]
    for number in range(1000):
        wanted = [f"root.a{number}", f"root.a{number // 3}.b{number}", "root.kept", f"root.kept.c{number // 2}.d"]
        specs = [spec(name) for name in rng.sample(wanted, rng.randint(1, 4))]
        table.check_room(specs)
        assert table.try_configure(specs)
        for slot, worker in enumerate(workers):
            if rng.random() < 0.1:
                assert table.try_after_death(slot)
                workers[slot] = worker = Worker(table, slot)
            elif rng.random() < 0.6:
                worker.read()
            worker.put(rng.choice([name for name in worker.index if name != "root"] or ["root"]), rng.randint(0, 3))
            worker.jobs = {name: jobs for name, jobs in worker.jobs.items() if rng.random() < 0.7}
            worker.changed.update(worker.index.values())
            worker.exchange()
        running = {view.name: view.running for view in table.channel_views()}
        expected = dict.fromkeys(running, 0)
        for worker in workers:
            for name, jobs in worker.jobs.items():
                path = worker.known(name)
                while path:
                    expected[path] = expected.get(path, 0) + jobs
                    path = path.rpartition(".")[0]
        assert running == expected
        assert set(names(table)) >= {each.name for each in specs}
    assert used(table) < 60 < SPARE_CHANNELS


def test_in_a_cluster_names_that_find_no_room_are_refused_with_the_reason() -> None:
    """There a record stays its channel's: the coordinator goes by names. What is known goes on and can be changed."""
    table = SemaphoreTable([spec(ROOT, None)], slots=SLOTS, fairness=Fairness.ROUND_ROBIN, leased=True)
    for number in range(SPARE_CHANNELS - 1):
        renamed = [spec("root.kept", number), spec(f"root.a{number}")]
        table.check_room(renamed)
        assert table.try_configure(renamed)
    before = table.channel_views()
    for number in range(1000, 1003):
        with pytest.raises(SemaphoreError, match=f"no room for channel 'root.a{number}'.*restart qjsupervisor"):
            table.check_room([spec("root.kept", 1), spec(f"root.a{number}")])
    assert table.channel_views() == before
    table.check_room([spec("root.kept", 7), spec("root.a0")])
    assert table.try_configure([spec("root.kept", 7), spec("root.a0")])
    for wakeup in table.core.wakeups:
        os.close(wakeup)
