"""The words of the shared table that follow from others: what each change settles."""

from __future__ import annotations

from qjsupervisor.channelspec import Share
from qjsupervisor.table.core import TableCore
from qjsupervisor.table.layout import Channel, Header, Slot

from .cores import LINE, ROOT, SLOW, SUB, is_closed, total


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
