"""The parts shared by a worker's modules: loop, database, dispatcher, reporting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from .. import logs
from ..config.environment import SERVER_PREFIX
from ..config.settings import WorkerSettings, connect_limit_s
from ..control import Pipe
from ..loop import Callback, Deadline, Loop, Timers
from ..odoo.dispatcher import Dispatcher
from ..postgres.database import Database
from ..postgres.waiter import Waiter
from ..table.slot import WorkerSlot
from .database_log import ForwardingLog
from .outage import Outage
from .reporting import Reporting
from .serving import Serving


class WorkerParts:
    """The parts of one worker that several of its modules use."""

    def __init__(
        self, settings: WorkerSettings, worker_slot: WorkerSlot, pipe: Pipe, log: FilteringBoundLogger | None = None
    ) -> None:
        self.settings = settings
        self.worker_slot = worker_slot
        self.log = log or logs.bound_logger(database=settings.database)
        #: For what many databases may have to say at once.
        self.database_log = ForwardingLog(pipe, self.log)
        self.loop = Loop()
        self._began_s = self.loop.now_s()
        #: A deadline has passed, so a turn is due.
        self.is_due = False
        self.database = Database(
            settings.database,
            settings.connect_kwargs,
            Waiter(lambda: worker_slot.heartbeat(time.monotonic_ns())),
            settings.session_mark,
            connect_limit_s(settings.connect_kwargs, settings.connect_timeout_s),
        )
        self.database.dead_after_restart_s = settings.dead_after_restart_s
        self.database.ageing_s = settings.rules.ageing_s
        *odoos, postgresql = worker_slot.attach_servers(
            [*(target.url for target in settings.targets), SERVER_PREFIX + settings.server]
        )
        self.dispatcher = Dispatcher(
            self.loop,
            settings.targets,
            settings.database,
            odoos,
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            wake=self.wake,
        )
        self.outage = Outage(postgresql, settings.server, worker_slot.slot, logs.get_logger())
        self.reporting = Reporting(worker_slot, pipe, self.dispatcher, self.database_log, self.deadline())
        #: None until the database has been read for the first time.
        self.serving: Serving | None = None

    def wake(self, _now_s: float) -> None:
        """Make the loop take a turn although no descriptor is ready."""
        self.is_due = True

    def deadline(self) -> Deadline:
        """A new deadline that wakes the loop for a turn."""
        return Deadline(self.loop, self.wake)

    def routine(self) -> Deadline:
        """A deadline for what has to be done at intervals: it rings with a heartbeat, somewhat early if need be."""
        return _Routine(self.loop, self.wake, self.with_beat_s)

    def with_beat_s(self, at_s: float) -> float:
        """The last heartbeat up to this moment; the moment itself if no heartbeat comes before."""
        if at_s == math.inf:
            return at_s
        every_s = self.settings.heartbeat_s
        beat_s = self._began_s + (at_s - self._began_s) // every_s * every_s
        return beat_s if beat_s > self.loop.now_s() else at_s


class _Routine(Deadline):
    """An idle worker wakes up once for all its routine work."""

    __slots__ = ("_with_beat_s",)

    def __init__(self, timers: Timers, callback: Callback, with_beat_s: Callable[[float], float]) -> None:
        super().__init__(timers, callback)
        self._with_beat_s = with_beat_s

    def set(self, at_s: float) -> None:
        """Ring at this moment at the latest."""
        super().set(self._with_beat_s(at_s))
