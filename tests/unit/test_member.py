"""What a member of a cluster says, and what it writes first; the whole of it under faults is in test_rules.py."""

from __future__ import annotations

from typing import Any

import pytest

from qjsupervisor.broker.ledger import START, Answer, Statement
from qjsupervisor.broker.member import SPARE_S, Member, usable
from qjsupervisor.table.leases import ChannelFacts, LeaseFacts, SlotFacts


def channel(name: str = "root", **more: Any) -> ChannelFacts:
    facts: dict[str, Any] = {
        "capacity": 4, "right": 2, "usable": 2, "floor": 0, "guaranteed": 0, "reserved": 0,
        "token": False, "throttle_s": 0, "sequential": False,
        "is_closed": False, "held": 0, "waiting": 0, "weight": 1, "not_before_s": 0.0, **more,
    }  # fmt: skip
    return ChannelFacts(name=name, **facts)


def slot(database: str = "db", **more: Any) -> SlotFacts:
    facts: dict[str, Any] = {"slot": 0, "term": 1, "settled": 1, "let_go": False, "held": {}, "failed": {}, **more}
    return SlotFacts(database=database, **facts)


def facts(*channels: ChannelFacts, slots: list[SlotFacts] | None = None, waits: bool = False) -> LeaseFacts:
    paths = {channels[-1].name: tuple(each.name for each in reversed(channels))} if waits else {}
    return LeaseFacts({each.name: each for each in channels}, paths, slots or [], is_over=False)


@pytest.fixture
def member() -> Member:
    one = Member("m", "host", 5)
    one.register(facts(channel()), 1)
    one.take_in(Statement("m", 1, kind="register"), Answer(ok=True, got={"root": 2}))
    return one


def test_registers_with_what_may_have_been_used_until_now() -> None:
    table = facts(channel(right=2, held=3), channel("root.t", capacity=None, throttle_s=9, token=True, right=0))
    table.slots = [slot(held={"root": 3}), slot("idle", term=0)]
    said = Member("m", "host", 5).register(table, 8)
    assert (said.kind, said.session, said.host, said.pid, said.holds) == ("register", 8, "host", 5, ["db"])
    assert said.upper == {"root": 3, "root.t" + START: 1}
    assert said.may == {"root": 2, "root.t" + START: 1}
    assert (said.capacity, said.throttle_s) == ({"root": 4, "root.t" + START: 1}, {"root.t" + START: 9})


def test_a_lease_that_is_over_claims_no_right_to_start() -> None:
    table = facts(channel(right=2))
    table.is_over = True
    assert Member("m", "host", 5).register(table, 1).may == {}


def test_nothing_new_is_no_news(member: Member) -> None:
    assert not member.plan(facts(channel(right=2, held=2)), 1, 0.0).is_news


def test_asks_for_a_whole_path_as_many_as_wait_and_once(member: Member) -> None:
    table = facts(channel(right=1, held=1), channel("root.a", right=0, waiting=3, weight=2), waits=True)
    plan = member.plan(table, 1, 0.0)
    assert plan.statement.takes == [(("root.a", "root"), 3)]
    assert plan.statement.hungry == ["root", "root.a"]
    assert plan.statement.weight == {"root": 1, "root.a": 2}
    assert plan.is_news
    assert member.is_hungry
    member.take_in(plan.statement, Answer(ok=True))
    assert not member.plan(table, 1, 0.1).is_news, "it was said"


def test_asks_for_nothing_in_a_closed_channel(member: Member) -> None:
    table = facts(channel(right=0, is_closed=True), channel("root.a", right=0, waiting=3), waits=True)
    assert member.plan(table, 1, 0.0).statement.takes == []


def test_of_a_throttled_channel_one_start_at_a_time(member: Member) -> None:
    throttled = channel("root.t", capacity=None, right=0, throttle_s=5, waiting=7)
    plan = member.plan(facts(channel(right=2), throttled, waits=True), 1, 0.0)
    assert plan.statement.takes == [(("root.t" + START,), 1)]


def test_spare_permits_go_back_after_a_moment_but_one(member: Member) -> None:
    table = facts(channel(right=4, held=1))
    assert member.plan(table, 1, 10.0).statement.gives == {}
    assert member.spare_due_s() == 10.0 + SPARE_S
    plan = member.plan(table, 1, 10.0 + SPARE_S)
    assert plan.statement.gives == {"root": 2}
    assert plan.rights == {"root": 2}, "lowered here before it is told"
    assert plan.is_news
    assert member.spare_due_s() is None


def test_shrinks_to_its_target_at_once_but_not_below_what_runs(member: Member) -> None:
    member.targets = {"root": 1}
    assert member.plan(facts(channel(right=4, held=2)), 1, 0.0).statement.gives == {"root": 2}


def test_a_channel_that_another_one_s_failed_job_closes_is_given_back(member: Member) -> None:
    member.blocked = {"root"}
    assert member.plan(facts(channel(right=2, held=1)), 1, 0.0).statement.gives == {"root": 1}


def test_a_token_goes_with_the_time_of_the_next_start(member: Member) -> None:
    member.targets = {"root.t" + START: 0}
    plan = member.plan(facts(channel("root.t", capacity=None, throttle_s=5, token=True, not_before_s=3.5)), 1, 0.0)
    assert plan.tokens == {"root.t": False}
    assert plan.statement.gives == {"root.t" + START: 1}
    assert plan.statement.not_before_s == {"root.t" + START: 3.5}


def test_a_database_that_another_one_leads_takes_its_permits_along(member: Member) -> None:
    gone = slot(slot=3, let_go=True, term=0, held={"root": 3})
    plan = member.plan(facts(channel(right=2, held=3), slots=[gone]), 1, 0.0)
    assert plan.statement.drops == {"db": ({"root": 2}, {"root": 1})}
    assert plan.dropped == {"db": 3}
    assert plan.statement.held == {"root": 0}
    assert plan.rights == {"root": 0}


def test_a_new_tenure_and_failed_jobs_are_told_until_they_are_known(member: Member) -> None:
    table = facts(channel(), slots=[slot(term=7, settled=0, failed={"root": 1})])
    said = member.plan(table, 1, 0.0).statement
    assert (said.settles, said.failed) == ({"db": 7}, {"db": {"root": 1}})
    member.take_in(said, Answer(ok=True))
    settled = facts(channel(), slots=[slot(term=7, settled=7, failed={"root": 1})])
    assert not member.plan(settled, 1, 0.0).is_news
    assert member.plan(facts(channel()), 1, 0.0).statement.failed == {"db": {}}, "its slot is another one's now"


def test_another_configuration_is_told(member: Member) -> None:
    plan = member.plan(facts(channel(capacity=9)), 1, 0.0)
    assert (plan.statement.capacity, plan.is_news) == ({"root": 9}, True)
    assert member.plan(facts(channel(capacity=9)), 1, 0.0).statement.capacity is None


def test_an_answer_that_knows_no_such_session_ends_it(member: Member) -> None:
    member.targets, member.blocked = {"root": 1}, {"root"}
    member.take_in(Statement("m", 1), Answer(ok=False))
    assert (member.registered, member.targets, member.blocked) == (False, {}, set())


@pytest.mark.parametrize(
    ("facts_of", "right", "token", "targets", "blocked", "may"),
    [
        (channel(capacity=4), 9, False, {}, set(), 4),
        (channel(capacity=4), 3, False, {}, set(), 3),
        (channel(capacity=4), 3, False, {"root": 1}, set(), 1),
        (channel(capacity=4), 3, False, {}, {"root"}, 0),
        (channel(capacity=None), 0, False, {}, set(), -1),
        (channel(capacity=None, throttle_s=5), 0, False, {}, set(), 0),
        (channel(capacity=None, throttle_s=5), 0, True, {}, set(), -1),
    ],
)
def test_what_may_be_used(
    facts_of: ChannelFacts, right: int, token: bool, targets: dict[str, int], blocked: set[str], may: int
) -> None:
    assert usable(facts_of, right, token, targets, blocked) == may
