"""Weights of channels in the shared table, as properties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qjsupervisor.states import Fairness

from .branch_worlds import Branches


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
