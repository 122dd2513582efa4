"""The last hour: bounded, in order, and right when a counter begins anew."""

from __future__ import annotations

import pytest

from qjsupervisor.monitor.history import DATABASE_SAMPLE_S, SAMPLE_S, History, Sample, Series


def test_counts_become_what_ended_in_each_step() -> None:
    history = History()
    for number, finished in enumerate((100, 105, 105, 3, 4)):
        history.add({"a": Sample(number, 1, finished, 0), "b": Sample(1, 1, 0, 2)}, number * SAMPLE_S)
    series = history.total.series
    assert list(series.waiting) == [1, 2, 3, 4, 5]
    assert list(series.running) == [2] * 5
    assert list(series.finished) == [0, 5, 0, 3, 1]  # a worker was replaced: it counts from 0
    assert list(series.failed) == [0] * 5


def test_an_hour_is_kept_and_no_more() -> None:
    history = History()
    for number in range(1000):
        history.add({"a": Sample(number, 0, 2**70, 0)}, number * SAMPLE_S)
    assert list(history.total.series.waiting) == list(range(640, 1000))
    waiting = list(history.of("a").waiting)
    assert len(waiting) == 60
    assert waiting == sorted(waiting)
    assert waiting[-1] >= 1000 - DATABASE_SAMPLE_S / SAMPLE_S


def test_databases_that_are_gone_are_forgotten() -> None:
    history = History()
    history.add({"a": Sample(1, 0, 0, 0)}, 0)
    assert list(history.of("a").waiting) == [1]
    history.add({"b": Sample(1, 0, 0, 0)}, DATABASE_SAMPLE_S)
    assert list(history.of("a").waiting) == []


def test_rate() -> None:
    assert Series(10.0, (), (), (1,) * 60, (1,) * 60).per_minute() == pytest.approx(12)
    assert Series(60.0, (), (), (), ()).per_minute() == 0
