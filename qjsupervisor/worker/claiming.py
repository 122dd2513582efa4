"""The statement of a turn, also where the server does not let one of the jobs be claimed.

A trigger or a constraint of somebody's can refuse a row, and with it the whole statement. Then each job is claimed
alone, so that one holds up no other. What becomes of those that were refused is for serving.py to say.
"""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from ..errors import DatabaseError
from ..job import Job
from ..postgres.database import Database


class Claims:
    """The claims of one worker."""

    def __init__(self, database: Database, log: FilteringBoundLogger) -> None:
        self._database = database
        self._log = log
        #: Ids of jobs that the server did not let us claim in the last turn; their rows are among those read.
        self.refused: set[int] = set()

    def turn(self, claims: dict[int, int], uuids: list[str]) -> tuple[list[Job], list[Job]]:
        """As Database.turn; raises DatabaseError for what is not the fault of a row."""
        self.refused.clear()
        try:
            return self._database.turn(claims, uuids)
        except DatabaseError as error:
            if not error.of_row:
                raise
        claimed, read = self._database.turn({}, uuids)
        for job_id, former in claims.items():
            got, found = self._claim(job_id, former)
            claimed += got
            read += found
        return claimed, read

    def _claim(self, job_id: int, former: int) -> tuple[list[Job], list[Job]]:
        try:
            return self._database.turn({job_id: former}, [])
        except DatabaseError as error:
            if not error.of_row:
                raise
            self.refused.add(job_id)
            self._log.warning("job_refused", job_id=job_id, reason=f"the database does not let it start: {error}")
            return [], self._database.read_ids([job_id])
