"""Whether a database can do without a worker, by one statement (queries.AT_REST). Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple


class Rest(NamedTuple):
    """What a database has for a worker to do."""

    #: Jobs are enqueued or started.
    is_busy: bool
    #: Seconds until the earliest pending job is due: 0 or less: now; infinity: there is none.
    due_in_s: float
    #: Stands for the set of failed jobs: it changes when one comes, goes or is requeued.
    failed: str

    @classmethod
    def of(cls, row: Sequence[Any]) -> Rest:
        """From the row of queries.AT_REST."""
        is_busy, due_s, clock_s, failed = row
        return cls(bool(is_busy), math.inf if due_s is None else float(due_s) - float(clock_s), str(failed))

    def lasts(self, horizon_s: float) -> bool:
        """Whether there is nothing to do for so long."""
        return not self.is_busy and self.due_in_s > horizon_s
