"""Permits by channel: adding and taking away, without zeros."""

from __future__ import annotations

from qjsupervisor.broker.counts import Counts, add, minus, plus, take_away


def test_adding_changes_the_first_and_plus_changes_neither() -> None:
    counts: Counts = {"root": 2}
    assert plus(counts, {"root": 1, "root.a": 3}) == {"root": 3, "root.a": 3}
    assert counts == {"root": 2}
    add(counts, {"root.a": 1})
    assert counts == {"root": 2, "root.a": 1}


def test_nothing_is_taken_that_is_not_there_and_no_zero_is_left() -> None:
    counts: Counts = {"root": 2, "root.a": 1, "root.b": 4}
    take_away(counts, {"root": 2, "root.a": 5, "root.b": 1, "root.c": 1})
    assert counts == {"root.b": 3}


def test_what_is_left() -> None:
    counts: Counts = {"root": 2, "root.a": 1}
    assert minus(counts, {"root": 1, "root.a": 1, "root.b": 7}) == {"root": 1}
    assert counts == {"root": 2, "root.a": 1}
