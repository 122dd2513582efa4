"""A stand-in Odoo that costs as little as it can, so that what is measured is the job runner.

`python -m tests.benchmark.odoo`; PostgreSQL is found by PGHOST, PGPORT, PGUSER and PGPASSWORD. It takes a job
(`enqueued` to `started`, committed), lets it last as long as its kwargs say ({"sleep": seconds}), and ends it (`done`,
committed), any number at once. It has no lock rows, so that no job may last ten seconds: runners would take it for
dead. Once it listens it writes one line to standard output: its port.

/queue_job/runjob                       run a job, as Odoo does
/bench/begin?databases=A,B&sessions=N   drop what runs, forget everything; open N sessions with each of these databases
/bench/forget[?watch=D]                 count from 0 again; note when each job of the database D is asked for
/bench/insert?databases=A,B&count=N&channels=C,D&sleep=S
                                        N waiting jobs in each database, its channels in turn; as Odoo's workers do
/bench/counts                           Counts as JSON
/bench/watched                          {uuid: second in which it was asked for}

Seconds are those of time.monotonic(), which all processes of one machine share.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypedDict

import asyncpg  # type: ignore[import-untyped]

from qjsupervisor.testing.odoo_http import Exchange, ReceivedRequest

_BACKLOG = 4096
#: Sessions that are opened at once.
_CONNECTS = 4
_NOW = "clock_timestamp() AT TIME ZONE 'UTC'"

_TAKE = f"""
UPDATE queue_job SET state = 'started', date_started = {_NOW}
 WHERE uuid = $1 AND state = 'enqueued'
RETURNING id, (kwargs ->> 'sleep')::float8
"""
_FINISH = f"UPDATE queue_job SET state = 'done', date_done = {_NOW} WHERE id = $1"

#: Priorities differ, so that a backlog has an order of its own.
_INSERT = f"""
INSERT INTO queue_job (uuid, channel, state, priority, retry, max_retries, kwargs, args, name, model_name, method_name,
                       date_created)
SELECT gen_random_uuid(), ($2::text[])[1 + number % cardinality($2)], 'pending', 1 + number % 20, 0, 5,
       jsonb_build_object('sleep', $3::float8), '[]', 'Benchmark', 'queue.job', 'benchmark', {_NOW}
  FROM generate_series(1, $1::int) AS number
"""


class Counts(TypedDict):
    """What happened since `begin` or `forget`. A None: not yet."""

    done: int
    #: Asked for while it was not `enqueued`.
    refused: int
    #: Databases of which a job is done.
    served: int
    first_asked_s: float | None
    last_done_s: float | None
    #: When a job of one more database was done for the last time.
    last_served_s: float | None


class Database:
    """Some sessions with one database, lent to one job at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
        self._all: list[Any] = []

    async def open(self, sessions: int) -> None:
        for _ in range(sessions):
            session = await asyncpg.connect(database=self._name, timeout=30)
            self._all.append(session)
            self._idle.put_nowait(session)

    async def rows(self, statement: str, *arguments: object) -> list[Any]:
        """Run one statement, in a transaction of its own."""
        session = await self._idle.get()
        try:
            rows: list[Any] = await session.fetch(statement, *arguments)
        finally:
            self._idle.put_nowait(session)
        return rows

    def terminate(self) -> None:
        for session in self._all:
            session.terminate()


class Odoo:
    """Everything that lasts from one `begin` to the next, and the way there. One loop, no thread."""

    def __init__(self) -> None:
        #: The loop itself holds tasks weakly.
        self._runs: set[asyncio.Task[None]] = set()
        self._orders: set[asyncio.Task[None]] = set()
        self._databases: dict[str, Database] = {}
        self._forget(None)

    async def _begin(self, names: Sequence[str], sessions: int) -> None:
        for task in self._runs:
            task.cancel()
        for database in self._databases.values():
            database.terminate()
        self._databases = {name: Database(name) for name in names}
        self._forget(None)
        few = asyncio.Semaphore(_CONNECTS)

        async def open_one(database: Database) -> None:
            async with few:
                await database.open(sessions)

        await asyncio.gather(*(open_one(database) for database in self._databases.values()))

    def _forget(self, watch: str | None) -> None:
        self._watch = watch
        self._watched: dict[str, float] = {}
        self._served: set[str] = set()
        self._counts: Counts = {
            "done": 0,
            "refused": 0,
            "served": 0,
            "first_asked_s": None,
            "last_done_s": None,
            "last_served_s": None,
        }

    def exchange(self) -> Exchange:
        return Exchange(self._handle, None)

    def _handle(self, request: ReceivedRequest, exchange: Exchange) -> None:
        if request.path == "/queue_job/runjob":
            # Not the connection's: who hangs up stops no job.
            work: Coroutine[Any, Any, None] = self._run(request, exchange, time.monotonic())
            tasks = self._runs
        else:
            work, tasks = self._obey(request, exchange), self._orders
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _run(self, request: ReceivedRequest, exchange: Exchange, asked_s: float) -> None:
        name, uuid, counts = request.database()[0] or "", request.query["job_uuid"], self._counts
        if counts["first_asked_s"] is None:
            counts["first_asked_s"] = asked_s
        if name == self._watch:
            self._watched.setdefault(uuid, asked_s)
        try:
            database = self._databases[name]
            rows = await database.rows(_TAKE, uuid)
            for number, sleep in rows:
                if sleep:
                    await asyncio.sleep(sleep)
                await database.rows(_FINISH, number)
        except (KeyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            exchange.answer(500)
            return
        if rows:
            self._done(name)
        else:
            counts["refused"] += 1
        exchange.answer(200)

    def _done(self, name: str) -> None:
        counts = self._counts
        counts["done"] += 1
        counts["last_done_s"] = now_s = time.monotonic()
        if name not in self._served:
            self._served.add(name)
            counts["served"], counts["last_served_s"] = len(self._served), now_s

    async def _obey(self, request: ReceivedRequest, exchange: Exchange) -> None:
        answer: object = {}
        query = request.query
        if request.path == "/bench/begin":
            await self._begin(query["databases"].split(","), int(query["sessions"]))
        elif request.path == "/bench/forget":
            self._forget(query.get("watch"))
        elif request.path == "/bench/insert":
            await self._insert(query)
        elif request.path == "/bench/counts":
            answer = self._counts
        elif request.path == "/bench/watched":
            answer = self._watched
        else:
            exchange.answer(404)
            return
        exchange.answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    async def _insert(self, query: Mapping[str, str]) -> None:
        arguments = int(query["count"]), query["channels"].split(","), float(query["sleep"])
        names = query["databases"].split(",")
        await asyncio.gather(*(self._databases[name].rows(_INSERT, *arguments) for name in names))


async def serve() -> None:
    """Serve until SIGTERM, which ends it at once."""
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, os._exit, 0)
    server = await loop.create_server(Odoo().exchange, "127.0.0.1", 0, backlog=_BACKLOG)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
