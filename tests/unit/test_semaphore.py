"""The master's side of the shared table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.errors import SemaphoreError
from qjsupervisor.states import Fairness
from qjsupervisor.table.channels import SPARE_CHANNELS
from qjsupervisor.table.layout import MAX_CLASSES, Cell, Header
from qjsupervisor.table.mutex import Acquired
from qjsupervisor.table.semaphore import STUCK_NS, SemaphoreTable

S = 1_000_000_000
Make = Callable[..., SemaphoreTable]


@pytest.fixture
def make() -> Iterator[Make]:
    tables: list[SemaphoreTable] = []

    def made(*specs: ChannelSpec, slots: int = 2) -> SemaphoreTable:
        table = SemaphoreTable(specs, slots=slots, fairness=Fairness.ROUND_ROBIN)
        tables.append(table)
        return table

    yield made
    for table in tables:
        for wakeup in table.core.wakeups:
            os.close(wakeup)


def channel(name: str, capacity: int | None = 1, **more: bool | int) -> ChannelSpec:
    return ChannelSpec(name=name, capacity=capacity, **more)  # type: ignore[arg-type]


# channels, (name, capacity, paused) that the table then has
TREES = [
    ((), [("root", 1, False)]),
    ((channel("root", 4),), [("root", 4, False)]),
    ((channel("root", 0),), [("root", 0, False)]),
    ((channel("root.a", 0),), [("root", 1, False), ("root.a", None, False)]),
    (
        (channel("root.a.b", 2), channel("root", 3, paused=True)),
        [("root", 3, True), ("root.a", None, False), ("root.a.b", 2, False)],
    ),
]


@pytest.mark.parametrize(("specs", "expected"), TREES)
def test_channels_as_configured(
    make: Make, specs: tuple[ChannelSpec, ...], expected: list[tuple[str, int | None, bool]]
) -> None:
    views = make(*specs).channel_views()
    assert [(view.name, view.capacity, view.paused) for view in views] == expected


def test_a_reload_changes_in_place_adds_and_retires(make: Make) -> None:
    table = make(channel("root", 2), channel("root.a"), channel("root.b"))
    generation = table.core.words[Header.GENERATION]
    assert table.try_configure([channel("root", 3), channel("root.b", 2, sequential=False), channel("root.c")])
    assert [(v.name, v.capacity, v.retired) for v in table.channel_views()] == [
        ("root", 3, False),
        ("root.a", 1, True),
        ("root.b", 2, False),
        ("root.c", 1, False),
    ]
    assert table.core.words[Header.GENERATION] > generation
    assert table.try_configure([channel("root", 3), channel("root.a", 5)])
    assert [(v.name, v.retired) for v in table.channel_views()][1:3] == [("root.a", False), ("root.b", True)]


def test_a_reload_that_does_not_fit_changes_nothing(make: Make) -> None:
    table = make(channel("root", 2), channel("root.a"))
    before = table.channel_views()
    too_many = [channel("root", 9), *(channel(f"root.c{i}") for i in range(SPARE_CHANNELS + 1))]
    with pytest.raises(SemaphoreError, match="no room for channel"):
        table.try_configure(too_many)
    with pytest.raises(SemaphoreError, match="longer than 256 bytes"):
        table.try_configure([channel("root", 9), channel("root." + "x" * 300)])
    assert table.channel_views() == before
    assert table.try_configure([channel("root", 3)])


def test_a_look_at_everything_reads_each_database_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each channel: `status` of many of both would hold up the master for seconds."""
    table = make(channel("root", 9), *(channel(f"root.c{number}", 9) for number in range(40)), slots=3)
    for slot in range(3):
        table.assign(slot, f"db{slot}", 1)
        for number in range(1, 41):
            table.core.words[table.core.cell_base(slot, number) + Cell.PENDING] = 1
    reads: list[int] = []
    read_row = SemaphoreTable.row
    monkeypatch.setattr(SemaphoreTable, "row", lambda self, *where: reads.append(1) or read_row(self, *where))
    assert table.channel_views()[0].pending == 120
    assert table.holders()["root"] == [("db0", 0, 40), ("db1", 0, 40), ("db2", 0, 40)]
    assert len(reads) <= 3 * 4


def test_slots_are_named_and_vacated(make: Make) -> None:
    table = make(channel("root", 2))
    table.assign(1, "db", 7)
    view = table.slot_view(1)
    assert (view.database, view.weight, view.epoch, view.pid) == ("db", 7, 1, 0)
    assert table.try_vacate(1)
    view = table.slot_view(1)
    assert (view.database, view.weight, view.epoch) == ("", 0, 1)
    assert table.core.class_bitmaps() == [0]
    table.assign(1, "other", 7)
    assert (table.slot_view(1).database, table.slot_view(1).epoch) == ("other", 2)


def test_so_many_weights_and_no_more(make: Make) -> None:
    table = make(channel("root", 2))
    for weight in range(1, MAX_CLASSES + 1):
        table.assign(0, "db", weight)
    assert table.core.class_bitmaps() == [0] * (MAX_CLASSES - 1) + [1]
    with pytest.raises(SemaphoreError, match="fairness weights"):
        table.assign(1, "other", 99)


def test_the_gate_opens_once_and_wakes(make: Make) -> None:
    table = make(channel("root", 2))
    table.assign(0, "db", 1)
    table.worker_slot(0).attach()
    assert not table.start_barrier_open
    table.open_start_barrier()
    table.open_start_barrier()
    assert table.start_barrier_open
    assert os.eventfd_read(table.core.wakeups[0]) == 1


def test_the_master_does_not_wait_for_the_lock(make: Make) -> None:
    table = make(channel("root", 2))
    assert table.core.mutex.acquire(0) is Acquired.YES
    assert not table.try_after_death(0)
    assert not table.try_give_up(0)
    assert not table.try_vacate(0)
    assert not table.try_configure([channel("root", 5)])
    table.core.mutex.release()
    assert table.try_after_death(0)
    assert table.try_configure([channel("root", 5)])
    assert table.channel_views()[0].capacity == 5


def test_heartbeats_have_an_age(make: Make) -> None:
    table = make(channel("root", 2))
    table.assign(0, "db", 1)
    worker_slot = table.worker_slot(0)
    worker_slot.heartbeat(5 * S)
    assert table.heartbeat_age_s(0, 7 * S) == 2
    assert table.heartbeat_age_s(0, 4 * S) == 0


def test_a_holder_that_does_not_move_for_a_second_is_to_be_ended(make: Make) -> None:
    table = make(channel("root", 2))
    assert table.stuck_owner(0) is None
    assert table.core.enter(0)
    assert table.stuck_owner(0) is None
    assert table.stuck_owner(STUCK_NS - 1) is None
    assert table.stuck_owner(STUCK_NS) == os.getpid()
    table.core.leave()
    assert table.stuck_owner(2 * STUCK_NS) is None
    assert table.core.enter(0)
    assert table.stuck_owner(3 * STUCK_NS) is None
    table.core.leave()
    assert table.core.enter(0)
    assert table.stuck_owner(4 * STUCK_NS + 1) is None, "it has moved"
    table.core.leave()


def test_failed_jobs_are_counted_in_their_channel_and_above(make: Make) -> None:
    """And a sequential one says which databases stop it."""
    table = make(channel("root", 4), channel("root.seq", 1, sequential=True), channel("root.seq.below", 1))
    for slot, name in enumerate(("b", "a")):
        table.assign(slot, name, 1)
    for slot, number, failed in ((0, 1, 2), (1, 1, 1), (1, 2, 5), (1, 0, 1)):
        table.core.set_failed(slot, number, failed, 0)
    views = {view.name: (view.failed, view.stopped_by) for view in table.channel_views()}
    assert views == {"root": (9, ()), "root.seq": (8, ("a", "b")), "root.seq.below": (5, ())}


def test_what_would_find_no_room_is_refused_before_anything_is_changed() -> None:
    root = ChannelSpec(name="root", capacity=4)
    table = SemaphoreTable([root], slots=1, fairness=Fairness.ROUND_ROBIN)
    room = table.core.layout.channels - 1
    table.check_room([root, *(ChannelSpec(name=f"root.c{number}", capacity=1) for number in range(room))])
    with pytest.raises(SemaphoreError, match="no room for channel"):
        table.check_room([root, *(ChannelSpec(name=f"root.c{number}", capacity=1) for number in range(room + 1))])
    assert [view.name for view in table.channel_views()] == ["root"]
