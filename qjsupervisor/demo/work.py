"""The demo's work: which jobs go into which database when, and their expected results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from psycopg2 import extensions

from ..testing import jobs

SHOP, BOOKS, MAIL = DATABASES = ("demo_shop", "demo_books", "demo_mail")

#: Channel -> capacity, and its options in the syntax of queue_job's channel string.
_CHANNELS = {
    "root": (6, ""),
    "root.slow": (2, ""),
    "root.ledger": (1, ":sequential"),
    "root.report": (1, ":throttle=2"),
}
CAPACITIES: Mapping[str, int] = {name: capacity for name, (capacity, _) in _CHANNELS.items()}
CHANNELS = ",".join(f"{name}:{capacity}{options}" for name, (capacity, options) in _CHANNELS.items())
SEQUENTIAL = "root.ledger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Equal jobs inserted together."""

    about: str
    database: str
    count: int
    #: Seconds after the start.
    at_s: float = 0.0
    channel: str = "root"
    priority: int = 10
    eta_s: float | None = None
    #: What the stand-in does for each job; see odoo_jobs.
    kwargs: Mapping[str, object] = field(default_factory=dict)
    state: str = "done"
    #: How often each must have run at the end.
    runs: int = 1
    #: Wait for the jobs of the previous batch in the database.
    dependent: bool = False


#: Description of the job whose rescue the demo explains.
KILLED = "its Odoo worker is killed"

PLAN: Sequence[Batch] = (
    # Holds its permit until it is found dead 10 s later; before that all six are seen running.
    Batch(
        about=KILLED,
        database=SHOP,
        count=1,
        priority=1,
        kwargs={"sleep": 0.8, "die": 1},
        runs=2,
    ),
    *(Batch(about="a burst", database=name, count=60, kwargs={"sleep": 0.05}) for name in DATABASES),
    *(Batch(about="slow", database=name, count=6, channel="root.slow", kwargs={"sleep": 0.8}) for name in DATABASES),
    Batch(about="in order", database=BOOKS, count=20, channel=SEQUENTIAL, kwargs={"sleep": 0.1}),
    Batch(about="throttled", database=BOOKS, count=4, channel="root.report"),
    Batch(about="due later", database=MAIL, count=5, eta_s=5.0),
    Batch(about="fail", database=SHOP, count=4, kwargs={"fail": True}, state="failed"),
    Batch(about="try again", database=MAIL, count=5, kwargs={"retry": 1, "retry_s": 1}, runs=2),
    Batch(about="a second burst", database=SHOP, count=90, at_s=3.0, kwargs={"sleep": 0.1}),
    Batch(about="wait for those", database=SHOP, count=3, at_s=3.0, dependent=True),
    Batch(about="urgent", database=SHOP, count=10, at_s=3.5, priority=1, kwargs={"sleep": 0.02}),
    Batch(about="another database's few", database=BOOKS, count=10, at_s=3.5, kwargs={"sleep": 0.02}),
)


class Work:
    """Inserts the batches when they are due, and remembers which job belongs to which batch."""

    def __init__(self, connections: Mapping[str, extensions.connection], plan: Sequence[Batch] = PLAN) -> None:
        self._connections = connections
        self._todo = sorted(plan, key=lambda batch: batch.at_s)
        self._last: dict[str, list[str]] = {}
        #: (database, uuid) -> batch.
        self.batches: dict[tuple[str, str], Batch] = {}

    def put_due(self, now_s: float) -> list[Batch]:
        """Insert and return the batches due `now_s` seconds after the start."""
        due = [batch for batch in self._todo if batch.at_s <= now_s]
        self._todo = self._todo[len(due) :]
        for database in {batch.database for batch in due}:
            self._put(database, [batch for batch in due if batch.database == database])
        return due

    def _put(self, database: str, batches: Iterable[Batch]) -> None:
        """Insert in one transaction, as a user would: a job must not be visible before those that depend on it."""
        with self._connections[database].cursor() as cursor:
            cursor.execute("BEGIN")
            for batch in batches:
                uuids = self._insert(batch)
                self.batches.update({(database, uuid): batch for uuid in uuids})
                self._last[database] = uuids
            cursor.execute("COMMIT")

    def is_only_dead(self, seen: Iterable[Counts]) -> bool:
        """Whether only the job whose Odoo worker was killed is left."""
        left = sum(row.waiting + row.running for row in seen)
        if not self.is_all_in() or left != 1:
            return False
        (job,) = (each for each, batch in self.batches.items() if batch.about == KILLED)
        return (*job, "started") in states(self._connections)

    def trickle(self, turn: int) -> None:
        """Insert a few more jobs, so that there is something to see and to pause."""
        database = DATABASES[turn % len(DATABASES)]
        connection = self._connections[database]
        jobs.insert_jobs(connection, 6, kwargs={"sleep": 0.3})
        jobs.insert_jobs(connection, 2, channel="root.slow", kwargs={"sleep": 0.8})
        if database == BOOKS:
            jobs.insert_jobs(connection, 3, channel=SEQUENTIAL, kwargs={"sleep": 0.2})

    def is_all_in(self) -> bool:
        return not self._todo

    def _insert(self, batch: Batch) -> list[str]:
        connection = self._connections[batch.database]
        if batch.dependent:
            parents = self._last[batch.database]
            return jobs.insert_dependent_jobs(connection, batch.count, parents, channel=batch.channel)
        return jobs.insert_jobs(
            connection,
            batch.count,
            channel=batch.channel,
            priority=batch.priority,
            eta_s=batch.eta_s,
            kwargs=batch.kwargs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Jobs of one channel of one database."""

    database: str
    channel: str
    waiting: int
    running: int
    done: int
    failed: int
    #: Time from when a job could run until it began; None while none has begun.
    median_wait_s: float | None
    longest_wait_s: float | None

    @property
    def total(self) -> int:
        return self.waiting + self.running + self.done + self.failed


#: Rows: the fields of Counts after `database`. A retried job waits from its new eta.
_COUNTS = """
SELECT channel,
       count(*) FILTER (WHERE state IN ('pending', 'wait_dependencies')),
       count(*) FILTER (WHERE state IN ('enqueued', 'started')),
       count(*) FILTER (WHERE state = 'done'),
       count(*) FILTER (WHERE state = 'failed'),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY wait_s),
       max(wait_s)
  FROM (SELECT channel, state,
               extract(epoch FROM date_started - greatest(date_created, eta))::float8 AS wait_s
          FROM queue_job) AS job
 GROUP BY channel
 ORDER BY channel
"""


def counts(connections: Mapping[str, extensions.connection]) -> list[Counts]:
    """The current state by database and channel."""
    found = []
    for database, connection in connections.items():
        with connection.cursor() as cursor:
            cursor.execute(_COUNTS)
            for channel, waiting, running, done, failed, median_s, longest_s in cursor:
                found.append(
                    Counts(
                        database=database,
                        channel=channel,
                        waiting=waiting,
                        running=running,
                        done=done,
                        failed=failed,
                        median_wait_s=median_s,
                        longest_wait_s=longest_s,
                    )
                )
    return found


def is_over(seen: Iterable[Counts]) -> bool:
    """Whether nothing waits or runs."""
    return not any(row.waiting or row.running for row in seen)


def states(connections: Mapping[str, extensions.connection]) -> Iterator[tuple[str, str, str]]:
    """Yield (database, uuid, state) of every job."""
    for database, connection in connections.items():
        with connection.cursor() as cursor:
            cursor.execute("SELECT uuid, state FROM queue_job")
            for uuid, state in cursor:
                yield database, uuid, state
