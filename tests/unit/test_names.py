"""Names of channels as rows give them."""

from __future__ import annotations

import pytest

from qjsupervisor.backlog.names import MAX_MADE
from qjsupervisor.config.channel_string import parse_channels
from tests.differential import Ours

from .channel_trees import job, started, tree_of


@pytest.mark.parametrize(
    ("channel", "node"),
    [
        (None, "root"),
        ("", "root"),
        ("root", "root"),
        ("sub", "root.sub"),
        ("root.sub", "root.sub"),
        ("deep.er", "root.deep.er"),
        ("deep", "root.deep"),
        ("sub.unknown", "root.sub"),
        ("unknown", "root"),
        ("rootless", "root"),
        ("root.", "root"),
        (".", "root"),
        ("sub.", "root.sub"),
        ("sub..x", "root.sub"),
    ],
)
def test_names(channel: str | None, node: str) -> None:
    assert tree_of("root:2, sub:1, deep.er:1").node_for(channel).name == node


class TestDefaults:
    def test_an_unknown_channel_gets_the_defaults_of_the_nearest_configured_one(self) -> None:
        tree = tree_of("root:50:capacity_default=9, a:40:capacity_default=2, a.b:30")
        for name, capacity in [("a.x", 2), ("a.x.y", 2), ("z", 9), ("z.z.z", 9)]:
            assert tree.node_for(name).spec.capacity == capacity
        # One that is configured without defaults gives none.
        assert tree.node_for("a.b.x").name == "root.a.b"

    @pytest.mark.parametrize("names", [("a.x", "a.x.y"), ("a.x.y", "a.x")])
    def test_it_lies_below_that_one_in_whatever_order_names_turn_up(self, names: tuple[str, str]) -> None:
        tree = tree_of("root:50, a:40:capacity_default=1")
        nodes = [tree.node_for(name) for name in names]
        assert [node.parent.name if node.parent else "" for node in nodes] == ["root.a", "root.a"]

    def test_its_limit_holds(self, ours: type[Ours]) -> None:
        manager = ours(parse_channels("root:50, a:3:capacity_default=2"))
        for job_id in range(1, 6):
            manager.notify(job_id, "a.x", 10, 0, None, "pending")
        manager.notify(6, "a.y", 10, 0, None, "pending")
        manager.notify(7, "a.z", 10, 0, None, "pending")
        assert manager.decide(0) == [1, 2, 6]

    def test_sequential_ones_stop_on_a_failed_job_each_for_itself(self, ours: type[Ours]) -> None:
        manager = ours(parse_channels("root:50, a:9:sequential_default"))
        for job_id, channel in [(1, "a.x"), (2, "a.x"), (3, "a.y"), (4, "a.y")]:
            manager.notify(job_id, channel, 10, 0, None, "pending")
        assert manager.decide(0) == [1, 3]
        manager.notify(1, "a.x", 10, 0, None, "failed")
        manager.notify(3, "a.y", 10, 0, None, "done")
        assert manager.decide(0) == [4]
        manager.notify(1, "a.x", 10, 0, None, "done")
        assert manager.decide(0) == [2]

    def test_too_many_names_share_one_channel(self) -> None:
        tree = tree_of("root:9999, a:5000:capacity_default=1")
        for number in range(MAX_MADE + 500):
            tree.put(job(number, f"a.made{number}"))
        assert len(tree.nodes) <= MAX_MADE + 5
        assert started(tree, budget=5000) == [*range(MAX_MADE), MAX_MADE]

    def test_a_failed_job_of_an_unknown_channel_does_not_stop_its_sequential_ancestor(self, ours: type[Ours]) -> None:
        manager = ours(parse_channels("root:9, s:1:sequential"))
        manager.notify(1, "s.unknown", 10, 0, None, "failed")
        manager.notify(2, "s", 10, 0, None, "pending")
        assert manager.decide(0) == [2]


class TestLimits:
    """What the schedule says of a database's own channels."""

    def test_one_that_is_closed_starts_nothing_nor_does_what_is_below_it(self) -> None:
        tree = tree_of("root:9, a:9, a.b:9")
        assert not tree.set_limits({"root.a": 0})
        for job_id, channel in [(1, None), (2, "a"), (3, "a.b"), (4, "a.new")]:
            tree.put(job(job_id, channel))
        assert started(tree) == [1]
        assert not tree.set_limits({})
        assert started(tree) == [2, 3, 4]

    def test_a_number_counts_what_runs_in_it_and_below_it_and_ends_nothing(self) -> None:
        tree = tree_of("root:9, a:9, a.b:9")
        for job_id, channel in [(1, "a"), (2, "a.b"), (3, "a"), (4, "a.b"), (5, "a")]:
            tree.put(job(job_id, channel))
        assert started(tree, budget=3) == [1, 2, 3]
        tree.set_limits({"root.a": 2})
        assert started(tree) == []
        tree.forget(1)
        assert started(tree) == [], "two still run"
        tree.forget(2)
        assert len(started(tree)) == 1
        tree.set_limits({"root.a": 5})
        assert len(started(tree)) == 1

    def test_a_name_that_is_not_there_is_limited_when_jobs_name_it(self) -> None:
        tree = tree_of("root:9")
        assert tree.set_limits({"root.x": 0, "root.y": 1})
        assert not tree.set_limits({"root.x": 0, "root.y": 1})
        for job_id, channel in [(1, "x"), (2, "x.deep"), (3, "y"), (4, "y"), (5, "z")]:
            tree.put(job(job_id, channel))
        assert started(tree) == [3, 5]

    def test_what_defaults_make_below_a_closed_one(self) -> None:
        tree = tree_of("root:9:capacity_default=1")
        tree.set_limits({"root.x": 0})
        tree.put(job(1, "x.y"))
        assert started(tree) == []
