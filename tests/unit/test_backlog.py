"""Windows over a table that changes while it is read: a state machine against a plain model, and what it found."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from qjsupervisor.backlog.backlog import Backlog, Found, Snapshot
from qjsupervisor.backlog.names import only_root
from qjsupervisor.backlog.tree import Failed
from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config.channel_string import parse_channels
from qjsupervisor.job import Pending
from tests.channel_histories import ACTIONS, random_driver, random_history, step

SECOND_US = 1_000_000
_RANDOMS = st.randoms(use_true_random=False)


class BacklogMachine(RuleBasedStateMachine):
    """Anything that may happen, in any order; `Driver` compares at each start, and all counters when it settles."""

    @initialize(rng=_RANDOMS)
    def make(self, rng: random.Random) -> None:
        self.driver = random_driver(rng)

    @rule(action=st.sampled_from(list(ACTIONS)), heard=st.sampled_from(["now", "now", "late", "never"]), rng=_RANDOMS)
    def happens(self, action: str, heard: str, rng: random.Random) -> None:
        step(self.driver, action, rng, heard)

    @rule()
    def settles(self) -> None:
        self.driver.start_settled(2)


BacklogMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBacklogMachine = BacklogMachine.TestCase


@pytest.mark.parametrize("seed", range(0, 800, 20))
def test_long_random_histories(seed: int) -> None:
    """More steps than a state machine makes in the same time, and weighted as in life."""
    for one in range(seed, seed + 20):
        random_history(one, 100)


# -- single cases ------------------------------------------------------------------------------------------------


def backlog(channels: str = "root:9", window: int = 3) -> Backlog:
    made = Backlog(parse_channels(channels), only_root(), window)
    made.prepare(0, 0)
    return made


def job(job_id: int, channel: str | None = None, eta_us: int | None = None) -> Pending:
    return Pending((10, 0, job_id), channel, eta_us)


def jobs(*job_ids: int, channel: str | None = None) -> list[Pending]:
    return [job(job_id, channel) for job_id in job_ids]


def found(*due: Pending, later: tuple[Pending, ...] = (), limit: int = 3) -> Found:
    return Found(due, len(due) >= limit, later, len(later) >= limit)


def snapshot(
    read: Found | None = None,
    *,
    held: dict[int, str | None] | None = None,
    failed: dict[int, str | None] | None = None,
    pending: int = 0,
) -> Snapshot:
    counts: dict[tuple[str | None, str], int] = {(None, "pending"): pending} if pending else {}
    for channel in (failed or {}).values():
        counts[channel, "failed"] = counts.get((channel, "failed"), 0) + 1
    return Snapshot(list((held or {}).items()), read or found(), counts, list((failed or {}).items()))


def started(tree: Backlog, now_us: int = 0, budget: int = 9) -> list[int]:
    tree.prepare(now_us, budget)
    while tree.wanted_channels:
        tree.take(tree.best(tree.wanted_channels))
    taken, tree.taken = tree.taken, []
    return taken


class TestWindow:
    def test_holds_the_best_and_says_when_it_wants_more(self) -> None:
        tree = backlog()
        tree.load(snapshot(found(*jobs(1, 2, 3)), pending=7))
        assert tree.node_for(None).pending == 7
        assert tree.unread() == []
        assert started(tree) == [1, 2, 3]
        assert [node.name for node in tree.unread()] == ["root"]
        tree.begin_read()
        tree.merge({"root": found(*jobs(4, 5, 6))})
        assert tree.unread() == []
        assert started(tree) == [4, 5, 6]
        tree.begin_read()
        tree.merge({"root": found(*jobs(7))})
        assert started(tree) == [7]
        assert tree.unread() == []
        assert tree.node_for(None).pending == 0

    def test_a_better_job_puts_the_worst_one_out(self) -> None:
        tree = backlog()
        for one in jobs(5, 6, 7, 4):
            tree.put(one)
        assert started(tree) == [4, 5, 6]
        tree.begin_read()
        tree.merge({"root": found(*jobs(7))})
        assert started(tree) == [7]

    def test_what_comes_behind_the_horizon_does_not_overtake_what_is_there(self) -> None:
        tree = backlog()
        tree.load(snapshot(found(*jobs(1, 2, 3)), pending=5))  # 4 and 5 are not read
        tree.put(job(9))
        assert started(tree) == [1, 2, 3]
        tree.begin_read()
        tree.merge({"root": found(*jobs(4, 5, 9))})
        assert started(tree) == [4, 5, 9]

    def test_etas_that_fall_due_beyond_the_window_are_read_before_anything_else_starts(self) -> None:
        tree = backlog()
        later = tuple(job(job_id, None, job_id * SECOND_US) for job_id in (1, 2, 3))
        tree.load(snapshot(found(job(50), later=later), pending=9))
        assert started(tree, 0, 0) == []
        assert started(tree, 10 * SECOND_US) == []  # also 4 to 8 are due, and better than 50
        assert [node.name for node in tree.unread()] == ["root"]
        tree.begin_read()
        due = [job(job_id, None, job_id * SECOND_US) for job_id in range(1, 4)]
        tree.merge({"root": found(*due)})
        assert started(tree, 10 * SECOND_US) == [1, 2, 3]

    def test_the_horizon_of_etas_is_watched_also_when_all_that_were_held_are_gone(self) -> None:
        tree = backlog(window=8)
        later = tuple(job(job_id, None, 5 * SECOND_US) for job_id in range(1, 9))
        tree.load(snapshot(found(job(50), later=later, limit=8), pending=12))
        tree.prepare(SECOND_US, 0)
        for job_id in range(1, 9):
            tree.forget(job_id)
        assert tree.next_deadline_us() == 5 * SECOND_US
        assert started(tree, 5 * SECOND_US) == []

    def test_a_sequential_channel_that_does_not_know_what_is_due_next_waits_for_the_read(self) -> None:
        tree = backlog("root:1:sequential", window=8)
        later = tuple(job(job_id, None, 5 * SECOND_US) for job_id in range(1, 9))
        tree.load(snapshot(found(job(50), later=later, limit=8), pending=12))
        for job_id in range(1, 9):
            tree.forget(job_id)
        assert started(tree, SECOND_US) == []
        tree.begin_read()
        tree.merge({"root": found(job(50), later=(job(60, None, 9 * SECOND_US),), limit=8)})
        assert started(tree, SECOND_US) == [50]


class TestChangesDuringARead:
    """`begin_read`, then the rows are seen, then something changes, then the read ends."""

    def test_what_was_heard_stands_against_what_was_read(self) -> None:
        tree = backlog()
        for one in jobs(1, 2):
            tree.put(one)
        tree.begin_read()
        tree.forget(1)
        tree.put(job(2, None, 99 * SECOND_US))
        tree.merge({"root": found(*jobs(1, 2))})
        assert started(tree) == []

    def test_what_came_and_found_no_room_may_have_a_place_afterwards(self) -> None:
        tree = backlog()
        tree.load(snapshot(found(*jobs(1, 2, 3)), pending=4))
        assert started(tree) == [1, 2, 3]
        tree.begin_read()
        tree.put(job(9))  # beyond the horizon
        tree.merge({"root": found(*jobs(4))})
        assert started(tree) == [4, 9]
        assert tree.node_for(None).pending == 0

    def test_a_job_that_is_heard_of_again_as_it_was(self) -> None:
        """Between two equal states it was something else, and that is what the read saw."""
        tree = backlog()
        tree.put(job(1))
        tree.begin_read()
        tree.put(job(1))
        tree.load(snapshot(held={1: None}))
        assert started(tree) == [1]

    def test_nothing_that_was_taken_starts_twice(self) -> None:
        tree = backlog()
        tree.put(job(1))
        tree.begin_read()
        assert started(tree) == [1]
        tree.load(snapshot(found(job(1)), pending=1))
        assert started(tree) == []
        assert tree.holding() == {1}

    def test_a_claim_that_is_still_to_be_made_is_no_doubt(self) -> None:
        tree = backlog("root:1")
        tree.put(job(1))
        tree.prepare(0, 9)
        tree.take(0)
        tree.begin_read()
        tree.taken = []  # claimed after the rows were seen
        assert tree.load(snapshot(found(job(1)), pending=1)) == {}
        assert tree.holding() == {1}

    def test_a_job_that_failed_during_a_full_read_stops_its_sequential_channel(self) -> None:
        tree = backlog("root:1:sequential")
        tree.hold(1, None)
        tree.begin_read()
        tree.fail(1, None)
        tree.load(snapshot(found(job(2)), held={1: None}, pending=1))
        assert started(tree) == []
        tree.forget(1)
        assert started(tree) == [2]

    def test_a_failed_job_that_was_put_right_during_a_full_read_stops_nothing(self) -> None:
        tree = backlog("root:1:sequential")
        tree.fail(1, None)
        tree.begin_read()
        tree.forget(1)
        tree.load(snapshot(found(job(2)), failed={1: None}, pending=1))
        assert started(tree) == [2]

    def test_a_failed_job_that_is_read_as_pending_before_it_is_heard_of_counts_once(self) -> None:
        tree = backlog("root:1:sequential")
        tree.fail(1, None)
        tree.begin_read()
        tree.merge({"root": found(job(1))})
        tree.put(job(1))
        assert tree.node_for(None).failed == 0
        assert started(tree) == [1]

    def test_what_is_better_is_not_overtaken_by_what_is_left_of_a_window(self) -> None:
        """Two of the three best ones that were read are gone, and the third is worse than others that were not read."""
        tree = backlog()
        tree.put(job(9))
        tree.begin_read()
        tree.forget(1)
        tree.forget(2)
        tree.merge({"root": found(*jobs(1, 2, 3))})
        assert started(tree) == [3]
        assert [node.name for node in tree.unread()] == ["root"]

    def test_what_came_and_was_set_aside_hides_nothing_that_was_not_read(self) -> None:
        """It is not in the counts, and must not be taken for one of those that are."""
        tree = backlog(window=1)
        tree.begin_read()
        tree.put(job(9))  # after the rows were counted
        tree.defer(job(9))
        tree.load(snapshot(found(job(1), limit=1), pending=2))
        assert started(tree) == [1]
        assert [node.name for node in tree.unread()] == ["root"]

    def test_too_much_that_changes_makes_a_read_worthless(self) -> None:
        tree = backlog()
        tree.begin_read()
        for job_id in range(24):
            tree.forget(job_id)
        answers = [tree.changed_too_much]
        tree.forget(24)
        answers.append(tree.changed_too_much)
        tree.abandon_read()
        answers.append(tree.changed_too_much)
        assert answers == [False, True, False]


class TestFullRead:
    def test_puts_right_what_was_missed(self) -> None:
        tree = backlog("root:9, a:9")
        tree.put(job(1))
        tree.hold(2, "a")
        tree.fail(3, "a")
        tree.begin_read()
        conflicting = tree.load(snapshot(found(job(3)), held={4: None}, failed={1: None}, pending=1))
        assert conflicting == {2: None}
        tree.accept_database(conflicting)
        assert tree.holding() == {4}
        assert (tree.node_for("a").failed, tree.node_for(None).failed) == (0, 1)
        assert started(tree) == [3]

    def test_what_is_held_here_and_pending_there_waits_again_when_the_caller_says_so(self) -> None:
        tree = backlog("root:1")
        tree.hold(1, None)
        tree.begin_read()
        conflicting = tree.load(snapshot(found(job(1)), pending=1))
        assert conflicting == {1: job(1)}
        assert started(tree) == []  # perhaps its request is open
        tree.accept_database(conflicting)
        assert started(tree) == [1]

    def test_leaves_alone_what_was_set_aside(self) -> None:
        tree = backlog()
        tree.defer(job(1))
        tree.begin_read()
        tree.load(snapshot(found(*jobs(1, 2)), pending=2))
        assert started(tree) == [2]
        assert tree.node_for(None).pending == 1

    def test_knows_failed_jobs_one_by_one_as_far_as_they_were_read(self) -> None:
        tree = backlog()
        counts: dict[tuple[str | None, str], int] = {(None, "failed"): 5}
        tree.load(Snapshot([], found(), counts, [(1, None), (2, None)]))
        tree.forget(1)
        tree.forget(77)
        assert tree.node_for(None).failed == 4


def test_raw_names_are_those_that_were_seen() -> None:
    tree = backlog("root:9, a:9, a.b:9")
    for channel in ("a", "root.a", "a.b", "a.x", "root.x"):
        tree.put(job(1, channel))
    assert tree.raw_names(tree.nodes["root.a"]) == (["a", "root.a", "a.x"], False)
    assert tree.raw_names(tree.nodes["root"]) == (["root.x"], True)


def test_names_in_order_are_those_of_sequential_channels() -> None:
    tree = backlog("root:9, a:1:sequential, b:9:sequential_default, c:9")
    for channel in ("a", "b.x", "c", None):
        tree.put(job(1, channel))
    assert tree.names_in_order() == ["a", "b.x", "root.a", "root.b.x"]
    tree = backlog("root:1:sequential")
    tree.put(job(1))
    assert tree.names_in_order() == ["", "root"]


def test_a_job_that_fails_during_a_read_counts_once_when_its_request_ends() -> None:
    """In a sequential channel one failed job too many would stop all others until the next full read."""
    tree = backlog("root:9,root.line:1:sequential")
    tree.hold(1, "root.line")
    tree.begin_read()
    read = snapshot(found(), failed={1: "root.line"})
    assert tree.load(read) == {1: Failed("root.line")}
    tree.fail(1, "root.line")
    assert [stop.failed for stop in tree.stops()] == [1]
    tree.put(job(1, "root.line"))
    assert started(tree) == [1]


def test_a_held_job_without_a_request_that_was_read_as_failed_is_failed() -> None:
    tree = backlog("root:9,root.line:1:sequential")
    tree.hold(1, "root.line")
    tree.begin_read()
    tree.accept_database(tree.load(snapshot(found(), failed={1: "root.line"})))
    assert not tree.permits
    assert [(stop.failed, stop.job_id) for stop in tree.stops()] == [(1, 1)]


# -- the head --------------------------------------------------------------------------------------------------------


def test_a_big_table_begins_with_its_best_jobs() -> None:
    """What comes behind the last one read waits for the rest; what is better than it does not."""
    tree = backlog()
    tree.load_head([(7, None)], jobs(3, 4))
    assert tree.partial
    assert tree.is_held(7)
    tree.put(job(5))
    tree.put(job(6, eta_us=SECOND_US))
    tree.put(job(2))
    assert started(tree, 2 * SECOND_US) == [2, 3, 4]
    tree.begin_read()
    tree.load(snapshot(found(job(5), job(6), limit=9), held=dict.fromkeys((2, 3, 4, 7)), pending=2))
    assert not tree.partial
    assert started(tree, 2 * SECOND_US) == [5, 6]


def test_in_order_nothing_starts_before_all_is_read() -> None:
    """A failed job, or one that is not due yet, may come before those that were read."""
    tree = backlog("root:9,root.line:1:sequential")
    tree.load_head([], [job(1, "root.line"), job(2)])
    assert started(tree) == [2]


@pytest.mark.parametrize("default", [{"capacity_default": 2}, {"sequential_default": True}])
def test_no_head_where_a_channel_may_turn_up(default: dict[str, Any]) -> None:
    """It would be taken for empty, and its newest job for its best."""
    specs = [ChannelSpec(name="root", capacity=9, **default)]
    assert not Backlog(specs, only_root(), 3).can_begin_with_head
    assert backlog("root:9,root.line:1:sequential").can_begin_with_head


def test_the_oldest_due_job_is_found_behind_better_ones() -> None:
    backlog = Backlog(parse_channels("root:1,root.slow:1"), only_root(), 100)
    assert backlog.oldest_due_us() == 0
    for job_id, (priority, created_us) in enumerate([(5, 900), (5, 800), (10, 300), (10, 400), (20, 700)]):
        backlog.put(Pending((priority, created_us, job_id), "root.slow" if job_id % 2 else "root", None))
    assert backlog.oldest_due_us() == 300
    backlog.put(Pending((10, 100, 99), "root", (1 << 60)))  # not due
    assert backlog.oldest_due_us() == 300
    backlog.forget(2)
    assert backlog.oldest_due_us() == 400
