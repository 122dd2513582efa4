"""Windows: the best of a set, exact up to a horizon."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qjsupervisor.backlog.window import Window


def window(limit: int, *items: int, horizon: int | None = None) -> Window[int]:
    made: Window[int] = Window(limit)
    made.extend(items, horizon)
    return made


@pytest.mark.parametrize(
    ("before", "horizon", "item", "after", "dropped", "then"),
    [
        ([], None, 5, [5], None, None),
        ([1, 3], None, 2, [1, 2, 3], None, None),
        ([1, 2, 3], None, 4, [1, 2, 3], 4, 3),  # it does not even get in
        ([1, 2, 4], None, 3, [1, 2, 3], 4, 3),  # the worst one makes room
        ([1, 2], 5, 3, [1, 2, 3], None, 5),
        ([1, 2], 5, 5, [1, 2, 5], None, 5),
        ([1, 2], 5, 6, [1, 2], 6, 5),  # what lies beyond the horizon stays there, room or not
        ([], 5, 6, [], 6, 5),
    ],
)
def test_put(
    before: list[int], horizon: int | None, item: int, after: list[int], dropped: int | None, then: int | None
) -> None:
    it = window(3, *before, horizon=horizon)
    assert it.put(item) == dropped
    assert (it.items, it.horizon) == (after, then)


@pytest.mark.parametrize(
    ("before", "found", "horizon", "after", "dropped", "then"),
    [
        ([], [], None, [], [], None),
        ([4], [5, 6], None, [4, 5, 6], [], None),
        ([4], [4, 5], 5, [4, 5], [], 5),
        ([2], [3, 4, 5], 5, [2, 3, 4], [5], 4),  # for want of room
        ([9], [3], 4, [3], [9], 4),  # others may lie between 4 and 9
        ([9], [], 4, [], [9], 4),
        ([8, 9], [1, 2], 8, [1, 2, 8], [9], 8),
    ],
)
def test_extend(
    before: list[int], found: list[int], horizon: int | None, after: list[int], dropped: list[int], then: int | None
) -> None:
    it = window(3, *before)
    assert it.extend(found, horizon) == dropped
    assert (it.items, it.horizon) == (after, then)


def test_remove() -> None:
    it = window(3, 1, 2, 3)
    assert it.remove(2)
    assert not it.remove(2)
    assert not it.remove(9)
    assert (it.items, len(it)) == ([1, 3], 2)


@pytest.mark.parametrize(
    ("limit", "held", "horizon", "dry"),
    [(8, 2, 99, True), (8, 3, 99, False), (8, 0, None, False), (3, 0, 99, True), (3, 1, 99, False), (1, 0, 99, True)],
)
def test_runs_dry(limit: int, held: int, horizon: int | None, dry: bool) -> None:
    assert window(limit, *range(held), horizon=horizon).runs_dry is dry


def test_clear() -> None:
    it = window(3, 1, 2, 3, 4)
    it.clear()
    assert (it.items, it.horizon) == ([], None)


_MOVES = st.lists(st.tuples(st.sampled_from(["put", "remove", "read"]), st.integers(0, 20)), max_size=60)


@settings(max_examples=300, deadline=None)
@given(limit=st.integers(1, 5), moves=_MOVES)
def test_it_is_exact_up_to_its_horizon(limit: int, moves: list[tuple[str, int]]) -> None:
    """Against a plain set: all up to the horizon is held, nothing beyond it, never more than the limit."""
    truth: set[int] = set()
    it: Window[int] = Window(limit)
    for move, item in moves:
        if move == "put" and item not in truth:
            truth.add(item)
            it.put(item)
        elif move == "remove":
            truth.discard(item)
            it.remove(item)
        elif move == "read":
            found = sorted(truth)[:limit]
            it.extend(found, found[-1] if len(found) == limit else None)
        assert it.items == sorted(x for x in truth if it.horizon is None or x <= it.horizon)
        assert len(it) <= limit
