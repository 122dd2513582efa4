"""What happened, told independently of the shared table: each job notes its own beginning and end.

One shared mapping, made before the first fork. A job is one record (channel, begin, end), which counts from the store
to its database's COUNT on; it ends by itself at its end, whatever became of its worker, as a job in Odoo does.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Final, NamedTuple

#: Words of one database's head.
COUNT: Final = 0  # jobs that were begun
LATENCIES: Final = 1  # hand-overs that were measured
ALIVE_NS: Final = 2  # last turn of its worker's loop; 0 until a life has read what its database says
STRUCK_NS: Final = 3  # last time that the storm stopped or killed its worker
WAITING: Final = 4  # jobs that wait, by channel
CHANNELS: Final = 8
_HEAD_WORDS: Final = WAITING + CHANNELS
_JOB_WORDS: Final = 3
#: A job's record is one of the last so many of its database while the job runs.
_RECENT: Final = 24


class Job(NamedTuple):
    """One job that was begun; times are of the monotonic clock."""

    channel: int
    begin_ns: int
    end_ns: int


class Ledger:
    """All that is shared besides the table."""

    def __init__(self, databases: int, jobs: int) -> None:
        self.databases = databases
        self._jobs = jobs
        self._size = _HEAD_WORDS + jobs * (_JOB_WORDS + 1)
        #: 1: nothing new is to be begun.
        self.words = memoryview(mmap.mmap(-1, (1 + databases * self._size) * 8)).cast("q")

    @property
    def draining(self) -> bool:
        return bool(self.words[0])

    def drain(self) -> None:
        self.words[0] = 1

    def head(self, database: int) -> int:
        return 1 + database * self._size

    def begin(self, database: int, job: Job) -> bool:
        """Note a job that begins; False when the ledger is full."""
        head = self.head(database)
        count = self.words[head + COUNT]
        if count >= self._jobs:
            return False
        at = head + _HEAD_WORDS + count * _JOB_WORDS
        for i, word in enumerate(job):
            self.words[at + i] = word
        self.words[head + COUNT] = count + 1
        return True

    def note_latency(self, database: int, latency_ns: int) -> None:
        head = self.head(database)
        count = self.words[head + LATENCIES]
        if count < self._jobs:
            self.words[head + _HEAD_WORDS + self._jobs * _JOB_WORDS + count] = latency_ns
            self.words[head + LATENCIES] = count + 1

    def latencies_ns(self) -> list[int]:
        found: list[int] = []
        for database in range(self.databases):
            head = self.head(database)
            start = head + _HEAD_WORDS + self._jobs * _JOB_WORDS
            found += self.words[start : start + self.words[head + LATENCIES]].tolist()
        return sorted(found)

    def jobs(self, database: int) -> list[Job]:
        """All jobs that were begun."""
        return self._read(database, 0)

    def running(self, database: int, now_ns: int) -> list[Job]:
        """The jobs that run now."""
        recent = self._read(database, self.words[self.head(database) + COUNT] - _RECENT)
        return [job for job in recent if job.end_ns > now_ns]

    def _read(self, database: int, first: int) -> list[Job]:
        head = self.head(database)
        first = max(0, first)
        start = head + _HEAD_WORDS
        words = self.words[start + first * _JOB_WORDS : start + self.words[head + COUNT] * _JOB_WORDS].tolist()
        return [Job(*words[i : i + _JOB_WORDS]) for i in range(0, len(words), _JOB_WORDS)]

    def begun(self) -> int:
        return sum(self.words[self.head(database) + COUNT] for database in range(self.databases))


def overruns(ledger: Ledger, paths: list[tuple[int, ...]], capacities: list[int]) -> Iterator[tuple[int, int, int]]:
    """Each beginning at which a channel was over its capacity: (channel, jobs in it, when)."""
    events: list[tuple[int, int, int]] = []
    for database in range(ledger.databases):
        for job in ledger.jobs(database):
            events += [(job.begin_ns, 1, job.channel), (job.end_ns, 0, job.channel)]
    events.sort()  # at the same instant, ends come first
    running = [0] * len(capacities)
    for when_ns, begins, channel in events:
        for node in paths[channel]:
            running[node] += 1 if begins else -1
            if begins and running[node] > capacities[node] >= 0:
                yield node, running[node], when_ns


def borrowed(
    ledger: Ledger, paths: list[tuple[int, ...]], reserved: dict[int, int], capacity: int
) -> Iterator[tuple[int, int]]:
    """Each beginning at which jobs took what is kept free for others: (jobs of all others, when).

    `reserved`: what is kept for channels, of the root's `capacity`.
    """
    most = capacity - sum(reserved.values())
    events: list[tuple[int, int]] = []
    for database in range(ledger.databases):
        for job in ledger.jobs(database):
            if reserved.keys().isdisjoint(paths[job.channel]):
                events += [(job.begin_ns, 1), (job.end_ns, 0)]
    running = 0
    for when_ns, begins in sorted(events):
        running += 1 if begins else -1
        if begins and running > most:
            yield running, when_ns


def beyond(ledger: Ledger, database: int, most: int) -> int:
    """Beginnings at which a database ran more jobs than its maximum."""
    events = [(job.begin_ns, 1) for job in ledger.jobs(database)]
    events += [(job.end_ns, 0) for job in ledger.jobs(database)]
    running = found = 0
    for _when_ns, begins in sorted(events):
        running += 1 if begins else -1
        found += bool(begins) and running > most
    return found


def over_rate(ledger: Ledger, paths: list[tuple[int, ...]], channel: int, starts: int, period_ns: int) -> int:
    """Windows in which more jobs of a channel began than its rate allows."""
    moments = sorted(
        job.begin_ns
        for database in range(ledger.databases)
        for job in ledger.jobs(database)
        if channel in paths[job.channel]
    )
    return sum(later - earlier < period_ns for earlier, later in zip(moments, moments[starts:], strict=False))
