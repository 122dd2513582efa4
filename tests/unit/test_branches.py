"""Weights and minimums of channels in the shared table, as properties. See also the state machine of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config.channel_string import parse_channels, with_options
from qjsupervisor.states import Fairness
from qjsupervisor.table.grants import NoDemand, Scheduler
from qjsupervisor.table.layout import Cell

from .slots import World


class Branches:
    """Databases that want a permit in some channels each, for ever; whose is the next one, which comes back at once."""

    def __init__(
        self,
        channels: str,
        wanted: Sequence[Sequence[str]],
        fairness: Fairness = Fairness.ROUND_ROBIN,
    ) -> None:
        self.specs = with_options(parse_channels(channels), ())
        self.world = World(self.specs, [1] * len(wanted), fairness)
        self.fairness = fairness
        self.names = [spec.name for spec in self.specs]
        self.world.start_all()
        for slot, names in enumerate(wanted):
            for place, name in enumerate(names):
                self.want(slot, name, place)

    def want(self, slot: int, name: str, place: int = 0) -> None:
        worker = self.world.workers[slot]
        assert worker.queue is not None
        assert worker.worker_slot is not None
        worker.queue.arrive(self.names.index(name), (10, place, slot))
        worker.worker_slot._publish(worker.queue, self.world.now_ns, served=False)

    def away(self, slot: int, name: str) -> None:
        worker = self.world.workers[slot]
        assert worker.queue is not None
        assert worker.worker_slot is not None
        worker.queue.cancel(self.names.index(name))
        worker.worker_slot._publish(worker.queue, self.world.now_ns, served=False)

    def next(self) -> str | None:
        grant = Scheduler(self.world.core, self.fairness, -1, NoDemand(), self.world.now_ns).next()
        return None if grant is None else self.names[grant.channel]

    def run(self, slot: int, name: str, number: int = 1) -> None:
        """Jobs are found running there, or (negative) are over."""
        self.world.core.add_held(slot, self.names.index(name), number, self.world.now_ns)

    def served(self, number: int) -> list[str]:
        found = [self.next() for _ in range(number)]
        assert None not in found
        return [name for name in found if name is not None]

    def close(self) -> None:
        self.world.close()


def most_off(served: Sequence[str], weights: dict[str, int], length: int = 100) -> float:
    """How far from its part a branch is in any so many grants that follow each other."""
    total = sum(weights.values())
    off = 0.0
    for at in range(len(served) - length + 1):
        counts = Counter(served[at : at + length])
        off = max(off, *(abs(counts[name] - length * weight / total) for name, weight in weights.items()))
    return off


def string_of(weights: dict[str, int]) -> str:
    return "root:1," + ",".join(f"{name}:weight={weight}" for name, weight in weights.items())


@pytest.mark.parametrize("fairness", Fairness)
@pytest.mark.parametrize(
    "weights", [(3, 1), (1, 1), (99, 1), (7, 3), (2, 1), (5, 3, 2), (4, 3, 2, 1), (12, 10, 3)], ids=str
)
def test_weights_are_parts_within_one_of_any_hundred(weights: tuple[int, ...], fairness: Fairness) -> None:
    named = {f"root.c{i}": weight for i, weight in enumerate(weights)}
    branches = Branches(string_of(named), [[*named], [*reversed(named)], ["root.c0"]], fairness)
    try:
        assert most_off(branches.served(600), named) <= 1.001
    finally:
        branches.close()


@given(weights=st.lists(st.integers(1, 100), min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_whatever_the_weights_no_branch_is_ever_a_whole_grant_off(weights: list[int]) -> None:
    """Counted from when all wait; so two in any window, where no order at all could do with one."""
    named = {f"root.c{i}": weight for i, weight in enumerate(weights)}
    branches = Branches(string_of(named), [[*named]])
    try:
        served, total, counts = branches.served(300), sum(weights), Counter[str]()
        for number, name in enumerate(served, start=1):
            counts[name] += 1
            off = max(abs(counts[each] - number * weight / total) for each, weight in named.items())
            assert off <= 1.001, (number, counts)
        assert most_off(served, named) < 2
    finally:
        branches.close()


def test_jobs_of_the_channel_itself_and_channels_without_a_weight_count_once() -> None:
    branches = Branches("root:1,a:weight=2,b", [["root", "root.a", "root.b"]])
    try:
        assert Counter(branches.served(100)) == {"root.a": 50, "root.b": 25, "root": 25}
    finally:
        branches.close()


def test_weights_hold_below_and_above() -> None:
    branches = Branches(
        "root:1,a:weight=3,a.x:weight=1,a.y:weight=2,b:weight=1", [["root.a.x", "root.b"], ["root.a.y"], ["root.a.x"]]
    )
    try:
        assert Counter(branches.served(120)) == {"root.a.x": 30, "root.a.y": 60, "root.b": 30}
    finally:
        branches.close()


def test_a_branch_that_was_away_gets_no_burst() -> None:
    branches = Branches("root:1,a:weight=1,b:weight=1", [["root.a"], ["root.b"]])
    try:
        branches.away(1, "root.b")
        branches.served(50)
        branches.want(1, "root.b")
        assert abs(branches.served(8).count("root.b") - 4) <= 1
    finally:
        branches.close()


def test_without_weights_the_turns_of_databases_decide() -> None:
    branches = Branches("root:1,a,b", [["root.a"], ["root.a"], ["root.a"], ["root.b"]])
    try:
        assert Counter(branches.served(40)) == {"root.a": 30, "root.b": 10}
    finally:
        branches.close()


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
