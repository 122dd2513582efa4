"""The warm-up: a worker's life, in the master, before the first fork: no database, no Odoo, no socket to anywhere.

What a process does for the first time costs it memory of its own: modules that are imported late, caches that fill,
bytecode that the interpreter rewrites as it gets warm. Done once before the fork, all of that is in pages that workers
share; done in each of three hundred workers, it is there three hundred times (measured: see README, Sizing).

It must not change anything that the real workers see, and its failure is a failure of the program.
"""

from __future__ import annotations

import itertools
import operator
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg2.extensions import adapt
from structlog.typing import FilteringBoundLogger

from .. import logs
from ..config.settings import Config
from ..job import Job, job_of
from ..loop import Deadline, Loop
from ..odoo.dispatcher import Dispatcher, Ended
from ..odoo.request import End, Request, RequestOutcome
from ..postgres.database import Database
from ..postgres.first_connection import connect_once
from ..postgres.waiter import Waiter
from ..states import JobState
from ..table.semaphore import SemaphoreTable
from ..table.slot import WorkerSlot
from .reading import sort_out
from .serving import Serving
from .trees import shared_tree
from .warmup_start import STARTS, run_starts

#: Jobs in the play: each kind as often as the interpreter wants to see code before it settles on a form of it.
JOBS = 24
_NAME = "warmup"
_UUID_OF = operator.attrgetter("uuid")
_PENDING, _ENQUEUED, _DONE = JobState.PENDING.value, JobState.ENQUEUED.value, JobState.DONE.value


class FakeDatabase(Database):
    """A database that says what the play needs: every job is new when it is spoken of, and done when it was sent."""

    def __init__(self) -> None:
        super().__init__(_NAME, {}, Waiter(lambda: None))
        self.sent: list[Job] = []

    def turn(
        self, claim: Mapping[int, int], uuids: Sequence[str], unseen_in: str | None = None
    ) -> tuple[list[Job], list[Job]]:
        adapt(list(claim)).getquoted()
        adapt(list(map(str.encode, uuids))).getquoted()
        claimed = [self._job(number, _ENQUEUED) for number in (claim if unseen_in is None else map(int, uuids))]
        over = set(map(_UUID_OF, self.sent))
        read = [self._job(int(u), _DONE if u in over else _PENDING) for u in uuids if unseen_in is None]
        self.sent = claimed
        return claimed, read

    def _job(self, number: int, state: str) -> Job:
        return job_of((number, str(number), "root", state, 10, 1.0e9 + number, None))


class FakeDispatcher(Dispatcher):
    """A dispatcher whose every request is answered at once, and that sends none."""

    def send(self, uuid: str) -> None:
        target = self.targets[0]
        Request(target.payload(uuid), [], target.host, target.context)
        self.ended.append(Ended(uuid, target, RequestOutcome(End.ANSWERED, 200, "HTTP 200"), 0.001))


def warm_up(config: Config) -> None:
    """All that a worker would do for the first time; takes some tens of milliseconds."""
    connect_once()
    play(config, STARTS, JOBS)


def play(config: Config, starts: int, jobs: int) -> None:
    """Start and stop so many workers, and run so many jobs."""
    with _worker_slot(config) as worker_slot:
        run_starts(config.worker_settings(_NAME), worker_slot, logs.silent_logger(database=_NAME), starts)
    run_jobs(config, jobs)


@contextmanager
def _worker_slot(config: Config) -> Iterator[WorkerSlot]:
    """A worker's place in a table that nobody else has."""
    table = SemaphoreTable(config.channels, slots=2, fairness=config.fairness)
    table.assign(0, _NAME, 1)
    table.open_start_barrier()
    worker_slot = table.worker_slot(0)
    worker_slot.attach()
    yield worker_slot
    for wakeup in table.core.wakeups:
        os.close(wakeup)


def run_jobs(config: Config, jobs: int | None = None) -> None:
    """Run `jobs` jobs, else JOBS; takes some ten milliseconds."""
    settings = config.worker_settings(_NAME)
    log: FilteringBoundLogger = logs.silent_logger(database=_NAME)
    with _worker_slot(config) as worker_slot, Loop() as loop:
        database = FakeDatabase()
        servers = worker_slot.attach_servers([target.url for target in settings.targets])
        dispatcher = FakeDispatcher(loop, settings.targets, _NAME, servers, connect_timeout_s=1, read_timeout_s=None)
        tree = shared_tree(worker_slot, window=settings.window)
        serving = Serving(
            database, worker_slot, tree, dispatcher, log, log, lambda: Deadline(loop, lambda _now_s: None)
        )
        for number, together in enumerate(_notifications(JOBS if jobs is None else jobs)):
            for notify in together:
                database.notified.append(notify)
            sort_out([("due", number, str(number), "root", "pending", 10, 1.0, None)], 10)
            while serving.turn(time.monotonic(), start=True):
                pass
        dispatcher.close()


class _Notify:
    """Shaped like psycopg2's."""

    def __init__(self, payload: str) -> None:
        self.channel = "queue_job"
        self.payload = payload
        self.pid = -1


def _notifications(jobs: int) -> Iterator[list[Any]]:
    """Of a job alone, and of two together, in turns."""
    notifies = (_Notify(str(number)) for number in range(1, jobs + 1))
    for first in notifies:
        yield [first]
        yield list(itertools.islice(notifies, 2))
