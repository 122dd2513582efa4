"""Decides when a worker reads its whole table again: often enough, but within a share of its time.  Pure.

The duration of the last read determines the earliest time of the next one.
"""

from __future__ import annotations

#: Largest share of time spent on full reads.
RECONCILE_SHARE = 0.01
#: Shortest interval between reads of a tree in the database, and the largest share of time for them.
RELOAD_S, RELOAD_SHARE = 0.5, 0.2
#: Reads this short may be repeated on the main connection.
QUICK_READ_S = 0.05


class ReadTimes:
    """The times of one worker's full reads, in monotonic seconds."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._took_s = 0.0
        #: Earliest time of the next requested read.
        self.reload_from_s = 0.0

    def was_read(self, took_s: float, now_s: float) -> float:
        """A read ended; returns the time of the next routine read."""
        self._took_s = took_s
        self.reload_from_s = now_s + RELOAD_S + took_s / RELOAD_SHARE
        return now_s + max(self._interval_s, took_s / RECONCILE_SHARE)

    def begin(self, now_s: float) -> float:
        """A read begins; returns the time of the next one should it fail."""
        return now_s + self._interval_s

    @property
    def is_quick(self) -> bool:
        """Whether a read blocks the loop only briefly."""
        return self._took_s < QUICK_READ_S
