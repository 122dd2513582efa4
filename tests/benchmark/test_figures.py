"""Statistics and the table."""

from __future__ import annotations

import io
import math

import pytest

from . import table
from .figures import Measured, Results, finite, median, quantile
from .runners import OCA, OURS


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0], 0.5, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        ([*range(1, 101)], 0.99, 99),
        ([1.0, math.inf], 0.99, math.inf),
    ],
)
def test_quantile(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == expected


def test_quantile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_what_was_not_reached_is_no_figure() -> None:
    assert finite(math.inf) is None
    assert finite(1.23456, 2) == 1.23


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([2.0], 2.0), ([None, 1.0, 3.0], 3.0), ([None, None, 3.0], None), ([None, 1.0], None)],
)
def test_median_counts_a_dash_as_the_worst(values: list[float | None], expected: float | None) -> None:
    assert median(values) == expected


def drained(runner: str, cpu: float | None, rate: float | None) -> Measured:
    return Measured("drain", 20, runner, {"cpu_ms_per_job": cpu, "jobs_per_s": rate})


def test_ratio_is_the_median_of_each_repetition() -> None:
    results = Results()
    for theirs, ours in ((4.0, 1.0), (2.0, 1.0), (10.0, 1.0)):
        results.add(drained(OCA, theirs, None))
        results.add(drained(OURS, ours, 100.0))
    assert results.ratio("drain", 20, "cpu_ms_per_job", OURS, OCA) == 0.25
    assert results.ratio("drain", 20, "jobs_per_s", OURS, OCA) is None
    assert results.sizes("drain") == [20]
    assert results.runners() == [OCA, OURS]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.0, "0"), (0.1234, "0.123"), (3.857, "3.86"), (12.34, "12.3"), (12345.6, "12,346")],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert table.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (0.25, "0.25"), (0.056, "1/18"), (3.0, "3.00"), (0.001, "1/1,000"), (0.0, "0.00")]
)
def test_ratios(value: float | None, shown: str) -> None:
    assert table.ratio(value) == shown


def test_table_in_a_pipe_is_plain_text() -> None:
    out = io.StringIO()
    results = Results([drained(OCA, 3.85, 158.0), drained(OURS, 0.77, None)])
    table.show(table.HEADER, table.rows(results), out)
    assert out.getvalue().splitlines()[1:] == [
        "scenario             figure               OCA's runner  qjsupervisor  ratio",
        "drain, 20 databases  CPU per job (ms)             3.85          0.77   0.20",
        "                     throughput (jobs/s)           158             -      -",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    table.show(table.HEADER, table.rows(Results([drained(OURS, 0.77, 12.0)])), out)
    assert "drain, 20 databases" in out.getvalue()
    assert "0.77" in out.getvalue()


def test_table_for_readme() -> None:
    assert table.markdown(("a", "b", "c"), [("x", "y", "1")]) == "| a | b | c |\n| --- | --- | ---: |\n| x | y | 1 |\n"
