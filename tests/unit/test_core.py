"""The words and the lock of the shared table: what each change settles, and what a repair makes of a dead one's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from qjsupervisor.channelspec import ChannelSpec, Share
from qjsupervisor.states import Fairness
from qjsupervisor.table.core import TableCore
from qjsupervisor.table.layout import Channel, Header, Slot
from qjsupervisor.table.semaphore import SemaphoreTable

S = 1_000_000_000
ROOT, SUB, LINE, SLOW = range(4)
Make = Callable[..., TableCore]


@pytest.fixture
def core() -> Iterator[TableCore]:
    specs = [
        ChannelSpec(name="root", capacity=2),
        ChannelSpec(name="root.a", capacity=1),
        ChannelSpec(name="root.line", capacity=1, sequential=True),
        ChannelSpec(name="root.slow", capacity=None, throttle_s=5),
    ]
    table = SemaphoreTable(specs, slots=3, fairness=Fairness.ROUND_ROBIN)
    for slot, name in enumerate(("one", "two")):
        table.assign(slot, name, 1)
    table.open_start_barrier()
    yield table.core
    for wakeup in table.core.wakeups:
        os.close(wakeup)


def total(core: TableCore, channel: int) -> int:
    return core.words[core.channel_base(channel) + Channel.TOTAL]


def is_closed(core: TableCore, channel: int) -> bool:
    return bool(core.read_bitmap(core.layout.closed, core.layout.channels) >> channel & 1)


def test_a_permit_counts_in_its_channel_and_above_and_closes_what_is_full(core: TableCore) -> None:
    core.add_held(0, SUB, 1, 0)
    assert [total(core, channel) for channel in (ROOT, SUB)] == [1, 1]
    assert [is_closed(core, channel) for channel in (ROOT, SUB)] == [False, True]
    assert not core.is_full()
    core.add_held(1, ROOT, 1, 0)
    assert core.is_full()
    assert is_closed(core, ROOT)
    assert core.words[core.slot_base(0) + Slot.TOTAL] == 1
    core.add_held(0, SUB, -1, 0)
    assert [is_closed(core, channel) for channel in (ROOT, SUB)] == [False, False]


def test_a_failed_job_closes_a_sequential_channel_and_no_other(core: TableCore) -> None:
    for channel in (LINE, SUB):
        core.set_failed(0, channel, 1, 0)
    core.set_failed(1, LINE, 1, 0)
    assert (is_closed(core, LINE), is_closed(core, SUB)) == (True, False)
    core.set_failed(0, LINE, 0, 0)
    assert is_closed(core, LINE), "there is another one"
    core.set_failed(1, LINE, 0, 0)
    assert not is_closed(core, LINE)


def test_a_permit_of_a_channel_that_shrank_must_not_be_used(core: TableCore) -> None:
    core.add_held(0, SUB, 1, 0)
    assert not core.is_over(SUB)
    core.words[core.channel_base(ROOT) + Channel.CAPACITY] = 0
    assert core.is_over(SUB)


def test_a_share_that_is_not_reached_is_reserved(core: TableCore) -> None:
    core.put_share(0, Share(minimum=2, maximum=3, reserve=True))
    core.settle_share(0)
    assert core.words[Header.RESERVED] == 2
    core.add_held(0, ROOT, 1, 0)
    assert core.words[Header.RESERVED] == 1
    core.add_held(0, ROOT, 3, 0)
    assert core.words[Header.RESERVED] == 0
    assert core.exceeds_share(0)
    assert not core.exceeds_share(1)


def test_who_waits_is_known_by_channel_and_in_order(core: TableCore) -> None:
    core.put_demand(0, SUB, True)
    core.put_demand(1, SUB, True)
    core.put_demand(1, LINE, True)
    assert core.waiting_slots(1 << SUB) == 0b11
    assert core.waiting_slots(1 << LINE | 1 << SLOW) == 0b10
    core.drop_demand(1)
    assert core.waiting_slots(1 << SUB | 1 << LINE) == 0b01
    assert not core.read_bitmap(core.layout.active, core.layout.channels) >> LINE & 1


def test_nothing_may_start_before_the_barrier_or_after_the_lease(core: TableCore) -> None:
    assert core.may_start(S)
    core.words[Header.LEASE_UNTIL_NS] = S
    assert not core.may_start(S)
    core.words[Header.LEASE_UNTIL_NS] = 2 * S
    core.words[Header.START_BARRIER] = 0
    assert not core.may_start(S)


def test_what_was_left_in_the_middle_of_a_change_is_put_right_by_the_next_one(core: TableCore) -> None:
    core.add_held(0, SUB, 1, 0)
    core.set_failed(0, LINE, 1, 0)
    repairs, generation = core.words[Header.REPAIRS], core.words[Header.GENERATION]
    core.words[core.channel_base(ROOT) + Channel.TOTAL] = 7
    core.words[core.channel_base(LINE) + Channel.FAILED] = 7
    core.put_bit(core.layout.closed, SUB, False)
    with pytest.raises(ZeroDivisionError), core.locked(0):
        raise ZeroDivisionError
    assert core.words[Header.DIRTY]
    with core.locked(0):
        assert [total(core, channel) for channel in (ROOT, SUB)] == [1, 1]
        assert core.words[core.channel_base(LINE) + Channel.FAILED] == 1
        assert is_closed(core, SUB)
        assert is_closed(core, LINE)
    assert core.words[Header.REPAIRS] == repairs + 1
    assert core.words[Header.GENERATION] > generation
    with core.locked(0):
        pass
    assert core.words[Header.REPAIRS] == repairs + 1, "once is enough"


def test_a_worker_is_woken_and_all_that_run_are(core: TableCore) -> None:
    core.wake(1)
    assert os.eventfd_read(core.wakeups[1]) == 1
    core.words[core.slot_base(0) + Slot.PID] = 7
    core.wake_all()
    assert os.eventfd_read(core.wakeups[0]) == 1
    for slot in (1, 2):
        with pytest.raises(BlockingIOError):
            os.eventfd_read(core.wakeups[slot])
