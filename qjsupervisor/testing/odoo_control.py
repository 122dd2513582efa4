"""The stand-in Odoo's control port, reachable while the port for jobs refuses or is full.

/_standin/stats                             odoo_stats.Stats as JSON
/_standin/reset                             forget what is over
/_standin/mode?database=D&mode=M&seconds=S  treat D's requests that way from now on; `*`: all databases
/_standin/kill_worker[?uuid=U]              kill the worker that runs U, or any busy one
/_standin/forget[?database=D]               close idle sessions, so that D can be renamed
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping

from .odoo_http import Application, Exchange, OdooMode, ReceivedRequest
from .odoo_jobs import JobRunner
from .odoo_sessions import Sessions
from .odoo_stats import OdooStatistics

Answer = Mapping[str, object]


class Control:
    """Answers in JSON; 400 with {"error": ...} for a bad request."""

    def __init__(
        self,
        application: Application,
        jobs: JobRunner,
        sessions: Sessions,
        statistics: OdooStatistics,
        modes_changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._application = application
        self._jobs = jobs
        self._sessions = sessions
        self._statistics = statistics
        self._modes_changed = modes_changed
        self._tasks: set[asyncio.Task[None]] = set()
        self._actions = {
            "/_standin/stats": self._stats,
            "/_standin/reset": self._reset,
            "/_standin/mode": self._mode,
            "/_standin/kill_worker": self._kill_worker,
            "/_standin/forget": self._forget,
        }

    def exchange(self) -> Exchange:
        return Exchange(self._handle, None)

    def _handle(self, request: ReceivedRequest, exchange: Exchange) -> None:
        task = asyncio.ensure_future(self._answer(request, exchange))
        self._tasks.add(task)  # the loop holds only weak references to tasks
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: ReceivedRequest, exchange: Exchange) -> None:
        status = 200
        try:
            answer = await self._actions[request.path](request.query)
        except (KeyError, ValueError, OSError) as error:
            status, answer = 400, {"error": f"{request.path}: {error}"}
        exchange.answer(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    async def _stats(self, _query: Mapping[str, str]) -> Answer:
        return self._statistics.read()

    async def _reset(self, _query: Mapping[str, str]) -> Answer:
        self._statistics.reset()
        return {}

    async def _mode(self, query: Mapping[str, str]) -> Answer:
        self._application.set_mode(query["database"], OdooMode(query["mode"]), float(query.get("seconds", 1)))
        await self._modes_changed()
        return {}

    async def _kill_worker(self, query: Mapping[str, str]) -> Answer:
        return {"killed": self._jobs.kill_one(query.get("uuid"))}

    async def _forget(self, query: Mapping[str, str]) -> Answer:
        self._sessions.forget(query.get("database"))
        return {}
