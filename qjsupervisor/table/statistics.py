"""Counters and histograms of the workers' activity, in the shared table. Layout: layout.Statistics.

A worker adds to its own slot's words without the lock, a few additions per job. Readers sum over all slots. Nothing
is lost when a worker dies, and no sum ever decreases: a slot keeps its words when another database takes it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from ..states import JobOutcome
from .core import TableCore
from .layout import DURATION_S, WAITED_S, Statistics

#: Limit for one wait, since a row may be created at '-infinity' and the sum must fit into a word.
_LONGEST_S = 10 * 365 * 86400.0


class Histogram(NamedTuple):
    """Observations: counts per bucket (not cumulative; the last one has no bound), and their sum in seconds."""

    bounds_s: Sequence[float]
    counts: Sequence[int]
    sum_s: float


class Totals(NamedTuple):
    """Totals over all databases since the table was created."""

    outcomes: Sequence[int]
    #: By first digit of the HTTP status; 0: no answer.
    statuses: Sequence[int]
    waited: Histogram
    #: By JobOutcome.
    durations: Sequence[Histogram]


class SlotStatistics:
    """The writing side, in one worker."""

    def __init__(self, core: TableCore, slot: int) -> None:
        base = core.slot_base(slot) + core.layout.slot_statistics
        self._words = core.words
        self._outcomes, self._outcomes_here = base + Statistics.OUTCOMES, base + Statistics.OUTCOMES_HERE
        self._statuses = base + Statistics.STATUSES
        self._waited = base + Statistics.WAITED
        self._durations = [base + Statistics.DURATION + outcome * Statistics.DURATION_WORDS for outcome in JobOutcome]

    def dispatched(self, waited_s: float) -> None:
        """A job was sent to Odoo `waited_s` after it was due."""
        self._observe(self._waited, WAITED_S, min(max(0.0, waited_s), _LONGEST_S))

    def ended(self, outcome: int, status: int | None, duration_s: float) -> None:
        """A request came to its end, with this JobOutcome; `status` None: without an answer."""
        words = self._words
        words[self._outcomes + outcome] += 1
        words[self._outcomes_here + outcome] += 1
        first_digit = (status or 0) // 100
        words[self._statuses + (first_digit if first_digit < 6 else 0)] += 1
        self._observe(self._durations[outcome], DURATION_S, duration_s)

    def _observe(self, word: int, bounds_s: Sequence[float], seconds: float) -> None:
        words = self._words
        words[word + bisect_left(bounds_s, seconds)] += 1
        try:
            words[word + len(bounds_s) + 1] += int(seconds * 1e6)
        except ValueError:
            pass  # the sum is as great as a word can be: of thirty thousand jobs that waited for ten years


def clear_outcomes(core: TableCore, slot: int) -> None:
    """Reset the outcomes for a new database in this slot, while it has no worker."""
    start = core.slot_base(slot) + core.layout.slot_statistics + Statistics.OUTCOMES_HERE
    for word in range(start, start + len(JobOutcome)):
        core.words[word] = 0


def outcomes_of(core: TableCore, slot: int) -> tuple[int, ...]:
    """Counts by JobOutcome for the database in this slot."""
    start = core.slot_base(slot) + core.layout.slot_statistics + Statistics.OUTCOMES_HERE
    return tuple(core.words[start : start + len(JobOutcome)].tolist())


def read_totals(core: TableCore) -> Totals:
    """The sums over all slots, including databases that have left."""
    sums = [0] * Statistics.WORDS
    for slot in range(core.slots):
        base = core.slot_base(slot) + core.layout.slot_statistics
        words = core.words[base : base + Statistics.WORDS].tolist()
        if any(words):
            sums = [one + other for one, other in zip(sums, words, strict=True)]
    durations = range(Statistics.DURATION, Statistics.WORDS, Statistics.DURATION_WORDS)
    return Totals(
        outcomes=sums[Statistics.OUTCOMES : Statistics.OUTCOMES_HERE],
        statuses=sums[Statistics.STATUSES : Statistics.WAITED],
        waited=_histogram(sums, Statistics.WAITED, WAITED_S),
        durations=[_histogram(sums, word, DURATION_S) for word in durations],
    )


def _histogram(words: Sequence[int], start: int, bounds_s: Sequence[float]) -> Histogram:
    count = len(bounds_s) + 1
    return Histogram(bounds_s, words[start : start + count], words[start + count] / 1e6)
