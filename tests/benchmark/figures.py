"""Figures: what was measured, medians over repetitions, ratios. A figure that is None was not reached in time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Figures = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one runner in one scenario; `size` is what the scenario varies."""

    scenario: str
    size: int
    runner: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Figure:
    """A kind of figure. `key` ends in its unit."""

    key: str
    title: str
    unit: str


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not less than `share` of all (nearest rank); ValueError without values."""
    if not values:
        raise ValueError("no values")
    rank = max(1, math.ceil(share * len(values)))
    return sorted(values)[rank - 1]


def finite(value: float, digits: int = 3) -> float | None:
    """Rounded; None if it is infinite, which stands for what did not happen in time."""
    return round(value, digits) if math.isfinite(value) else None


def median(values: Sequence[float | None]) -> float | None:
    """None counts as more than anything: a figure that was mostly not reached has no median."""
    if not values:
        return None
    middle = statistics.median(math.inf if value is None else value for value in values)
    return middle if math.isfinite(middle) else None


class Results:
    """All that was measured, by scenario, size and runner, in the order of measuring."""

    def __init__(self, measured: Sequence[Measured] = ()) -> None:
        self.measured = list(measured)

    def add(self, one: Measured) -> None:
        self.measured.append(one)

    def values(self, scenario: str, size: int, runner: str, key: str) -> list[float | None]:
        """One for each repetition."""
        return [
            one.figures.get(key)
            for one in self.measured
            if (one.scenario, one.size, one.runner) == (scenario, size, runner)
        ]

    def median(self, scenario: str, size: int, runner: str, key: str) -> float | None:
        return median(self.values(scenario, size, runner, key))

    def ratio(self, scenario: str, size: int, key: str, ours: str, theirs: str) -> float | None:
        """The median of ours to theirs, each pair of one repetition; None where a median is missing."""
        pairs = zip(self.values(scenario, size, ours, key), self.values(scenario, size, theirs, key), strict=False)
        return median([None if a is None or not b else a / b for a, b in pairs])

    def sizes(self, scenario: str) -> list[int]:
        return sorted({one.size for one in self.measured if one.scenario == scenario})

    def runners(self) -> list[str]:
        return list(dict.fromkeys(one.runner for one in self.measured))
