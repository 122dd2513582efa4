"""Statistics of the stand-in Odoo: every request, every run of a job, and peaks of concurrency.

Filled by the HTTP side and the threads that run jobs, hence the lock. Times are time.monotonic() seconds, which all
processes of one machine share.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TypedDict

from ..channelspec import complete_name, parent_name


class Run(TypedDict):
    """One run of one job, from `started` on."""

    database: str
    uuid: str
    #: Complete: 'root', 'root.sub', ...
    channel: str
    received_s: float
    started_s: float
    finished_s: float | None
    #: done, failed, retried, died (its worker was killed), broken (PostgreSQL went away under it).
    outcome: str | None


class Stats(TypedDict):
    """The answer of `/_standin/stats`."""

    #: Database -> uuid -> number of requests, whether the job ran or not.
    requests: dict[str, dict[str, int]]
    #: Database -> uuid -> number of times the job was begun.
    executions: dict[str, dict[str, int]]
    #: Status as text -> number of answers; requests without an answer are not included.
    answers: dict[str, int]
    #: Database -> outcome -> number of runs, and of requests that ran nothing: not_enqueued, not_loaded, no_database.
    outcomes: dict[str, dict[str, int]]
    #: Channel, including ancestors -> jobs running now, and the peak, over all databases.
    running: dict[str, int]
    peak: dict[str, int]
    #: Database -> channel -> peak.
    peak_by_database: dict[str, dict[str, int]]
    #: In order of their start.
    runs: list[Run]
    #: Requests waiting for a free worker: now, and the peak.
    waiting: int
    peak_waiting: int
    #: How the database was named: query, header, both, none.
    addressed: dict[str, int]
    redirects_followed: int
    with_credentials: int
    #: Authorization header, verbatim -> number of requests.
    authorizations: dict[str, int]
    #: Clients that disconnected before they were answered.
    hung_up: int


class OdooStatistics:
    """The counters behind `Stats`; any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._running: Counter[str] = Counter()
        self._running_by_database: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._clear()

    def _clear(self) -> None:
        self._counts: Counter[str] = Counter()
        self._requests: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._executions: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._answers: Counter[str] = Counter()
        self._addressed: Counter[str] = Counter()
        self._authorizations: Counter[str] = Counter()
        self._peak = Counter(self._running)
        self._peak_by_database = {name: Counter(held) for name, held in self._running_by_database.items()}
        self._peak_waiting = self._waiting
        self._runs: list[Run] = []

    def reset(self) -> None:
        """Forget what is over; running and waiting jobs still count."""
        with self._lock:
            self._clear()

    def count(self, name: str) -> None:
        """One more of `redirects_followed` or `hung_up`."""
        with self._lock:
            self._counts[name] += 1

    def asked(self, database: str, uuid: str, addressed: str, authorization: str | None) -> None:
        with self._lock:
            self._requests[database][uuid] += 1
            self._addressed[addressed] += 1
            if authorization is not None:
                self._authorizations[authorization] += 1

    def answered(self, status: int) -> None:
        with self._lock:
            self._answers[str(status)] += 1

    def queued(self, change: int) -> None:
        """A request began (+1) or stopped (-1) waiting for a worker."""
        with self._lock:
            self._waiting += change
            self._peak_waiting = max(self._peak_waiting, self._waiting)

    def not_run(self, database: str, outcome: str) -> None:
        with self._lock:
            self._outcomes[database][outcome] += 1

    def begun(self, database: str, uuid: str, channel: str | None, received_s: float) -> Run:
        run: Run = {
            "database": database,
            "uuid": uuid,
            "channel": complete_name(channel),
            "received_s": received_s,
            "started_s": time.monotonic(),
            "finished_s": None,
            "outcome": None,
        }
        with self._lock:
            self._runs.append(run)
            self._executions[database][uuid] += 1
            held = self._running_by_database[database]
            peak = self._peak_by_database.setdefault(database, Counter())
            for name in _path(run["channel"]):
                self._running[name] += 1
                held[name] += 1
                self._peak[name] = max(self._peak[name], self._running[name])
                peak[name] = max(peak[name], held[name])
        return run

    def ended(self, run: Run, outcome: str) -> None:
        """Note a run's end; call it before the row is updated, so that no job can begin earlier."""
        run["finished_s"] = time.monotonic()
        run["outcome"] = outcome
        with self._lock:
            self._outcomes[run["database"]][outcome] += 1
            held = self._running_by_database[run["database"]]
            for name in _path(run["channel"]):
                self._running[name] -= 1
                held[name] -= 1

    def revised(self, run: Run, outcome: str) -> None:
        """Correct a run's outcome."""
        with self._lock:
            counted = self._outcomes[run["database"]]
            if run["outcome"] is not None:
                counted[run["outcome"]] -= 1
            counted[outcome] += 1
            run["outcome"] = outcome

    def read(self) -> Stats:
        with self._lock:
            return {
                "requests": _plain(self._requests),
                "executions": _plain(self._executions),
                "answers": dict(self._answers),
                "outcomes": _plain(self._outcomes),
                "running": dict(+self._running),
                "peak": dict(self._peak),
                "peak_by_database": _plain(self._peak_by_database),
                "runs": [run.copy() for run in self._runs],
                "waiting": self._waiting,
                "peak_waiting": self._peak_waiting,
                "addressed": dict(self._addressed),
                "redirects_followed": self._counts["redirects_followed"],
                "with_credentials": self._authorizations.total(),
                "authorizations": dict(self._authorizations),
                "hung_up": self._counts["hung_up"],
            }


def _path(channel: str) -> Iterator[str]:
    """The channel and its ancestors."""
    name: str | None = channel
    while name is not None:
        yield name
        name = parent_name(name)


def _plain(counters: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {name: dict(counter) for name, counter in counters.items()}
