"""The statements that write rows: claims, give-backs and revivals, and their handling of refused rows.

A trigger or constraint can refuse a row, with any error, and so fail the whole statement. This says nothing about the
database: the rows are then tried one by one, so that one row cannot block the others. The caller decides what happens
to refused rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from ..backoff import Backoff
from ..errors import DatabaseError
from ..job import Job
from ..loop import Deadline
from ..postgres.database import Database
from ..postgres.failures import LOCK_NOT_AVAILABLE

#: Time limit for trying rows one by one, since a refusal may be slow. The rest is tried later.
ONE_BY_ONE_S = 2.0

#: With this many jobs deferred and further refusals, claiming pauses.
MANY_DEFERRED = 1000

T = TypeVar("T")
#: Ids of the jobs that the server refused to write.
Refused = Collection[int]
_NONE: Refused = ()


class Claims:
    """All writes of one worker."""

    def __init__(self, database: Database, log: FilteringBoundLogger, pause: Deadline) -> None:
        """`pause`: deadline that ends a pause in claiming after too many refusals."""
        self.pause = pause
        self._pauses = Backoff(first_s=1, limit_s=60)
        self._was_paused = False
        self._database = database
        self._log = log

    def turn(
        self, claims: dict[int, int], uuids: list[str], unseen_in: str | None = None
    ) -> tuple[list[Job], list[Job], Refused]:
        """As Database.turn, and what was refused; raises DatabaseError for errors that are not a row's fault.

        An unseen job that the server refuses is read instead, and refused again by its id.
        """
        try:
            claimed, read = self._database.turn(claims, uuids, unseen_in)
            if self._was_paused and claimed:
                self._was_paused = False
                self._pauses.reset()
            return claimed, read, _NONE
        except DatabaseError as error:
            # A locked table is reported without waiting for the lock, because the permits must not wait with us.
            if not error.of_row or (error.sqlstate == LOCK_NOT_AVAILABLE and self._database.lock_holders()):
                raise
        # If this fails too, no row is at fault.
        read = self._database.turn({}, uuids)[1] + self._database.read_ids(claims)
        answers, refused = self._one_by_one(claims, lambda i: self._database.turn({i: claims[i]}, []), "start")
        claimed = [job for got, _read in answers for job in got]
        ids = {job.id for job in claimed}
        return claimed, [job for job in {job.id: job for job in read}.values() if job.id not in ids], refused

    def note_refusals(self, deferred: int, now_s: float) -> None:
        """Rows were refused and none was claimed; `deferred`: number of deferred jobs.

        A database that refuses many rows, e.g. because its disk is full, is left alone for a while.
        """
        if deferred >= MANY_DEFERRED:
            self._was_paused = True
            self.pause.set(now_s + self._pauses.next_s())

    def give_back(self, ids: list[int]) -> tuple[list[int], Refused]:
        """As Database.give_back, and what was refused."""
        try:
            return self._database.give_back(ids), _NONE
        except DatabaseError as error:
            if not error.of_row:
                raise
        self._database.read_ids(ids)
        given, refused = self._one_by_one(ids, lambda i: self._database.give_back([i]), "be given back")
        return [i for one in given for i in one], refused

    def revive(self, dead: Mapping[int, str], grace_s: float) -> tuple[list[Job], Refused]:
        """As Database.revive, and what was refused."""
        try:
            return self._database.revive(dead, grace_s), _NONE
        except DatabaseError as error:
            if not error.of_row:
                raise
        self._database.read_ids(dead)

        def revive(job_id: int) -> list[Job]:
            return self._database.revive({job_id: dead[job_id]}, grace_s)

        revived, refused = self._one_by_one(dead, revive, "be put back")
        return [job for jobs in revived for job in jobs], refused

    def _one_by_one(self, ids: Iterable[int], write: Callable[[int], T], what: str) -> tuple[list[T], Refused]:
        """Call `write` for each row; returns the results, and the ids of refused rows."""
        until_s = time.monotonic() + ONE_BY_ONE_S
        written, refused = [], set()
        for job_id in ids:
            try:
                written.append(write(job_id))
            except DatabaseError as error:
                if not error.of_row:
                    raise
                refused.add(job_id)
                reason = f"the database does not let it {what}: {error}"
                self._log.warning("job_refused", job_id=job_id, reason=reason)
            if time.monotonic() >= until_s:
                break
        return written, refused
