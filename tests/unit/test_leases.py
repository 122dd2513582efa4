"""The broker's side of the shared table: what it reads there, and what it writes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.states import Fairness
from qjsupervisor.table.layout import Channel, Header, Slot
from qjsupervisor.table.leases import LeaseTable
from qjsupervisor.table.semaphore import SemaphoreTable

S = 1_000_000_000


@pytest.fixture
def table() -> Iterator[SemaphoreTable]:
    specs = [
        ChannelSpec(name="root", capacity=4),
        ChannelSpec(name="root.free", capacity=None),
        ChannelSpec(name="root.line", capacity=1, sequential=True),
        ChannelSpec(name="root.slow", capacity=None, throttle_s=9),
    ]
    made = SemaphoreTable(specs, slots=2, fairness=Fairness.ROUND_ROBIN, leased=True)
    made.assign(0, "one", 3)
    made.open_start_barrier()
    yield made
    for descriptor in (*made.core.wakeups, made.core.broker_wakeup):
        os.close(descriptor)


@pytest.fixture
def leases(table: SemaphoreTable) -> LeaseTable:
    return LeaseTable(table)


def word(table: SemaphoreTable, channel: str, which: int) -> int:
    return table.core.words[table.core.channel_base(table.core.tree().index[channel]) + which]


def test_only_what_something_limits_is_told(leases: LeaseTable) -> None:
    with leases.locked() as locked:
        facts = locked.read()
    assert set(facts.channels) == {"root", "root.line", "root.slow"}
    assert facts.is_over, "nothing was leased yet"
    root, slow = facts.channels["root"], facts.channels["root.slow"]
    assert (root.capacity, root.right, root.usable, root.held, root.sequential) == (4, 0, 0, 0, False)
    assert (slow.capacity, slow.throttle_s, slow.token) == (None, 9, False)
    (one,) = facts.slots
    assert (one.slot, one.database, one.term, one.settled, one.held) == (0, "one", 0, 0, {})


def test_held_and_failed_jobs_of_a_database(table: SemaphoreTable, leases: LeaseTable) -> None:
    index = table.core.tree().index
    table.core.add_held(0, index["root.line"], 1, 0)
    table.core.set_failed(0, index["root.line"], 1, 0)
    table.core.set_failed(0, index["root.free"], 1, 0)
    with leases.locked() as locked:
        facts = locked.read()
    (one,) = facts.slots
    assert one.held == {"root": 1, "root.line": 1}
    assert one.failed == {"root.line": 1}
    assert facts.channels["root.line"].is_closed
    assert facts.channels["root"].held == 1


def test_rights_are_written_and_the_rest_stays(table: SemaphoreTable, leases: LeaseTable) -> None:
    with leases.locked() as locked:
        locked.put_rights({"root": 3}, {"root.slow": True}, {"root": 2})
    assert (word(table, "root", Channel.RIGHT), word(table, "root", Channel.CAPACITY)) == (3, 2)
    assert word(table, "root.slow", Channel.TOKEN) == 1
    with leases.locked() as locked:
        locked.put_rights({}, {"root.slow": False}, {})
        facts = locked.read()
    assert (facts.channels["root"].right, facts.channels["root"].usable) == (3, 2)
    assert not facts.channels["root.slow"].token


def test_the_next_start_of_another_supervisor_is_kept_to(table: SemaphoreTable, leases: LeaseTable) -> None:
    with leases.locked() as locked:
        locked.put_not_before("root.slow", 5.0)
        locked.put_not_before("root.slow", 1.0)
        facts = locked.read()
    assert facts.channels["root.slow"].not_before_s == pytest.approx(5.0)


def test_a_tenure_that_is_settled_wakes_its_worker_once(table: SemaphoreTable, leases: LeaseTable) -> None:
    for _ in range(2):
        with leases.locked() as locked:
            locked.put_settled(0, 7)
    assert table.core.words[table.core.slot_base(0) + Slot.SETTLED] == 7
    assert os.eventfd_read(table.core.wakeups[0]) == 1


def test_permits_are_forgotten_where_the_coordinator_keeps_them_and_only_there(
    table: SemaphoreTable, leases: LeaseTable
) -> None:
    table.core.add_held(0, 0, 2, 0)
    base = table.core.slot_base(0)
    with leases.locked() as locked:
        locked.forget(0, "one")
    assert word(table, "root", Channel.TOTAL) == 2, "it was not let go"
    table.core.words[base + Slot.LET_GO] = 1
    with leases.locked() as locked:
        locked.forget(0, "another of its slot")
    assert word(table, "root", Channel.TOTAL) == 2
    with leases.locked() as locked:
        locked.forget(0, "one")
    assert (word(table, "root", Channel.TOTAL), table.core.words[base + Slot.LET_GO]) == (0, 0)


def test_when_the_workers_are_gone_all_is_handed_over(table: SemaphoreTable, leases: LeaseTable) -> None:
    base = table.core.slot_base(0)
    table.core.words[base + Slot.TERM] = 7
    leases.let_all_go()
    assert (table.core.words[base + Slot.TERM], table.core.words[base + Slot.LET_GO]) == (0, 1)


def test_a_lease_that_begins_anew_wakes_who_waits_and_a_longer_one_does_not(
    table: SemaphoreTable, leases: LeaseTable
) -> None:
    table.core.words[table.core.slot_base(0) + Slot.PID] = 7
    leases.lease_until(10 * S, 5 * S)
    assert os.eventfd_read(table.core.wakeups[0]) == 1
    leases.lease_until(20 * S, 6 * S)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(table.core.wakeups[0])
    assert table.core.words[Header.LEASE_UNTIL_NS] == 20 * S


def test_each_session_has_a_larger_number_also_after_the_broker_died(table: SemaphoreTable) -> None:
    assert [LeaseTable(table).next_session() for _ in range(3)] == [1, 2, 3]


def test_a_wakeup_is_emptied_whether_there_was_one_or_not(table: SemaphoreTable, leases: LeaseTable) -> None:
    leases.drain_wakeup()
    table.core.wake_broker()
    leases.drain_wakeup()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(leases.wakeup)
