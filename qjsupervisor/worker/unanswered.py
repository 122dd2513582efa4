"""Jobs that are over while their requests are open: an Odoo that hangs after its commit would hold their permits."""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from ..odoo.dispatcher import Dispatcher
from ..postgres.database import Database
from .jobs import OVER_S, Jobs


class Unanswered:
    """The unanswered requests of one worker; `Jobs.look` says when to check."""

    def __init__(self, database: Database, dispatcher: Dispatcher, jobs: Jobs, log: FilteringBoundLogger) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._jobs = jobs
        self._log = log

    def look(self, now_s: float) -> None:
        """Have the rows of possibly finished jobs read, and drop the requests of those finished for too long."""
        too_long, perhaps = self._jobs.over_unanswered(now_s)
        for record in perhaps:
            self._database.notified.add(record.uuid)
        for record in too_long:
            reason = f"its row was over for {OVER_S:g} s, and no answer came"
            self._log.warning("request_let_go", job_uuid=record.uuid, channel=record.channel, reason=reason)
            self._dispatcher.let_go(record.uuid, reason, is_over=True)
