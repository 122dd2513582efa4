"""Decides from one statement (queries.AT_REST) whether a database can do without a worker. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple


class Rest(NamedTuple):
    """The work a database has for a worker."""

    #: Whether jobs are enqueued or started.
    is_busy: bool
    #: Seconds until the earliest pending job is due; 0 or less: now; infinity: none.
    due_in_s: float
    #: A digest of the set of failed jobs; changes when one is added, removed or requeued.
    failed: str

    @classmethod
    def of(cls, row: Sequence[Any]) -> Rest:
        """Build from the row of queries.AT_REST."""
        is_busy, due_s, clock_s, failed = row
        return cls(bool(is_busy), math.inf if due_s is None else float(due_s) - float(clock_s), str(failed))

    def lasts(self, horizon_s: float) -> bool:
        """Whether there is nothing to do within `horizon_s`."""
        return not self.is_busy and self.due_in_s > horizon_s
