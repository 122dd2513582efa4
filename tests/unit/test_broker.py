"""One supervisor's broker, step by step; under every fault: test_rules.py."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

import pytest
from structlog.typing import EventDict

from qjsupervisor.broker.broker import MARGIN_S
from qjsupervisor.broker.ledger import LedgerError
from qjsupervisor.broker.rules import FORGET_S, LEASE_S, forget
from qjsupervisor.channelspec import Share
from qjsupervisor.table.layout import Channel, Header

from .clusters import DATABASES, Supervisor, World


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


def finish(of: Supervisor, database: str, channel: str = "root", *, again: bool = False) -> None:
    """One of its jobs ends; with `again` another one waits in its place."""
    of.world.rows[database][channel] -= 1
    jobs, number = of.jobs[database], of.index[channel]
    jobs.waiting[number] += again
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


def test_a_session_that_ends_at_once_is_a_lost_coordinator(
    one: Supervisor, log_events: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(one.coordinator, "fileno", lambda: -1)
        one.step("")
    assert [event["event"] for event in log_events] == ["coordinator_lost"]
    assert not one.coordinator.connected


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


# -- the floor -----------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(world: World) -> Iterator[Supervisor]:
    """A supervisor that keeps two permits of the root for when it is cut off."""
    made = Supervisor(world, "m1", (("root", 2),))
    yield made
    made.end()


def floor(of: Supervisor) -> int:
    return of.table.core.words[of.table.core.channel_base(0) + Channel.FLOOR]


def cut_off(of: Supervisor) -> None:
    """Its lease is over, by its own clock and by the coordinator's."""
    of.table.core.words[Header.LEASE_UNTIL_NS] = 0
    of.coordinator.tells = False
    of.world.now_s += LEASE_S + 1


def test_a_floor_is_used_while_the_coordinator_is_away(kept: Supervisor, world: World) -> None:
    kept.lead("a")
    talk(kept)
    assert (world.rows["a"], floor(kept)) == ({"root": 2, "root.s": 1}, 2)
    cut_off(kept)
    finish(kept, "a", "root.s", again=True)
    assert world.rows["a"] == {"root": 2, "root.s": 0}, "at its floor nothing new starts"
    finish(kept, "a", again=True)
    assert world.rows["a"] == {"root": 2, "root.s": 0}, "below it something does, but not in a channel without one"
    assert (capacity(kept), right(kept)) == (2, 3)
    talk(kept)
    assert (world.running("root"), capacity(kept), right(kept)) == (3, 3, 3), "as before"


def test_without_a_floor_nothing_starts(one: Supervisor, world: World) -> None:
    one.lead("a")
    talk(one)
    cut_off(one)
    finish(one, "a", again=True)
    assert world.running("root") == 2


def test_a_floor_is_not_lent(kept: Supervisor, world: World) -> None:
    talk(kept)
    other = Supervisor(world, "m2")
    try:
        other.lead("b")
        talk(other, kept)
        assert (right(kept), right(other), world.running("root")) == (2, 1, 1)
        cut_off(kept)
        talk(other)
        world.now_s += FORGET_S
        talk(other)
        assert right(other) == 3, "it serves no database, so it can start nothing"
    finally:
        other.end()


def test_a_lost_supervisor_that_serves_a_database_keeps_its_floor(kept: Supervisor, world: World) -> None:
    kept.lead("a")
    talk(kept)
    other = Supervisor(world, "m2")
    try:
        other.lead("b")
        cut_off(kept)
        finish(kept, "a", "root.s")
        talk(other)
        world.now_s += FORGET_S
        talk(other)
        finish(kept, "a", again=True)
        assert (sum(world.rows["a"].values()), sum(world.rows["b"].values())) == (2, 1)
        kept.lose("a")
        other.lead("a")
        kept.stand_by("a")
        for _ in range(2):
            talk(other)
            world.rows["a"]["root"] -= 1
            other.jobs["a"].held[other.index["root"]] -= 1
            other.jobs["a"].changed.add(other.index["root"])
            other.turn("a")
        talk(other)
        assert (right(other), world.running("root")) == (3, 3), "it serves nothing any more: its floor is free"
    finally:
        other.end()


def test_an_operator_frees_the_floor_of_a_lost_supervisor(kept: Supervisor, world: World) -> None:
    kept.lead("a")
    talk(kept)
    other = Supervisor(world, "m2")
    now = (str(world.incarnation),)
    try:
        other.lead("b")
        talk(other)
        (who,) = [f"{m.host}:{m.pid}" for name, m in world.ledger.members.items() if name == "m1"]
        with pytest.raises(LedgerError, match="is alive: stop it"):
            forget(world.ledger, who, world.now_s, *now)
        with pytest.raises(LedgerError, match=f"no member x:1; there are: .*{who}"):
            forget(world.ledger, "x:1", world.now_s, *now)
        cut_off(kept)
        talk(other)
        with pytest.raises(LedgerError, match="may still run: try again in"):
            forget(world.ledger, who, world.now_s, *now)
        world.now_s += FORGET_S
        talk(other)
        assert world.ledger.members["m1"].limbo == {"root": 2}
        with pytest.raises(LedgerError, match="may still run: try again in 30 s"):  # a coordinator that was restarted
            forget(copy.deepcopy(world.ledger), who, world.now_s, "another")
        assert forget(world.ledger, who, world.now_s, *now) == {"root": 2}
        assert "m1" not in world.ledger.members
        talk(other)
        assert right(other) == 3
    finally:
        other.end()


# -- a capacity that is lowered ------------------------------------------------------------------------------------


def test_a_lowered_capacity_holds_over_all(one: Supervisor, world: World) -> None:
    """Each has less than the new capacity, both together more: they must shrink, though neither lacks a permit."""
    other = Supervisor(world, "m2")
    both = ((one, "a"), (other, "b"))

    def configure(capacity: int) -> None:
        for each, _database in both:
            each.table.core.words[each.table.core.channel_base(0) + Channel.CONFIGURED] = capacity

    try:
        configure(4)
        for each, database in both:
            each.lead(database)
            each.jobs[database].waiting = {each.index["root"]: 2}
        talk(one, other)
        for each, database in both:
            finish(each, database)
        assert (right(one), right(other), world.running("root")) == (2, 2, 2), "each with one to spare"
        configure(1)
        talk(one, other)
        for each, database in (*both, *both):
            if world.rows[database]["root"]:
                finish(each, database, again=True)
                talk(one, other)
        assert world.running("root") == 1
    finally:
        other.end()


# -- minimums ------------------------------------------------------------------------------------------------------


def guarantee(of: Supervisor, database: str, minimum: int, *, reserve: bool = False) -> None:
    slot, core = DATABASES.index(database), of.table.core
    with core.locked(None):
        core.put_share(slot, Share(minimum=minimum, reserve=reserve))
        core.settle_share(slot)


def test_a_database_has_its_minimum_though_another_supervisor_has_more_to_do(one: Supervisor, world: World) -> None:
    """Two databases there and one here, of equal weight: a share by weight would be one permit."""
    other = Supervisor(world, "m2")
    try:
        guarantee(one, "a", 2)
        for supervisor, database in ((other, "b"), (other, "c"), (one, "a")):
            supervisor.lead(database)
        talk(other, one)
        for _ in range(6):
            for supervisor, database in ((other, "b"), (other, "c"), (one, "a")):
                for channel in ("root", "root.s"):
                    if world.rows[database][channel]:
                        finish(supervisor, database, channel, again=True)
                        talk(one, other)
        assert (sum(world.rows["a"].values()), right(one)) == (2, 2)
    finally:
        other.end()


def test_a_reserved_minimum_is_kept_while_it_is_not_used(one: Supervisor, world: World) -> None:
    other = Supervisor(world, "m2")
    try:
        guarantee(one, "a", 2, reserve=True)
        one.lead("a")
        one.jobs["a"].waiting = {}
        talk(one)
        other.lead("b")
        talk(other, one)
        assert (right(one), right(other), world.running("root")) == (2, 1, 1)
    finally:
        other.end()
