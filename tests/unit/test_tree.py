"""The channel tree: OCA's documented examples, names and defaults, pauses, and what a step may cost."""

from __future__ import annotations

import pytest

from qjsupervisor.backlog.backlog import Backlog
from qjsupervisor.backlog.names import Shared
from qjsupervisor.config.channel_string import parse_channels
from tests.channel_examples import EXAMPLES, Example
from tests.differential import Ours

from .channel_trees import job, started, tree_of

SECOND_US = 1_000_000


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.title for example in EXAMPLES])
def test_documented_examples_hold(ours: type[Ours], example: Example) -> None:
    example.play(lambda: ours(parse_channels("")))


# -- one tree of its own -----------------------------------------------------------------------------------------


def test_a_root_of_capacity_0_runs_nothing() -> None:
    tree = tree_of("root:0")
    tree.put(job(1))
    assert started(tree) == []


class TestSequential:
    def test_an_earlier_job_that_is_not_due_holds_up_subchannels_too(self, ours: type[Ours]) -> None:
        manager = ours(parse_channels("root:9, s:1:sequential, s.sub:1"))
        manager.notify(1, "s", 10, 0, 50, "pending")
        manager.notify(2, "s.sub", 10, 0, None, "pending")
        manager.notify(3, None, 10, 0, None, "pending")
        assert manager.decide(0) == [3]
        manager.notify(0, "s.sub", 9, 0, None, "pending")
        assert manager.decide(1) == [0]  # this one comes before the one that waits
        manager.notify(0, "s.sub", 9, 0, None, "done")
        manager.notify(1, "s", 10, 0, 50, "cancelled")
        assert manager.decide(2) == [2]

    def test_of_several_that_are_not_due_the_next_one_counts(self, ours: type[Ours]) -> None:
        manager = ours(parse_channels("root:1:sequential"))
        manager.notify(1, None, 1, 0, 50, "pending")  # better, but later
        manager.notify(2, None, 9, 0, 40, "pending")
        manager.notify(3, None, 5, 0, None, "pending")
        assert manager.decide(0) == [3]

    def test_what_was_set_aside_holds_up_what_comes_after_it(self) -> None:
        tree = tree_of("root:9, s:1:sequential, p:1")
        tree.put(job(1, "s"))
        tree.put(job(2, "s"))
        tree.put(job(3, "p"))
        tree.put(job(4, "p"))
        assert started(tree) == [1, 3]
        for job_id, channel in [(1, "s"), (3, "p")]:
            tree.defer(job(job_id, channel))
        assert started(tree) == [4]
        assert tree.node_for("s").pending == 2
        tree.release(1)
        tree.put(job(1, "s"))
        assert started(tree) == [1]


class TestRunning:
    def test_a_job_that_is_found_running_takes_the_room_of_one_that_was_about_to_start(self) -> None:
        tree = tree_of("root:9, one:1")
        tree.put(job(1, "one"))
        tree.prepare(0, 9)
        assert tree.wanted_channels
        tree.hold(2, "one")
        assert started(tree) == []

    def test_its_permit_moves_with_its_channel(self, ours: type[Ours]) -> None:
        manager = ours(parse_channels("root:9, one:1, other:1"))
        manager.notify(1, "one", 10, 0, None, "started")
        manager.notify(2, "one", 10, 0, None, "pending")
        manager.notify(3, "other", 10, 0, None, "pending")
        manager.notify(1, "other", 10, 0, None, "started")
        assert manager.decide(0) == [2]

    def test_many_parked_channels_come_forward_one_at_a_time(self) -> None:
        names = [f"c{number}" for number in range(20)]
        tree = tree_of("root:1," + ",".join(f"{name}:1" for name in names))
        for number, name in enumerate(names):
            tree.put(job(number, name))
        for number in range(20):
            assert started(tree) == [number]
            tree.forget(number)

    def test_what_waits_behind_a_job_of_a_full_channel_comes_forward_when_the_parent_has_room(self) -> None:
        tree = tree_of("root:9, m:2, m.a:1, m.b:1")
        for job_id, channel in [(8, "m"), (9, "m")]:
            tree.hold(job_id, channel)
        tree.put(job(1, "m.a"))
        tree.put(job(2, "m.b"))
        assert started(tree) == []
        tree.hold(7, "m.a")  # found running: its channel is full from now on
        tree.forget(8)
        tree.forget(9)
        assert started(tree) == [2]

    def test_a_start_is_in_the_table_already(self) -> None:
        tree = tree_of("root:9")
        tree.put(job(1))
        tree.changed.clear()
        assert started(tree) == [1]
        assert tree.held == {0: 1}
        assert not tree.changed
        tree.forget(1)
        assert tree.changed == {0}

    def test_a_parked_job_goes_when_the_better_one_is_withdrawn(self) -> None:
        tree = tree_of("root:9, m:1, m.a:1, m.b:1")
        tree.hold(9, "m")
        for job_id, channel in [(1, "m.a"), (2, "m.b"), (3, "m.a")]:
            tree.put(job(job_id, channel))
        assert started(tree) == []
        tree.forget(9)
        tree.prepare(0, 9)
        tree.forget(1)
        tree.forget(3)
        assert started(tree) == [2]


class TestSuccession:
    """A job takes over the permit of one that is over, without a look at the table."""

    @pytest.fixture
    def tree(self) -> Backlog:
        specs = parse_channels("root:2, a:2, b:1")
        tree = Backlog(specs, Shared({"root": 0, "root.a": 1, "root.b": 2}, keep_limits=False), 1000)
        tree.hold(1, "a")
        tree.hold(2, "b")
        tree.changed.clear()
        return tree

    def test_the_best_job_succeeds_one_of_its_own_channel(self, tree: Backlog) -> None:
        tree.put(job(3, "a"))
        tree.put(job(4, "b"))
        tree.prepare(0, 9)
        assert tree.line_is_for(1) == 1
        assert tree.hand_over(1) == 3
        assert (tree.holding(), tree.held, tree.changed, tree.taken) == ({2, 3}, {1: 1, 2: 1}, set(), [])
        assert tree.line_is_for(2) == 2

    def test_nobody_does_while_a_better_one_waits_elsewhere(self, tree: Backlog) -> None:
        tree.put(job(3, "b"))
        tree.put(job(4, "a"))
        tree.prepare(0, 9)
        assert tree.line_is_for(1) is None

    def test_nobody_does_without_a_budget_or_where_nothing_waits(self, tree: Backlog) -> None:
        tree.prepare(0, 9)
        assert tree.line_is_for(1) is None
        tree.put(job(3, "a"))
        tree.prepare(0, 0)
        assert tree.line_is_for(1) is None
        tree.prepare(0, 9)
        assert tree.line_is_for(77) is None

    def test_nobody_does_where_this_tree_keeps_the_limits(self) -> None:
        tree = tree_of("root:1, a:1")
        tree.hold(1, "a")
        tree.put(job(2, "a"))
        tree.prepare(0, 9)
        assert tree.line_is_for(1) is None


class TestFailed:
    def test_counts_by_shared_channel(self) -> None:
        tree = tree_of("root:9, a:1")
        tree.fail(1, None)
        tree.fail(1, None)
        tree.fail(2, "a")
        assert tree.failed == {0: 1}  # of 'root' itself; 'a' is no other database's business
        assert (tree.node_for(None).failed, tree.node_for("a").failed) == (1, 1)
        tree.put(job(1))
        assert tree.failed == {0: 0}
        assert 0 in tree.changed


class TestPause:
    @pytest.mark.parametrize(
        ("names", "starts"),
        [
            ([], [1, 2, 3, 4]),
            (["root"], []),
            (["root.a"], [1]),
            (["root.a.b"], [1, 2, 4]),
            (["root.a.unknown"], [1, 2, 3]),
            (["root.nobody"], [1, 2, 3, 4]),
        ],
    )
    def test_holds_up_a_channel_and_what_is_below_it(
        self, ours: type[Ours], names: list[str], starts: list[int]
    ) -> None:
        manager = ours(parse_channels("root:9, a:9, a.b:9"))
        manager.tree.set_paused(names)  # as after the rebuild that an unknown name asks for
        for job_id, channel in [(1, None), (2, "a"), (3, "a.b"), (4, "a.unknown.below")]:
            manager.notify(job_id, channel, 10, 0, None, "pending")
        assert manager.decide(0) == starts
        manager.tree.set_paused([])
        assert manager.decide(0) == [job_id for job_id in (1, 2, 3, 4) if job_id not in starts]

    def test_says_whether_jobs_have_to_be_read_again(self) -> None:
        tree = tree_of("root:9, a:9")
        assert not tree.set_paused(["root.a"])
        assert tree.set_paused(["root.a.new"])
        assert not tree.set_paused(["root.a.new"])
        assert not tree.set_paused([])

    def test_holds_up_what_defaults_make_later(self) -> None:
        tree = tree_of("root:9:capacity_default=1")
        tree.set_paused(["root.x"])
        tree.put(job(1, "x.y"))
        assert started(tree) == []
