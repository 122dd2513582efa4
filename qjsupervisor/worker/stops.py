"""Reports, for the status, which failed job stops which sequential channel of this database, when that changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..backlog.backlog import Backlog
from ..postgres.database import Database

#: Most channels reported.
MOST = 20


class Stops:
    """The stopped channels last reported by one worker."""

    def __init__(self, database: Database, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._database = database
        self._tell = tell
        #: Job id -> uuid of failed jobs that stop a channel.
        self._uuids: dict[int, str] = {}
        self._told: list[list[object]] = []

    def look(self, backlog: Backlog) -> None:
        """Report stopped channels if a failed job came or went. Raises DatabaseError."""
        if not backlog.stops_changed:
            return
        found = backlog.stops()[:MOST]
        unknown = [stop.job_id for stop in found if stop.job_id is not None and stop.job_id not in self._uuids]
        if unknown:
            self._uuids.update({job.id: job.uuid for job in self._database.read_ids(unknown)})
        backlog.stops_changed = False
        wanted = {stop.job_id for stop in found}
        self._uuids = {job_id: uuid for job_id, uuid in self._uuids.items() if job_id in wanted}
        told: list[list[object]] = [
            [stop.channel, self._uuids.get(stop.job_id or 0, ""), stop.failed, stop.shared] for stop in found
        ]
        if told != self._told:
            self._told = told
            self._tell({"is": "stopped", "channels": told})
