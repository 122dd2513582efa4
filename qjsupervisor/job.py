"""One row of queue_job, as far as a runner needs it. Pure.

Any value that PostgreSQL can hold is mapped into the range of the shared table's words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

#: Sorts after every date; stands for 'infinity'.
_LATEST_US = 1 << 62
#: Stands for NULL, which PostgreSQL sorts after 'infinity'.
_NO_DATE_US = _LATEST_US + 1


#: A job with a longer uuid is never started, because no request can carry it.
MAX_UUID_BYTES = 256

#: (priority, date_created in microseconds, id): smaller first. With ageing, `aged_us` replaces the priority.
Key = tuple[int, int, int]


class Pending(NamedTuple):
    """A pending job as read from the database; `channel` as in the row, `eta_us` None or UTC microseconds."""

    key: Key
    channel: str | None
    eta_us: int | None

    @property
    def job_id(self) -> int:
        return self.key[2]


class Job(NamedTuple):
    """A job; `channel` as in the row, `key` its place in the order of all jobs, lowest first."""

    id: int
    uuid: str
    channel: str | None
    state: str
    key: tuple[int, int, int]
    eta_us: int | None

    @property
    def due_us(self) -> int:
        """The earliest time it may run (UTC microseconds): its eta, else its creation."""
        return self.key[1] if self.eta_us is None else max(self.key[1], self.eta_us)

    @property
    def pending(self) -> Pending:
        return Pending(self.key, self.channel, self.eta_us)


def job_of(row: Sequence[Any], ageing_s: float = 0.0) -> Job:
    """A Job from a row of JOB_COLUMNS. `ageing_s`: see aged_us; 0 switches ageing off."""
    job_id, uuid, channel, state, priority, created_s, eta_s = row
    rank = 10 if priority is None else priority
    if ageing_s:
        rank = aged_us(rank, created_s, eta_s, ageing_s)
    key = (rank, _micros(created_s, _NO_DATE_US), job_id)
    return Job(job_id, uuid, channel, state, key, None if eta_s is None else _micros(eta_s, 0))


def aged_us(priority: int, created_s: float | None, eta_s: float | None, ageing_s: float) -> int:
    """The rank of a job with ageing: when it was created or became due, plus `ageing_s` for each step of priority.

    It never changes, so waiting jobs keep their order. A job of priority p is overtaken only by jobs of priority
    q < p that were created at most (p - q) x ageing_s later.
    """
    since_s = max(math.inf if created_s is None else created_s, -math.inf if eta_s is None else eta_s)
    return _micros(since_s + float(priority) * ageing_s, 0)


def _micros(seconds: float | None, missing: int) -> int:
    if seconds is None:
        return missing
    if seconds in (float("inf"), float("-inf")):
        return _LATEST_US if seconds > 0 else -_LATEST_US
    return max(-_LATEST_US, min(_LATEST_US, round(seconds * 1e6)))  # timestamps reach further than 63 bits


def why_unsendable(uuid: str) -> str | None:
    """Why no request can carry this uuid; None if one can."""
    size = len(uuid.encode("utf-8", "surrogateescape"))
    return None if 0 < size <= MAX_UUID_BYTES else f"its uuid has {size} bytes, not 1 to {MAX_UUID_BYTES}"
