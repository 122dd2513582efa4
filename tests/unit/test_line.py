"""The line of a tree's channels: etas, throttles, and how many may start at once."""

from __future__ import annotations

from .channel_trees import job, started, tree_of

SECOND_US = 1_000_000


class TestTime:
    def test_a_throttle_goes_on_in_a_tree_with_other_settings(self) -> None:
        old = tree_of("root:9:throttle=10")
        old.put(job(1))
        assert started(old, 5 * SECOND_US) == [1]
        new = tree_of("root:9:throttle=10, sub:1")
        new.inherit(old)
        new.put(job(2))
        assert started(new, 14 * SECOND_US) == []
        assert new.next_deadline_us() == 15 * SECOND_US
        assert started(new, 15 * SECOND_US) == [2]

    def test_a_shorter_throttle_is_in_force_at_once(self) -> None:
        old = tree_of("root:9:throttle=1000")
        old.put(job(1))
        started(old, 5 * SECOND_US)
        new = tree_of("root:9:throttle=3")
        new.inherit(old)
        new.put(job(2))
        assert started(new, 7 * SECOND_US) == []
        assert started(new, 8 * SECOND_US) == [2]

    def test_a_clock_that_is_set_back_prolongs_no_throttle(self) -> None:
        tree = tree_of("root:9:throttle=2")
        tree.put(job(1))
        tree.put(job(2))
        assert started(tree, 10_000 * SECOND_US) == [1]
        assert started(tree, 50 * SECOND_US) == []
        assert tree.next_deadline_us() == 52 * SECOND_US
        assert started(tree, 52 * SECOND_US) == [2]

    def test_the_deadline_is_the_next_eta_that_is_still_there(self) -> None:
        tree = tree_of("root:9")
        for job_id, eta_us in [(1, 50), (2, 30), (3, 40)]:
            tree.put(job(job_id, None, eta_us))
        assert tree.next_deadline_us() == 30
        tree.forget(2)
        assert tree.next_deadline_us() == 40
        assert started(tree, 40) == [3]
        assert tree.next_deadline_us() == 50
        assert started(tree, 60) == [1]
        assert tree.next_deadline_us() is None


class TestBudget:
    def test_bounds_what_is_taken_and_what_is_wanted(self) -> None:
        tree = tree_of("root:9")
        for job_id in range(5):
            tree.put(job(job_id))
        assert started(tree, budget=2) == [0, 1]
        tree.prepare(0, 0)
        assert not tree.wanted_channels
        assert list(tree.order()) == []
