"""Rings of starts: no window over the limit, whatever happens, and all of it where nothing does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qjsupervisor import rates
from qjsupervisor.rates import RING_WORDS, Ring, window_of

WINDOW = 1000


class Killed(BaseException):
    """In place of a store."""


class Words(list[int]):
    """Words whose store number `dies_at` does not happen."""

    left: int | None = None

    def __setitem__(self, at: object, value: object) -> None:
        if self.left is not None:
            if self.left == 0:
                raise Killed
            self.left -= 1
        super().__setitem__(at, value)  # type: ignore[call-overload]


def ring_of(starts: int) -> Ring:
    return Ring(Words([0] * RING_WORDS), 0, starts, WINDOW)


def most_in_a_window(moments: list[int]) -> int:
    ordered = sorted(moments)
    return max((sum(first <= other < first + WINDOW for other in ordered) for first in ordered), default=0)


def is_in_order(ring: Ring) -> bool:
    known = [ring.words[at] for at in ring._from_newest()]
    return known == sorted(known, reverse=True)


def test_another_limit_goes_on_with_the_same_starts() -> None:
    ring = ring_of(2)
    ring.count(10)
    ring.count(20)
    wider, narrower = Ring(ring.words, 0, 3, WINDOW), Ring(ring.words, 0, 1, WINDOW)
    assert (wider.opens(), ring.opens(), narrower.opens()) == (0, 10 + WINDOW, 20 + WINDOW)
    assert (wider.is_over(25), ring.is_over(25), narrower.is_over(25)) == (False, False, True)
    wider.count(30)
    assert narrower.opens() == 30 + WINDOW


@pytest.mark.parametrize("starts", [1, 2, 7, 100, 1000, 1001, 1999, 2500])
def test_saturated_it_gives_all_of_it(starts: int) -> None:
    """As many as fit at once, and as many again a window later."""
    ring, now = ring_of(starts), 5000
    for _round in range(5):
        given_now = 0
        while ring.opens() <= now:
            ring.count(now)
            given_now += 1
        assert starts * 0.997 <= given_now <= starts
        assert ring.used(now) == given_now
        assert ring.used(now + WINDOW) == 0
        now = max(now + 1, ring.opens())
        assert now % WINDOW == 0


operations = st.lists(
    st.tuples(
        st.sampled_from(("start", "start", "start", "sent", "fails", "passes", "long")),
        st.integers(0, 20),
        st.none() | st.integers(0, 6),
    ),
    max_size=120,
)


@settings(max_examples=400, deadline=None)
@given(starts=st.integers(1, 9), most=st.sampled_from((3, 12)), steps=operations)
def test_no_window_is_over(starts: int, most: int, steps: list[tuple[str, int, int | None]]) -> None:
    """Counted when granted, delayed when sent, taken back when not; with deaths between any two stores."""
    patch = pytest.MonkeyPatch()
    patch.setattr(rates, "MOST", most)
    try:
        ring = ring_of(starts)
        now = 10_000
        #: Counted and not sent yet; what was sent, when.
        counted: list[int] = []
        sent: list[int] = []
        for what, number, dies_at in steps:
            ring.words.left = dies_at
            try:
                if what == "start" and ring.opens() <= now:
                    ring.count(now)
                    counted.append(now)
                elif what == "sent" and counted:
                    since = counted.pop(number % len(counted))
                    if since + WINDOW > now:  # else it would be counted anew
                        ring.delay(since, now)
                        sent.append(now)
                elif what == "fails" and counted:
                    ring.take_back(counted.pop(number % len(counted)), now)
                elif what == "passes":
                    now += number
                elif what == "long":
                    now += 40 * number
            except Killed:
                ring.words.left = None
                ring.mend()
            ring.words.left = None
            assert is_in_order(ring)
            live = sent + [moment for moment in counted if moment + WINDOW > now]
            assert most_in_a_window(live) <= starts, steps
            assert ring.used(now) >= sum(moment + WINDOW > now for moment in live)
    finally:
        patch.undo()


def test_what_was_taken_back_is_free_at_once() -> None:
    ring = ring_of(3)
    for moment in (10, 20, 30):
        ring.count(moment)
    assert ring.opens() == 10 + WINDOW
    ring.take_back(20, 40)
    assert ring.moments() == [10, 30]
    assert ring.opens() == 0
    ring.count(50)
    assert ring.opens() == 10 + WINDOW


def test_it_counts_from_when_it_was_sent() -> None:
    ring = ring_of(2)
    ring.count(10)
    ring.count(12)
    ring.delay(12, 40)
    assert ring.moments() == [10, 40]


def test_what_was_counted_a_window_ago_is_not_touched() -> None:
    ring = ring_of(1)
    ring.count(10)
    ring.count(10 + WINDOW)
    ring.take_back(10, 20 + WINDOW)
    assert ring.moments() == [10, 10 + WINDOW]


@given(
    starts=st.integers(1, 6),
    here=st.lists(st.integers(1, 100), max_size=10),
    past=st.lists(st.integers(1, 100), max_size=10),
)
def test_past_starts_take_their_places(starts: int, here: list[int], past: list[int]) -> None:
    ring = ring_of(starts)
    for moment in sorted(here):
        ring.count(moment)
    ring.add_past(past)
    assert is_in_order(ring)
    assert ring.moments() == sorted([*here, *past])


def test_the_window_is_longer_than_the_period_by_a_hundredth() -> None:
    assert window_of(1_000_000, 1_000_000) == 1_010_000
    assert window_of(60_000_000, 1_000_000) == 60_100_000


@pytest.mark.parametrize("starts", [1, 3, 1000, 2500])
def test_what_another_process_counted_is_as_if_counted_here(starts: int) -> None:
    theirs = Ring([0] * RING_WORDS, 0, starts, 100)
    for moment in range(1, starts + 1):
        theirs.count(moment)
    ours = Ring([0] * RING_WORDS, 0, starts, 100)
    ours.count(7)
    ours.replace(theirs.stamps())
    assert ours.stamps() == theirs.stamps()
    assert ours.opens() >= theirs.opens()
    assert ours.used(starts) >= theirs.used(starts)
