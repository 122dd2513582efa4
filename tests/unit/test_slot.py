"""A worker's place in the table: cases, and each death between two stores of a change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from qjsupervisor.channelspec import ChannelSpec, Rate
from qjsupervisor.states import Fairness
from qjsupervisor.table import rates
from qjsupervisor.table.layout import Cell, Header, Slot
from qjsupervisor.table.slot import SLICE_JOBS, SLICE_NS, WorkerSlot

from .slots import Died, Worker, World

ROOT, SLOW, CALM = 0, 1, 2
S = 1_000_000_000


def slot_of(worker: Worker) -> WorkerSlot:
    assert worker.worker_slot is not None
    return worker.worker_slot


def tree(root: int = 2, slow: int | None = 1, throttle_s: int = 0) -> list[ChannelSpec]:
    return [
        ChannelSpec(name="root", capacity=root, capacity_default=1),
        ChannelSpec(name="root.slow", capacity=slow),
        ChannelSpec(name="root.calm", capacity=None, throttle_s=throttle_s),
    ]


Make = Callable[..., World]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make worlds; their clock is the table's, their descriptors are closed afterwards."""
    worlds: list[World] = []

    def made(
        specs: list[ChannelSpec] | None = None, databases: int = 3, fairness: Fairness = Fairness.ROUND_ROBIN
    ) -> World:
        world = World(specs or tree(), [1] * databases, fairness)
        world.install_clock(monkeypatch)
        worlds.append(world)
        return world

    yield made
    for world in worlds:
        world.close()


def arrive(world: World, slot: int, channel: int, number: int = 1, priority: int = 10) -> None:
    queue = world.workers[slot].queue
    assert queue is not None
    for _ in range(number):
        job_id = len(world.started) + sum(len(k) for k in queue.database.waiting.values())
        queue.arrive(channel, (priority, job_id, job_id))


def runs(world: World) -> list[int]:
    return [len(worker.database.running) for worker in world.workers]


# -- cases -----------------------------------------------------------------------------------------------------


def test_takes_what_has_room_and_waits_for_the_rest(make: Make) -> None:
    world = make()
    world.start_all()
    arrive(world, 0, ROOT, 5)
    world.check_quiet()
    assert runs(world) == [2, 0, 0]
    assert world.table.slot_view(0).waiting_since_ns == world.now_ns


def test_what_ends_in_one_starts_in_another_which_is_woken(make: Make) -> None:
    world = make()
    world.start_all()
    arrive(world, 0, ROOT, 2)
    world.quiet()
    arrive(world, 1, ROOT)
    world.workers[1].turn()
    assert not world.workers[1].is_readable()
    world.workers[0].finish(0)
    world.workers[0].turn()
    assert world.workers[1].is_readable()
    world.check_quiet()
    assert runs(world) == [1, 1, 0]


def test_waiting_since_is_the_last_time_it_was_served(make: Make) -> None:
    world = make()
    world.start_all()
    first = world.now_ns
    arrive(world, 0, ROOT, 2)
    arrive(world, 1, ROOT, 1)
    world.quiet()
    assert world.table.slot_view(1).waiting_since_ns == first
    arrive(world, 0, ROOT, 3)
    world.quiet()
    world.now_ns += 5 * S
    world.workers[0].finish(0)
    world.quiet()
    assert world.table.slot_view(0).waiting_since_ns == world.now_ns, "it was served now, and still waits"
    assert world.table.slot_view(1).waiting_since_ns == first
    world.workers[0].finish(0)
    world.quiet()
    assert world.table.slot_view(1).waiting_since_ns == 0


def test_a_grant_that_is_not_wanted_any_more_goes_to_the_next(make: Make) -> None:
    world = make()
    world.start_all()
    arrive(world, 0, ROOT, 2)
    world.quiet()
    for slot in (1, 2):
        arrive(world, slot, ROOT)
        world.workers[slot].turn()
    world.workers[0].finish(0)
    world.workers[0].turn()
    queue = world.workers[1].queue
    assert queue is not None
    queue.cancel(ROOT)
    world.check_quiet()
    assert runs(world) == [1, 0, 1]


CLOSED_MEANWHILE = {
    "paused": [ChannelSpec(name="root", capacity=2, paused=True)],
    "capacity lowered": [ChannelSpec(name="root", capacity=1)],
    "retired": [ChannelSpec(name="root", capacity=2), ChannelSpec(name="root.other", capacity=1)],
}


@pytest.mark.parametrize("specs", CLOSED_MEANWHILE.values(), ids=CLOSED_MEANWHILE.keys())
def test_a_grant_is_not_used_in_a_channel_that_was_closed_meanwhile(make: Make, specs: list[ChannelSpec]) -> None:
    world = make(tree(root=2, slow=None))
    world.start_all()
    arrive(world, 0, ROOT, 2)
    world.quiet()
    arrive(world, 1, SLOW)
    world.workers[1].turn()
    world.workers[0].finish(0)
    world.workers[0].turn()
    assert world.row(1, Cell.HELD)[SLOW] == 1
    assert world.table.try_configure(specs)
    world.check_quiet()
    assert runs(world)[1] == 0
    assert world.row(1, Cell.HELD)[SLOW] == 0


def test_a_stopped_worker_keeps_one_grant_and_no_more(make: Make) -> None:
    world = make(tree(root=3))
    world.start_all()
    arrive(world, 0, ROOT, 3)
    world.quiet()
    for slot in (1, 2):
        arrive(world, slot, ROOT, 3)
        world.workers[slot].turn()
    world.workers[1].stopped = True
    for _ in range(3):
        world.workers[0].finish(0)
        world.workers[0].turn()
    world.check_quiet()
    assert runs(world) == [0, 0, 2]
    assert world.row(1, Cell.HELD)[ROOT] == 1


def test_a_death_gives_an_untaken_grant_to_whoever_waits(make: Make) -> None:
    world = make(tree(root=1))
    world.start_all()
    arrive(world, 0, ROOT)
    world.quiet()
    for slot in (1, 2):
        arrive(world, slot, ROOT)
        world.workers[slot].turn()
    world.workers[0].finish(0)
    world.workers[0].turn()
    assert world.row(1, Cell.HELD)[ROOT] == 1
    world.workers[1].dies()
    world.release(world.workers[1])
    assert world.row(1, Cell.HELD)[ROOT] == 0
    assert world.row(2, Cell.HELD)[ROOT] == 1
    assert world.workers[2].is_readable()
    world.check_quiet()
    assert runs(world) == [0, 0, 1]


def test_permits_outlive_the_worker_until_its_database_is_read_again(make: Make) -> None:
    world = make(tree(root=2))
    world.start_all()
    arrive(world, 0, ROOT, 2)
    world.quiet()
    arrive(world, 1, ROOT, 2)
    world.workers[0].dies()
    world.workers[0].finish(0)
    world.check_quiet()
    assert runs(world) == [1, 0, 0]
    world.workers[0].start()
    world.check_quiet()
    assert runs(world) == [1, 1, 0]


def test_a_database_that_cannot_be_read_gives_up_its_permits(make: Make) -> None:
    world = make()
    world.start_all()
    arrive(world, 0, ROOT, 2)
    world.quiet()
    arrive(world, 1, ROOT, 2)
    world.workers[1].turn()
    world.workers[0].dies()
    world.quiet()
    assert runs(world)[1] == 0
    world.workers[0].database.running.clear()
    assert world.table.try_give_up(0)
    world.check_quiet()
    assert runs(world) == [0, 2, 0]


def test_a_fault_inside_the_lock_is_put_right_by_the_next_one(make: Make) -> None:
    world = make()
    world.start_all()
    arrive(world, 0, ROOT)

    def fail(_channel: int) -> None:
        raise RuntimeError

    worker = world.workers[0]
    assert worker.queue is not None
    worker.queue.on_take = fail
    with pytest.raises(RuntimeError):
        worker.turn()
    assert not world.mutex.held
    assert world.core.words[Header.DIRTY]
    before = world.core.words[Header.REPAIRS]
    world.workers[1].queue = None
    world.workers[1].start()
    assert world.core.words[Header.REPAIRS] == before + 1
    world.check_derived()


def test_after_a_repair_everybody_writes_what_it_holds(make: Make) -> None:
    world = make()
    world.start_all()
    arrive(world, 0, ROOT, 1)
    world.quiet()
    base = world.core.cell_base(0, ROOT) + Cell.HELD
    world.core.words[base] += 1  # as a granter leaves it that dies before it wrote GRANT
    world.core.words[Header.DIRTY] = 1
    arrive(world, 1, ROOT, 2)
    world.check_quiet()
    assert runs(world) == [1, 1, 0]


def test_a_channel_made_by_defaults_is_shared_and_survives_a_reload(make: Make) -> None:
    world = make()
    world.start_all()
    made = ChannelSpec(name="root.new", capacity=1)
    slots = [worker.worker_slot for worker in world.workers]
    assert all(worker_slot is not None and worker_slot.add_channel(made, ROOT) == 3 for worker_slot in slots)
    assert world.table.try_configure(tree())
    assert [view.name for view in world.table.channel_views() if view.retired] == ["root.new"]
    arrive(world, 0, 3, 2)
    world.check_quiet()
    assert runs(world) == [0, 0, 0]
    worker_slot = slots[0]
    assert worker_slot is not None
    assert worker_slot.channels()[3] is None
    assert worker_slot.add_channel(made, ROOT) == 3
    world.workers[0].turn()
    world.check_quiet()
    assert runs(world) == [1, 0, 0]


def test_no_room_for_another_channel(make: Make) -> None:
    world = make()
    world.start_all()
    worker_slot = world.workers[0].worker_slot
    assert worker_slot is not None
    room = world.core.layout.channels - 3
    found = [worker_slot.add_channel(ChannelSpec(name=f"root.c{i}", capacity=1), ROOT) for i in range(room + 1)]
    assert found == [*range(3, 3 + room), None]
    world.check_quiet()


# -- permits that pass to the next job ------------------------------------------------------------------------------


def busy(make: Make, *, others: int = 0, specs: list[ChannelSpec] | None = None, **more: Fairness) -> World:
    """Database 0 has one permit of the only one there is, and more to do; `others` wait, and were served before."""
    world = make(specs or [ChannelSpec(name="root", capacity=1)], **more)
    world.start_all()
    for slot in range(others, -1, -1):
        arrive(world, slot, ROOT, 20)
        world.quiet()
        if slot:
            world.workers[slot].finish(0)
            world.quiet()
    while not world.workers[0].database.running:
        next(w for w in world.workers if w.database.running).finish(0)
        world.quiet()
    for slot in range(1, others + 1):
        assert world.table.slot_view(slot).waiting_since_ns
    return world


def keeps(world: World) -> bool:
    return world.workers[0].may_succeed(0)


def test_a_permit_passes_to_the_next_job_where_nobody_else_waits(make: Make) -> None:
    world = busy(make)
    for _ in range(12):
        assert keeps(world)
        queue = world.workers[0].queue
        assert queue is not None
        queue.succeed(0)
    world.check_quiet()
    assert runs(world) == [1, 0, 0]


def test_a_slice_is_so_many_jobs_where_others_wait(make: Make) -> None:
    world = busy(make, others=1)
    assert [keeps(world) for _ in range(SLICE_JOBS + 3)] == [True] * (SLICE_JOBS - 1) + [False] * 4


def test_a_slice_is_so_long_where_others_wait(make: Make) -> None:
    world = busy(make, others=1)
    assert keeps(world)
    world.now_ns += SLICE_NS
    assert not keeps(world)


def test_one_that_was_granted_nothing_yet_ends_a_slice(make: Make) -> None:
    world = busy(make, others=1)
    arrive(world, 2, ROOT)
    world.quiet()
    assert not keeps(world)


def test_who_is_silent_and_holds_what_another_one_waits_for(make: Make) -> None:
    """Itself waiting for more is no reason, and nor is a wait that has only begun."""
    world = busy(make, others=1)
    assert world.table.silent_holders(world.now_ns + S // 2, S) == []
    assert world.table.silent_holders(world.now_ns + 2 * S, S) == [0]
    alone = busy(make)
    assert alone.table.silent_holders(alone.now_ns + 2 * S, S) == []


def test_full_is_full_for_all(make: Make) -> None:
    """The root's permits, whoever has them; a channel below it that is full does not count."""
    world = make()
    world.start_all()
    arrive(world, 0, SLOW, 2)
    world.quiet()
    assert runs(world) == [1, 0, 0]
    assert not slot_of(world.workers[1]).is_full()
    arrive(world, 1, ROOT)
    world.quiet()
    assert runs(world) == [1, 1, 0]
    assert slot_of(world.workers[2]).is_full()


def test_after_a_repair_nobody_keeps_a_permit_before_it_wrote_what_it_holds(make: Make) -> None:
    world = busy(make)
    world.core.words[Header.DIRTY] = 1
    world.workers[1].queue = None
    world.workers[1].start()
    assert not keeps(world)
    world.check_quiet()
    assert keeps(world)


def test_by_priority_a_permit_is_kept_only_where_nobody_else_waits(make: Make) -> None:
    assert keeps(busy(make, fairness=Fairness.PRIORITY))
    assert not keeps(busy(make, others=1, fairness=Fairness.PRIORITY))


NOT_KEPT = {
    "paused": [ChannelSpec(name="root", capacity=1, paused=True)],
    "nothing runs": [ChannelSpec(name="root", capacity=0)],
    "throttled": [ChannelSpec(name="root", capacity=1, throttle_s=1)],
    "sequential": [ChannelSpec(name="root", capacity=1, sequential=True)],
}


@pytest.mark.parametrize("specs", NOT_KEPT.values(), ids=NOT_KEPT.keys())
def test_a_channel_with_more_than_a_capacity_to_say_keeps_nothing(make: Make, specs: list[ChannelSpec]) -> None:
    world = busy(make)
    assert keeps(world)
    assert world.table.try_configure(specs)
    # Without a turn in between, in which it would hear of it.
    assert not keeps(world)


def test_with_weights_each_single_start_is_counted(make: Make) -> None:
    world = busy(make, others=1)
    world.table.assign(2, "db2", 5)
    assert not keeps(world)


# -- throttles ---------------------------------------------------------------------------------------------------


def test_a_throttle_is_known_to_whoever_waits_behind_it(make: Make) -> None:
    """B waits for a full channel, so with no deadline; A starts its second job there, and goes idle."""
    world = make([ChannelSpec(name="root", capacity=1, throttle_s=5)], databases=2)
    world.start_all()
    arrive(world, 0, ROOT, 2)
    world.quiet()
    world.now_ns += 30 * S
    world.quiet()
    arrive(world, 1, ROOT)
    world.quiet()
    base = world.core.turn_word(ROOT, 0)
    world.core.words[base] = 0  # A's turn again
    world.workers[0].finish(0)
    world.check_quiet()
    world.workers[0].finish(0)
    world.check_quiet()
    assert runs(world) == [0, 0]
    world.now_ns += 5 * S
    world.check_quiet()
    assert runs(world) == [0, 1]


def test_a_throttle_counts_from_the_taking_not_from_the_grant(make: Make) -> None:
    """A worker that is stopped after it was granted a permit started its job just before, or after, the next one."""
    world = make([ChannelSpec(name="root", capacity=2, throttle_s=2)], databases=3)
    world.start_all()
    arrive(world, 0, ROOT, 2)
    world.quiet()
    world.now_ns += 2 * S
    world.quiet()
    arrive(world, 1, ROOT)
    arrive(world, 2, ROOT)
    for slot in (1, 2):
        world.workers[slot].turn()
    world.now_ns += 3 * S
    world.workers[1].stopped = True
    for _ in range(2):
        world.workers[0].finish(0)
    world.workers[0].turn()
    assert not world.workers[1].database.running, "it was granted, and does not come for it"
    world.now_ns += 3 * S
    world.quiet()
    assert runs(world) == [0, 0, 1], "the next one's turn"
    world.now_ns += S // 2
    world.workers[1].stopped = False
    world.check_quiet()
    assert runs(world) == [0, 0, 1], "half a second after that one is too soon"
    world.now_ns += S + S // 2
    world.check_quiet()
    assert runs(world) == [0, 1, 1]


def test_a_shorter_throttle_counts_from_the_reload(make: Make) -> None:
    world = make(tree(throttle_s=600))
    world.start_all()
    arrive(world, 0, CALM, 2)
    world.check_quiet()
    assert world.table.try_configure(tree(throttle_s=2))
    world.check_quiet()
    assert runs(world) == [1, 0, 0]
    world.now_ns += 3 * S
    world.check_quiet()
    assert runs(world) == [2, 0, 0]


def test_a_throttle_that_is_taken_away_leaves_no_deadline(make: Make) -> None:
    world = make(tree(throttle_s=5))
    world.start_all()
    arrive(world, 0, CALM, 2)
    world.check_quiet()
    assert runs(world) == [1, 0, 0]
    assert world.table.try_configure(tree())
    world.check_quiet()
    assert runs(world) == [2, 0, 0]
    assert world.workers[0].deadline_ns is None


# -- every death between two stores ------------------------------------------------------------------------------


def prepare_release(world: World) -> Callable[[], object]:
    """Worker 0 gives two back and takes one; others are granted, one behind a throttle."""
    arrive(world, 0, ROOT, 2)
    arrive(world, 0, SLOW, 1)
    world.quiet()
    arrive(world, 1, SLOW, 2)
    arrive(world, 2, CALM, 2)
    arrive(world, 0, ROOT, 1, priority=20)
    world.quiet()
    for _ in range(2):
        world.workers[0].finish(0, failed=True)
    return world.workers[0].turn


def prepare_taking(world: World) -> Callable[[], object]:
    """Worker 1 comes for a grant, and has better things to do than to use it; it grants to others."""
    arrive(world, 0, ROOT, 3)
    world.quiet()
    arrive(world, 1, SLOW, 1)
    world.workers[1].turn()
    arrive(world, 2, ROOT, 2)
    world.workers[2].turn()
    world.workers[0].finish(0)
    world.workers[0].turn()
    queue = world.workers[1].queue
    assert queue is not None
    queue.cancel(SLOW)
    return world.workers[1].turn


def prepare_attach(world: World) -> Callable[[], object]:
    """Worker 1 begins a new life: an untaken grant, demand and running jobs of its predecessor are there."""
    arrive(world, 1, ROOT, 1)
    arrive(world, 0, ROOT, 2)
    world.quiet()
    arrive(world, 1, SLOW, 2)
    arrive(world, 2, ROOT, 2)
    world.quiet()
    world.workers[1].dies()
    world.workers[0].finish(0)
    world.workers[0].turn()
    return world.workers[1].start


def prepare_channel(world: World) -> Callable[[], object]:
    """Worker 0 adds a channel."""
    worker_slot = world.workers[0].worker_slot
    assert worker_slot is not None
    return lambda: worker_slot.add_channel(ChannelSpec(name="root.new", capacity=1), ROOT)


PREPARATIONS = (prepare_release, prepare_taking, prepare_attach, prepare_channel)
ACTOR: dict[Callable[[World], Callable[[], object]], int] = {
    prepare_release: 0,
    prepare_taking: 1,
    prepare_attach: 1,
    prepare_channel: 0,
}


def stores_of(act: Callable[[], object], world: World) -> int:
    world.fuse.set(None)
    act()
    return world.fuse.stores


@pytest.mark.parametrize("fairness", Fairness)
@pytest.mark.parametrize("prepare", PREPARATIONS)
@pytest.mark.parametrize("next_one", ["the master", "another database"])
def test_death_between_any_two_stores(
    make: Make, prepare: Callable[[World], Callable[[], None]], next_one: str, fairness: Fairness
) -> None:
    """The actor dies at each store in turn; then somebody else comes first, its successor last."""
    specs = tree(throttle_s=2)

    def world_before() -> tuple[World, Callable[[], None]]:
        world = make(specs, fairness=fairness)
        world.start_all()
        return world, prepare(world)

    reference, act = world_before()
    stores = stores_of(act, reference)
    assert stores >= 8
    for dies_at in range(stores):
        world, act = world_before()
        actor = world.workers[ACTOR[prepare]]
        world.fuse.set(dies_at)
        with pytest.raises(Died):
            act()
        world.fuse.set(None)
        actor.dies()
        if next_one == "another database":
            other = next(w for w in reversed(world.workers) if w.alive)
            arrive(world, other.slot, ROOT, 1, priority=0)
            other.turn()
        world.check_quiet()
        actor.start()
        world.check_quiet()
        finish_all(world)


def finish_all(world: World) -> None:
    """All jobs run to their end, within the limits; then nothing is held."""
    for worker in world.workers:
        assert worker.queue is not None
        worker.queue.set_failed(ROOT, 0)
        worker.queue.set_failed(SLOW, 0)
    for _ in range(100):
        world.check_quiet()
        busy = [worker for worker in world.workers if worker.database.running]
        if not busy and not any(any(w.database.waiting.values()) for w in world.workers):
            break
        if busy:
            busy[0].finish(0)
        world.now_ns += 2 * S
    else:
        raise AssertionError(f"still waiting: {[w.database.waiting for w in world.workers]}")
    assert [view.running for view in world.table.channel_views()][:3] == [0, 0, 0]


def test_death_between_any_two_stores_of_a_repair(make: Make) -> None:
    """Whoever repairs dies too, at each store in turn."""

    def world_before() -> World:
        world = make(tree(throttle_s=2))
        world.start_all()
        act = prepare_release(world)
        world.fuse.set(stores_of_release * 2 // 3)
        with pytest.raises(Died):
            act()
        world.fuse.set(None)
        world.workers[0].dies()
        return world

    reference = make(tree(throttle_s=2))
    reference.start_all()
    stores_of_release = stores_of(prepare_release(reference), reference)
    reference = world_before()
    arrive(reference, 1, ROOT)
    stores = stores_of(reference.workers[1].turn, reference)
    for dies_at in range(stores):
        world = world_before()
        arrive(world, 1, ROOT)
        world.fuse.set(dies_at)
        with pytest.raises(Died):
            world.workers[1].turn()
        world.fuse.set(None)
        world.workers[1].dies()
        world.check_quiet()
        for slot in (0, 1):
            world.workers[slot].start()
        finish_all(world)


@pytest.mark.parametrize("is_vacant", [False, True])
def test_a_half_added_channel_is_none(make: Make, is_vacant: bool) -> None:
    """A killed process leaves no channel that counts without its settings, at none of its stores.

    `is_vacant`: the record was another channel's.
    """

    def begin() -> World:
        world = make()
        if is_vacant:
            former = ChannelSpec(name="root.slow.former", capacity=3, sequential=False, throttle_s=9, paused=True)
            for specs in ([*tree(), former], tree(), tree()):
                assert world.table.try_configure(specs)
            assert world.core.tree().names[3] == ""
        world.start_all()
        return world

    world = begin()
    stores = stores_of(prepare_channel(world), world)
    for dies_at in range(stores):
        world = begin()
        act = prepare_channel(world)
        world.fuse.set(dies_at)
        with pytest.raises(Died):
            act()
        world.fuse.set(None)
        world.workers[0].dies()
        world.quiet()
        worker_slot = world.workers[1].worker_slot
        assert worker_slot is not None
        assert worker_slot.add_channel(ChannelSpec(name="root.new", capacity=1), ROOT) == 3
        assert worker_slot.channels()[3] == ChannelSpec(name="root.new", capacity=1)
        arrive(world, 1, 3, 1)
        world.check_quiet()
        assert runs(world)[1] == 1


def test_a_throttle_holds_whatever_dies(make: Make) -> None:
    """Two starts in a throttled channel are never closer than its seconds, at whichever store the granter dies."""
    specs = [ChannelSpec(name="root", capacity=3), ChannelSpec(name="root.calm", capacity=None, throttle_s=2)]

    def world_before() -> World:
        world = make(specs)
        world.start_all()
        arrive(world, 0, ROOT, 3)
        world.quiet()
        for slot in (1, 2):
            arrive(world, slot, 1, 2)
            world.workers[slot].turn()
        world.workers[0].finish(0)
        world.workers[0].finish(0)
        return world

    reference = world_before()
    for dies_at in range(stores_of(reference.workers[0].turn, reference)):
        world = world_before()
        world.fuse.set(dies_at)
        with pytest.raises(Died):
            world.workers[0].turn()
        world.fuse.set(None)
        world.workers[0].dies()
        world.check_quiet()
        calm = [start for start in world.started if start[1] == 1]
        assert len(calm) <= 1, f"two started at once after a death at store {dies_at}"


def test_the_words_of_a_slot_are_its_own(make: Make) -> None:
    world = make()
    world.start_all()
    worker_slot = world.workers[1].worker_slot
    assert worker_slot is not None
    worker_slot.set_counter(Slot.PENDING, 7)
    worker_slot.report_pending(SLOW, 5, 0)
    worker_slot.set_message("é" * 200)
    view = world.table.slot_view(1)
    assert (view.database, view.pending) == ("db1", 7)
    assert view.message.startswith("é" * 100)
    assert [(each.name, each.pending) for each in world.table.channel_views()][:2] == [("root", 5), ("root.slow", 5)]
    assert world.table.holders() == {"root": [("db1", 0, 5)], "root.slow": [("db1", 0, 5)]}


def test_a_start_that_is_given_back_after_its_rate_was_taken_away_and_given_again_frees_nobody_else_s_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rated = [ChannelSpec(name="root", capacity=4), ChannelSpec(name="root.slow", capacity=None, rate=Rate(2, 60))]
    plain = [ChannelSpec(name="root", capacity=4), ChannelSpec(name="root.slow", capacity=None)]
    world = World(rated, [1, 1])
    world.install_clock(monkeypatch)
    try:
        world.start_all()
        core, now_ns = world.core, world.now_ns
        with core.locked(0):
            rates.count_start(core, 1, now_ns)
        world.now_ns += 1_000_000_000
        assert world.table.try_configure(plain)
        assert world.table.try_configure(rated)
        with core.locked(1):
            rates.count_start(core, 1, world.now_ns)
        with core.locked(0):
            rates.take_back_start(core, 1, now_ns, world.now_ns)
        assert core.ring(1).used(world.now_ns) == 1
        with core.locked(0):
            rates.delay_start(core, 1, now_ns, world.now_ns)  # another one that was counted then is sent after all
        assert core.ring(1).used(world.now_ns) == 2
    finally:
        world.close()
