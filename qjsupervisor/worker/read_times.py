"""When a worker reads its whole table again: often enough to be sure, never so often that it does little else.  Pure.

What a read costs is known from the last one, and sets how soon the next one may be.
"""

from __future__ import annotations

#: A full read of the table takes no more than this part of the time.
RECONCILE_SHARE = 0.01
#: A tree in the database is read again no sooner than this after the last read, and takes no more than this part of the
#: time.
RELOAD_S, RELOAD_SHARE = 0.5, 0.2
#: Reads up to this long may be repeated on the main connection.
QUICK_READ_S = 0.05


class ReadTimes:
    """The moments (monotonic) of one worker's full reads."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._took_s = 0.0
        #: Not to be read afresh before, whoever asks for it.
        self.reload_from_s = 0.0

    def was_read(self, took_s: float, now_s: float) -> float:
        """A read is over; when the next one is to be, to be sure."""
        self._took_s = took_s
        self.reload_from_s = now_s + RELOAD_S + took_s / RELOAD_SHARE
        return now_s + max(self._interval_s, took_s / RECONCILE_SHARE)

    def begin(self, now_s: float) -> float:
        """A read begins, and may come to nothing; when the next one is to be then."""
        return now_s + self._interval_s

    @property
    def is_quick(self) -> bool:
        """Whether a read holds up the loop for no more than a moment."""
        return self._took_s < QUICK_READ_S
