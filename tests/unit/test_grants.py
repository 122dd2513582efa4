"""Who enters when a permit is given, before any turn; and what a grant to another process leaves behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from qjsupervisor.channelspec import ChannelSpec, Share
from qjsupervisor.table.grants import NoDemand, Scheduler, grant_all
from qjsupervisor.table.layout import Slot

from .slots import World

ROOT, SLOW = range(2)
TREE = [ChannelSpec(name="root", capacity=2), ChannelSpec(name="root.slow", capacity=1)]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(TREE, [1, 1], shares=(Share(maximum=1), Share()))
    made.install_clock(monkeypatch)
    made.start_all()
    yield made
    made.close()


def arrive(world: World, slot: int, channels: Sequence[int]) -> None:
    queue = world.workers[slot].queue
    assert queue is not None
    for job, channel in enumerate(channels, 1):
        queue.arrive(channel, (10, job, job))


def test_a_database_at_its_maximum_does_not_enter(world: World) -> None:
    arrive(world, 0, [ROOT, ROOT])
    world.check_quiet()
    assert world.started == [(0, ROOT)]
    arrive(world, 1, [ROOT])
    world.check_quiet()
    assert world.started == [(0, ROOT), (1, ROOT)]


def test_a_job_in_a_full_channel_does_not_enter_and_holds_no_other_back(world: World) -> None:
    arrive(world, 1, [SLOW, SLOW, ROOT])
    world.check_quiet()
    assert world.started == [(1, SLOW), (1, ROOT)]


def test_what_is_granted_to_another_process_is_held_by_it_and_wakes_it(world: World) -> None:
    waiting = world.workers[1]
    arrive(world, 0, [SLOW])
    arrive(world, 1, [SLOW])
    world.check_quiet()
    assert world.started == [(0, SLOW)], "it is full"
    core = world.core
    core.add_held(0, SLOW, -1, world.now_ns)
    assert not waiting.is_readable()
    grant_all(core, Scheduler(core, world.table.fairness, -1, NoDemand(), world.now_ns), world.now_ns)
    assert core.words[core.slot_base(1) + Slot.GRANT] == SLOW + 1
    assert core.words[core.slot_base(1) + Slot.TOTAL] == 1
    assert not core.read_bitmap(core.layout.waiting, core.slots)
    assert waiting.is_readable()
