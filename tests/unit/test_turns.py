"""Whose turn it is: fairness as properties. One process; see slots.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.job import Key
from qjsupervisor.states import Fairness
from qjsupervisor.table import slot as seat_module
from qjsupervisor.table.grants import NoDemand, Scheduler
from qjsupervisor.table.layout import Cell
from qjsupervisor.table.turns import PICK_UP_NS, Grant

from .slots import Queue, Worker, World

ROOT, SLOW, DEEP = 0, 1, 2
TREE = [
    ChannelSpec(name="root", capacity=1),
    ChannelSpec(name="root.slow", capacity=1),
    ChannelSpec(name="root.slow.deep", capacity=1),
]


class Crowd:
    """Databases that want a permit in one channel each, for ever; who gets the single permit, turn after turn."""

    def __init__(self, channels: list[int], weights: list[int] | None = None) -> None:
        self.world = World(TREE, weights or [1] * len(channels))
        self.channels = channels
        self.world.start_all()
        self.jobs = 0
        for slot in range(len(channels)):
            self.want(slot)

    def want(self, slot: int) -> None:
        """Publish a demand, without a turn that would grant anything."""
        self.jobs += 1
        worker = self.world.workers[slot]
        assert worker.queue is not None
        assert worker.worker_slot is not None
        worker.queue.arrive(self.channels[slot], (10, self.jobs, slot))
        worker.worker_slot._publish(worker.queue, self.world.now_ns, served=False)

    def away(self, slot: int) -> None:
        worker = self.world.workers[slot]
        assert worker.queue is not None
        assert worker.worker_slot is not None
        worker.queue.cancel(self.channels[slot])
        worker.worker_slot._publish(worker.queue, self.world.now_ns, served=False)

    def next(self) -> Grant:
        """The next permit, which comes back at once: by the choice of somebody who wants nothing himself."""
        grant = Scheduler(self.world.core, Fairness.ROUND_ROBIN, -1, NoDemand(), self.world.now_ns).next()
        assert grant is not None
        return grant

    def served(self, turns: int) -> list[int]:
        return [self.next().slot for _ in range(turns)]

    def close(self) -> None:
        self.world.close()


def longest_gap(served: list[int], slot: int) -> int:
    """The most permits that others got between two of this one's, and before its first."""
    at = [-1, *(i for i, each in enumerate(served) if each == slot), len(served)]
    return max(b - a - 1 for a, b in pairwise(at))


@given(channels=st.lists(st.sampled_from((ROOT, SLOW, DEEP)), min_size=1, max_size=9), skip=st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_who_waits_all_the_time_is_served_within_as_many_permits_as_wait(channels: list[int], skip: int) -> None:
    """With W databases that wait all the time, wherever in the tree, at most W - 1 permits go to others between two.

    Of W decisions at the root each picks another database, and so each branch as often as databases wait in it; and
    so on in the branch.
    """
    crowd = Crowd(channels)
    try:
        crowd.served(skip)
        served = crowd.served(6 * len(channels))
        for slot in range(len(channels)):
            assert longest_gap(served, slot) <= len(channels) - 1, served
    finally:
        crowd.close()


@given(
    channels=st.lists(st.sampled_from((ROOT, SLOW, DEEP)), min_size=2, max_size=6),
    others=st.lists(st.sets(st.integers(0, 5), max_size=4), min_size=10, max_size=150),
)
@settings(max_examples=60, deadline=None)
def test_nobody_starves_whatever_the_others_do(channels: list[int], others: list[set[int]]) -> None:
    """The others come and go at will, in the worst way; database 0 waits, and gets its turn within the bound.

    The bound that holds against any behaviour of W - 1 others: W decisions at each level above its own channel, each
    of which may be used up by another one: W ** levels.
    """
    crowd = Crowd(channels)
    levels = {ROOT: 1, SLOW: 2, DEEP: 3}[channels[0]]
    present = set(range(1, len(channels)))
    waited = 0
    try:
        for step in range(len(others)):
            wanted = {1 + each % (len(channels) - 1) for each in others[step]}
            for slot in present - wanted:
                crowd.away(slot)
            for slot in wanted - present:
                crowd.want(slot)
            present = wanted
            waited = 0 if crowd.next().slot == 0 else waited + 1
            assert waited < len(channels) ** levels
    finally:
        crowd.close()


class OneCursor(Scheduler):
    """What a single cursor at the root would do."""

    def _descend(self, competing: int, candidates: int) -> Grant | None:
        return self._turn(0, competing, candidates)


def alternate(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """A and B want the narrow channel, C the root; a job of C and the one in the narrow channel end in turn."""
    world = World(
        [ChannelSpec(name="root", capacity=2), ChannelSpec(name="root.slow", capacity=1)],
        [1, 1, 1],
    )
    world.install_clock(monkeypatch)
    try:
        world.start_all()
        jobs = 0
        for slot, channel in ((0, SLOW), (1, SLOW), (2, ROOT)):
            queue = world.workers[slot].queue
            assert queue is not None
            for _ in range(60):
                jobs += 1
                queue.arrive(channel, (10, jobs, jobs))
        world.quiet()
        world.started.clear()
        for step in range(60):
            ends: list[Worker] = [w for w in world.workers if w.database.running and (w.slot == 2) == bool(step % 2)]
            for worker in ends:
                worker.finish(0)
                world.check_quiet()
        return Counter(slot for slot, _channel in world.started)
    finally:
        world.close()


def test_a_subchannel_has_a_turn_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    served = alternate(monkeypatch)
    assert abs(served[0] - served[1]) <= 1, served


def test_one_cursor_at_the_root_would_starve_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for a turn in each channel: with one cursor, A always has its turn when the narrow one is free."""
    monkeypatch.setattr(seat_module, "Scheduler", OneCursor)
    served = alternate(monkeypatch)
    assert 0 in (served[0], served[1]), served


# -- weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [ROOT, SLOW, DEEP])
@pytest.mark.parametrize("weights", [[3, 1], [3, 3, 1], [3, 1, 1, 1], [1, 5, 3, 3, 1], [100, 1]], ids=str)
def test_weights_are_shares(weights: list[int], channel: int) -> None:
    crowd = Crowd([channel] * len(weights), weights)
    rounds = 40
    try:
        served = Counter(crowd.served(sum(weights) * rounds))
        for slot, weight in enumerate(weights):
            assert abs(served[slot] - weight * rounds) <= max(weights), served
    finally:
        crowd.close()


def test_weights_are_shares_in_a_branch_where_others_have_better_jobs_elsewhere() -> None:
    """Databases that enter a job elsewhere do not count as members of their class in the branch."""
    crowd = Crowd([SLOW, SLOW, SLOW, ROOT], [3, 3, 1, 3])
    queue = crowd.world.workers[3].queue
    assert queue is not None
    queue.arrive(SLOW, (99, 0, 0))  # worse than what it enters
    worker_slot = crowd.world.workers[3].worker_slot
    assert worker_slot is not None
    worker_slot._publish(queue, crowd.world.now_ns, served=False)
    try:
        served = Counter(crowd.served(1000))
        assert all(abs(served[slot] - share) <= 6 for slot, share in enumerate((300, 300, 100, 300))), served
    finally:
        crowd.close()


def test_a_class_that_was_away_gets_no_burst() -> None:
    crowd = Crowd([ROOT] * 3, [1, 2, 3])
    try:
        crowd.away(2)
        crowd.served(600)
        crowd.want(2)
        served = crowd.served(12)
        assert abs(served.count(2) - 6) <= 1, served
        assert served[:4] != [2, 2, 2, 2], served
    finally:
        crowd.close()


def test_a_share_does_not_suffer_from_short_absences() -> None:
    """As when a database has not come for its grant yet: what others get meanwhile is counted."""
    crowd = Crowd([ROOT, ROOT], [3, 1])
    served = []
    try:
        for turn in range(800):
            if turn % 4 == 0:
                crowd.away(0)
                served.append(crowd.next().slot)
                crowd.want(0)
            else:
                served.append(crowd.next().slot)
        assert abs(served.count(0) - 600) <= 8, Counter(served)
    finally:
        crowd.close()


def test_what_we_take_alone_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([ChannelSpec(name="root", capacity=1)], [3, 1])
    world.install_clock(monkeypatch)
    try:
        world.start_all()
        before = world.core.words[world.core.turn_word(ROOT, 1) + 1]
        queue = world.workers[1].queue
        assert queue is not None
        queue.arrive(ROOT, (1, 1, 1))
        world.check_quiet()
        assert world.core.words[world.core.turn_word(ROOT, 1) + 1] > before
    finally:
        world.close()


def test_passes_last_for_ages() -> None:
    """A word has 63 bits: at 1,000 permits a second they must last for longer than any machine."""
    crowd = Crowd([ROOT, ROOT], [1, 2])
    try:
        for k in (0, 1):
            crowd.world.core.words[crowd.world.core.turn_word(ROOT, k) + 1] = 1 << 61
        crowd.served(10)
        stride = crowd.world.core.words[crowd.world.core.clock_word(ROOT)] - (1 << 61)
        years = (1 << 62) / (stride / 10) / 1000 / 86400 / 365
        assert years > 5
    finally:
        crowd.close()


# -- one order over all databases ------------------------------------------------------------------------------------


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(
        [ChannelSpec(name="root", capacity=2), ChannelSpec(name="root.slow", capacity=1)],
        [1, 1, 1],
        Fairness.PRIORITY,
    )
    world.install_clock(monkeypatch)
    world.start_all()
    yield world
    world.close()


def arrive(world: World, slot: int, channel: int, priority: int) -> None:
    queue = world.workers[slot].queue
    assert queue is not None
    queue.arrive(channel, (priority, 0, slot))


@given(
    jobs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), min_size=4, max_size=40),
    ends=st.lists(st.integers(0, 99), min_size=80, max_size=80),
    capacity=st.integers(1, 3),
    together=st.integers(1, 3),
)
@settings(max_examples=80, deadline=None)
def test_priority_is_the_exact_order_of_one_key(
    jobs: list[tuple[int, int]], ends: list[int], capacity: int, together: int
) -> None:
    """Four databases, some permits at once, several given back in one breath: starts are in the order of the keys."""
    patch = pytest.MonkeyPatch()
    world = World([ChannelSpec(name="root", capacity=capacity)], [1] * 4, Fairness.PRIORITY, start_barrier=False)
    world.install_clock(patch)
    try:
        world.start_all()
        for number, (slot, priority) in enumerate(jobs):
            queue = world.workers[slot].queue
            assert queue is not None
            queue.arrive(ROOT, (priority, number, number))
        world.quiet()
        wanted = sorted(key for w in world.workers for key in w.database.waiting.get(ROOT, ()))
        seen: list[Key] = []
        for worker in world.workers:
            assert worker.queue is not None
            worker.queue.on_take = partial(note_start, seen, worker.queue)
        world.table.open_start_barrier()
        world.quiet()
        for end in ends:
            busy = [w for w in world.workers if w.database.running]
            if not busy:
                break
            worker = busy[end % len(busy)]
            if worker.may_succeed(0):
                assert worker.queue is not None
                worker.queue.succeed(0)
                continue
            for _ in range(min(together, len(worker.database.running))):
                worker.finish(0)
            if end % 3:
                world.check_quiet()
            else:
                worker.turn()  # the others have not come for their grants yet, when the next one ends
        world.check_quiet()
        assert in_breaths(seen, capacity)
        assert sorted(seen) == wanted[: len(seen)]
    finally:
        patch.undo()
        world.close()


def note_start(seen: list[Key], queue: Queue, channel: int) -> None:
    seen.append(queue.key(channel))


def in_breaths(seen: list[Key], capacity: int) -> bool:
    """Whether nobody started before somebody better but for those that started together."""
    order = sorted(seen)
    return all(abs(order.index(key) - at) < capacity for at, key in enumerate(seen))


def test_two_permits_at_once_go_to_the_two_best_though_one_database_has_both(ordered: World) -> None:
    for _ in range(2):
        arrive(ordered, 2, ROOT, 1)
    ordered.quiet()
    arrive(ordered, 0, ROOT, 2)
    arrive(ordered, 0, ROOT, 3)
    arrive(ordered, 1, ROOT, 9)
    arrive(ordered, 2, ROOT, 10)
    ordered.quiet()
    ordered.workers[2].finish(0)
    ordered.workers[2].finish(0)
    ordered.workers[2].turn()
    assert [sum(ordered.row(slot, Cell.HELD)) for slot in range(3)] == [1, 0, 0], "the second waits for who comes"
    ordered.check_quiet()
    assert len(ordered.workers[0].database.running) == 2


def test_who_does_not_come_for_its_grant_holds_nobody_up_for_long(ordered: World) -> None:
    for _ in range(2):
        arrive(ordered, 2, ROOT, 1)
    ordered.quiet()
    for slot, priority in ((0, 2), (0, 3), (1, 9)):
        arrive(ordered, slot, ROOT, priority)
    ordered.quiet()
    ordered.workers[0].stopped = True
    before = ordered.now_ns
    ordered.workers[2].finish(0)
    ordered.workers[2].finish(0)
    ordered.workers[2].turn()
    assert not ordered.workers[1].database.running
    ordered.check_quiet()
    assert ordered.now_ns == before + PICK_UP_NS
    assert len(ordered.workers[1].database.running) == 1


def test_keys_are_fresh_after_a_time_in_which_nothing_was_wanted(ordered: World) -> None:
    """While its target is down a database wants nothing; meanwhile its best job becomes another one."""
    for _ in range(2):
        arrive(ordered, 2, ROOT, 1)
    ordered.quiet()
    arrive(ordered, 0, ROOT, 5)
    ordered.quiet()
    queue = ordered.workers[0].queue
    assert queue is not None
    queue.budget = 0
    ordered.workers[0].turn()
    queue.cancel(ROOT)
    arrive(ordered, 0, ROOT, 9)
    ordered.workers[0].turn()
    queue.budget = 10
    ordered.workers[0].turn()
    arrive(ordered, 1, ROOT, 7)
    ordered.workers[1].turn()
    ordered.workers[2].finish(0)
    ordered.check_quiet()
    assert [len(w.database.running) for w in ordered.workers] == [0, 1, 1]
