"""Keeps the last hour for the page's sparklines: samples of the shared table, in fixed memory.

One sample per SAMPLE_S for all databases together, one per DATABASE_SAMPLE_S for each database.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

SAMPLE_S = 10.0
DATABASE_SAMPLE_S = 60.0
HOUR_S = 3600.0
#: Largest count a sample can hold; an array item has four bytes.
_MOST = 2**32 - 1


class Sample(NamedTuple):
    """One database, or all: jobs that wait and run now, and that were finished and failed since its worker began."""

    waiting: int
    running: int
    finished: int
    failed: int


NOTHING = Sample(0, 0, 0, 0)


class Series(NamedTuple):
    """The last hour of one database or of all, oldest first; finished and failed: in each step."""

    step_s: float
    waiting: Sequence[int]
    running: Sequence[int]
    finished: Sequence[int]
    failed: Sequence[int]

    def per_minute(self, last_s: float = 300.0) -> float:
        """Jobs that ended in a minute, over the last few."""
        steps = max(1, min(len(self.finished), int(last_s / self.step_s)))
        return (sum(self.finished[-steps:]) + sum(self.failed[-steps:])) * 60 / (steps * self.step_s)


class Track:
    """A ring of samples of one thing."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._length = int(HOUR_S / step_s)
        self._rows = [array("I", [0]) * self._length for _ in Sample._fields]
        self._count = 0
        self._last: Sample | None = None
        self._series: Series | None = None
        #: Sparklines drawn since the last sample.
        self._drawn: dict[str, str] = {}

    def add(self, sample: Sample) -> None:
        """Add the next sample. A counter that fell was reset."""
        last = self._last or sample
        ended = [now - then if now >= then else now for now, then in zip(sample[2:], last[2:], strict=True)]
        for row, value in zip(self._rows, (*sample[:2], *ended), strict=True):
            row[self._count % self._length] = min(max(0, value), _MOST)
        self._count += 1
        self._last = sample
        self._series = None
        self._drawn.clear()

    @property
    def series(self) -> Series:
        """All samples kept."""
        if self._series is None:
            self._series = self._unrolled()
        return self._series

    def draw(self, kind: str, drawing: Callable[[Sequence[int]], str]) -> str:
        """A field of the series as `drawing` renders it, cached until the next sample."""
        if kind not in self._drawn:
            self._drawn[kind] = drawing(getattr(self.series, kind))
        return self._drawn[kind]

    def _unrolled(self) -> Series:
        at = self._count % self._length
        if self._count <= self._length:
            return Series(self._step_s, *(row[: self._count] for row in self._rows))
        return Series(self._step_s, *(row[at:] + row[:at] for row in self._rows))


class History:
    """The last hour of all databases together and of each database."""

    def __init__(self) -> None:
        self.total = Track(SAMPLE_S)
        self._databases: dict[str, Track] = {}
        self._next_of_databases_s = 0.0

    def add(self, samples: dict[str, Sample], now_s: float) -> None:
        """Add current samples and forget databases that are gone."""
        self.total.add(_sum(samples.values()))
        if now_s < self._next_of_databases_s:
            return
        self._next_of_databases_s = now_s + DATABASE_SAMPLE_S - SAMPLE_S / 2
        self._databases = {name: self._databases.get(name) or Track(DATABASE_SAMPLE_S) for name in samples}
        for name, sample in samples.items():
            self._databases[name].add(sample)

    def of(self, database: str) -> Series:
        """One database's series; empty if not known yet."""
        return self.track(database).series

    def track(self, database: str) -> Track:
        """One database's track, for drawing."""
        return self._databases.get(database) or Track(DATABASE_SAMPLE_S)


def _sum(samples: Iterable[Sample]) -> Sample:
    total = NOTHING
    for sample in samples:
        total = Sample(*(one + other for one, other in zip(total, sample, strict=True)))
    return total
