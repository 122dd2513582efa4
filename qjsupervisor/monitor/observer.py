"""Reads the shared table for metrics and sparklines, independently of the master."""

from __future__ import annotations

import time

from ..loop import Loop
from ..states import JobOutcome
from ..table.statistics import Totals
from ..table.views import TableReader
from .history import SAMPLE_S, History, Sample
from .waiting import WaitingJobs


class Observer:
    """Samples the table every SAMPLE_S, and reads it on request."""

    def __init__(self, loop: Loop, table: TableReader) -> None:
        self.history = History()
        self._loop = loop
        self._table = table

    def start(self) -> None:
        """Start sampling."""
        self._sample(time.monotonic())

    def _sample(self, now_s: float) -> None:
        self.history.add(
            {
                view.database: Sample(
                    view.pending, view.running, view.outcomes[JobOutcome.DONE], view.outcomes[JobOutcome.FAILED]
                )
                for view in self._table.slot_views()
            },
            now_s,
        )
        self._loop.call_at(now_s + SAMPLE_S, self._sample)

    def totals(self) -> Totals:
        """Counters and histograms of all databases."""
        return self._table.totals()

    def cells(self) -> list[WaitingJobs]:
        """Waiting jobs per channel and database, without empty ones."""
        names = [view.name for view in self._table.channel_views()]
        return [
            WaitingJobs(database, name, waiting.due, waiting.not_due)
            for database, row in self._table.waiting().items()
            for name, waiting in zip(names, row, strict=False)
            if waiting.due or waiting.not_due
        ]
