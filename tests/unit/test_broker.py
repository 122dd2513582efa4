"""One supervisor's broker, step by step; under every fault: test_rules.py."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from structlog.typing import EventDict

from qjsupervisor.broker.broker import MARGIN_S
from qjsupervisor.broker.rules import LEASE_S
from qjsupervisor.table.layout import Channel, Header

from .clusters import Supervisor, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def one(world: World) -> Iterator[Supervisor]:
    made = Supervisor(world, "m1")
    yield made
    made.end()


def capacity(of: Supervisor, channel: str = "root") -> int:
    return of.table.core.words[of.table.core.channel_base(of.index[channel]) + Channel.CAPACITY]


def right(of: Supervisor, channel: str = "root") -> int:
    return of.table.core.words[of.table.core.channel_base(of.index[channel]) + Channel.RIGHT]


def talk(*supervisors: Supervisor) -> None:
    """Until nothing changes any more: each broker exchanges, each worker starts what may start."""
    for _ in range(8):
        for each in supervisors:
            each.coordinator.tells = True
            each.step("")
            each.coordinator.tells = False
            each.step("")
            for database in each.jobs:
                each.turn(database)


def finish(of: Supervisor, database: str) -> None:
    """One of its jobs in the root ends."""
    of.world.rows[database]["root"] -= 1
    jobs, number = of.jobs[database], of.index["root"]
    jobs.held[number] -= 1
    jobs.changed.add(number)
    of.turn(database)


def test_nothing_may_start_before_it_was_leased(one: Supervisor, world: World) -> None:
    one.lead("a")
    for _ in range(3):
        one.turn("a")
    assert (capacity(one), right(one), world.running("root")) == (0, 0, 0)
    talk(one)
    assert world.running("root") == 3
    assert right(one) == 3


def lease_until_s(of: Supervisor) -> float:
    return of.table.core.words[Header.LEASE_UNTIL_NS] / 1e9


def test_the_lease_counts_from_before_the_statement_was_sent(one: Supervisor) -> None:
    before_s = time.monotonic()
    one.step("")
    assert before_s <= lease_until_s(one) - (LEASE_S - MARGIN_S) <= time.monotonic()
    until_s = lease_until_s(one)
    one.coordinator.tells = True
    one.step("")
    one.step("answer lost")
    assert one.coordinator.connected is False
    assert lease_until_s(one) == until_s, "what was not answered renews nothing"
    one.coordinator.tells = False
    one.step("")
    assert lease_until_s(one) > until_s


def test_a_lost_coordinator_is_told_once_and_so_is_its_return(one: Supervisor, log_events: list[EventDict]) -> None:
    one.step("")
    one.coordinator.tells = True
    one.step("")
    for _ in range(3):
        one.step("statement lost")
    one.coordinator.tells = False
    one.step("")
    assert [event["event"] for event in log_events] == ["coordinator_joined", "coordinator_lost", "coordinator_joined"]
    assert "nothing starts after the lease's end" in log_events[1]["reason"]


def test_what_runs_is_not_taken_away_and_what_ends_goes_to_whom_lacks_it(one: Supervisor, world: World) -> None:
    one.lead("a")
    talk(one)
    other = Supervisor(world, "m2")
    try:
        other.lead("b")
        talk(one, other)
        assert (right(one), right(other)) == (3, 0), "all of it runs"
        assert capacity(one) < 3, "nothing new starts in its place"
        finish(one, "a")
        talk(one, other)
        assert (right(one), right(other)) == (2, 1)
        assert (sum(world.rows["a"].values()), sum(world.rows["b"].values())) == (2, 1)
    finally:
        other.end()


def test_what_a_broker_that_died_had_is_what_the_next_one_registers(one: Supervisor, world: World) -> None:
    one.lead("a")
    talk(one)
    session = one.table.core.words[Header.BROKER_SESSION]
    one.end_broker()
    one.start_broker()
    talk(one)
    assert one.table.core.words[Header.BROKER_SESSION] == session + 1
    (entry,) = world.ledger.members.values()
    assert (entry.session, entry.lease["root"], entry.held["root"]) == (session + 1, 3, 3)


def test_other_capacities_are_told_by_channel(one: Supervisor, world: World, log_events: list[EventDict]) -> None:
    talk(one)
    other = Supervisor(world, "m2")
    try:
        other.table.core.words[other.table.core.channel_base(0) + Channel.CONFIGURED] = 9
        talk(other, one)
    finally:
        other.end()
    told = [event for event in log_events if event["event"] == "capacities_differ"]
    assert {event["channel"] for event in told} == {"root"}
    assert "has 9" in told[0]["reason"]
