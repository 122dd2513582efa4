"""The parts shared by a worker's modules: loop, database, dispatcher, reporting."""

from __future__ import annotations

import time

from structlog.typing import FilteringBoundLogger

from .. import logs
from ..config.environment import SERVER_PREFIX
from ..config.settings import WorkerSettings, connect_limit_s
from ..control import Pipe
from ..loop import Deadline, Loop
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
