"""Minimums of channels in the shared table, case by case; what any history does to them: the table's state machine."""

from __future__ import annotations

import pytest

from qjsupervisor.channelspec import ChannelSpec, Share
from qjsupervisor.config.channel_string import parse_channels, with_options
from qjsupervisor.states import Fairness
from qjsupervisor.table.layout import Cell

from .branch_worlds import Branches


@pytest.mark.parametrize("fairness", Fairness)
def test_the_smallest_part_of_a_minimum_comes_first(fairness: Fairness) -> None:
    branches = Branches("root:20,a:min=4,b:min=2,c:9", [["root.c", "root.a", "root.b"]], fairness)
    try:
        order = []
        for _ in range(8):
            name = branches.next()
            assert name is not None
            order.append(name)
            branches.run(0, name)
        assert [name.removeprefix("root.") for name in order] == ["a", "b", "a", "a", "b", "a", "c", "c"]
    finally:
        branches.close()


def test_a_minimum_counts_whatever_its_parent_holds() -> None:
    """Not only beside its sisters, but beside what waits elsewhere, too."""
    branches = Branches("root:4,a:4,a.x:min=1,a.y,b", [["root.b"], ["root.a.x"], ["root.a.y"]])
    try:
        branches.run(2, "root.a.y", 2)
        assert branches.next() == "root.a.x"
    finally:
        branches.close()


def test_what_is_reserved_is_kept_free_and_no_more() -> None:
    branches = Branches("root:4,a:min=2:reserve,b:min=1,c", [[], ["root.c"], ["root.b"]])
    try:
        assert branches.next() == "root.b"
        branches.run(2, "root.b")
        assert branches.next() == "root.c"
        branches.run(1, "root.c")
        assert branches.next() is None
        branches.want(0, "root.a")
        assert branches.next() == "root.a"
        branches.run(0, "root.a", 2)
        assert branches.next() is None
        branches.run(0, "root.a", -1)
        branches.away(0, "root.a")
        assert branches.next() is None
    finally:
        branches.close()


def test_a_reserve_in_a_branch_is_kept_there_and_above() -> None:
    branches = Branches("root:4,a:3,a.x:min=2:reserve,a.y,b", [["root.a.y"], ["root.b"]])
    try:
        assert branches.world.words(branches.names.index("root.a"))  # a has room for one beside x
        branches.run(0, "root.a.y")
        assert branches.next() == "root.b"
        branches.run(1, "root.b")
        assert branches.next() is None
    finally:
        branches.close()


def test_a_reload_changes_minimums_under_running_jobs() -> None:
    branches = Branches("root:4,a,b", [["root.a"], ["root.b"]])
    try:
        branches.run(0, "root.a", 3)
        assert branches.world.table.try_configure(with_options(parse_channels("root:4,a:3,b:min=2:reserve"), ()))
        branches.world.check_derived()
        assert branches.world.row(1, Cell.HELD)[branches.names.index("root.b")] == 1  # it came first at once
        assert branches.world.table.try_configure(with_options(parse_channels("root:4,a:weight=2,b"), ()))
        branches.world.check_derived()
        specs = branches.world.workers[0].worker_slot
        assert specs is not None
        assert [(spec.name, spec.minimum, spec.weight) for spec in specs.channels() if spec is not None][1:] == [
            ("root.a", 0, 2),
            ("root.b", 0, 0),
        ]
        assert branches.world.table.try_configure([ChannelSpec(name="root", capacity=4)])
        branches.world.check_derived()
    finally:
        branches.close()


def test_a_permit_is_not_handed_over_where_starts_are_counted() -> None:
    branches = Branches("root:4,a:weight=2,b", [["root.a"], []])
    plain = Branches("root:4,a,b", [["root.a"], []])
    try:
        for each, may in ((branches, False), (plain, True)):
            seat = each.world.workers[0].worker_slot
            assert seat is not None
            seat.drain_wakeup()
            queue = each.world.workers[0].queue
            assert queue is not None
            seat.exchange(queue)
            assert seat.may_reuse_permit(each.names.index("root.a")) is may
    finally:
        branches.close()
        plain.close()


def test_who_could_not_start_anyway_goes_before_nobody() -> None:
    """The root's permits are kept for a database: another one's job in a short branch holds up none of its jobs."""
    branches = Branches("root:1,slow:9,slow.deep:9:min=1", [["root.slow.deep"], ["root.slow"]])
    try:
        branches.world.core.put_share(1, Share(1, None, reserve=True))
        branches.world.core.settle_share(1)
        assert branches.next() == "root.slow"
        branches.away(1, "root.slow")
        assert branches.next() is None
    finally:
        branches.close()
