"""What happens when the database cannot be served. Jobs running in Odoo continue; everything else starts anew."""

from __future__ import annotations

import math

from ..backoff import GIVE_UP_S
from ..errors import DatabaseError, DatabaseGone, DatabaseUnavailable, DatabaseUnfit, ServerDown
from ..postgres.failures import LOCK_NOT_AVAILABLE, NO_PRIVILEGE
from ..states import EXIT_GONE, EXIT_STOPPED, Phase
from .comeback import Comeback
from .jobs import OVER_S
from .parts import WorkerParts
from .progress import Progress
from .reading import Reading
from .reporting import Loss

#: Interval for checking a database that cannot be served in its current state.
BLOCKED_S = 5.0
#: Interval for retrying a locked table.
LOCKED_S = 1.0


class Losing:
    """One worker while it does not serve."""

    def __init__(self, parts: WorkerParts, progress: Progress, comeback: Comeback, reading: Reading) -> None:
        self._parts = parts
        self._progress = progress
        self._comeback = comeback
        self._reading = reading
        #: Since when the database does not exist.
        self._gone_since_s = math.inf
        #: Not connected because the database is released to an administrator.
        self.is_released = False

    def lose(self, error: DatabaseError, now_s: float) -> None:
        """A statement or the connection failed."""
        parts, database, progress = self._parts, self._parts.database, self._progress
        self._reading.close()
        if parts.worker_slot.is_leased:
            parts.worker_slot.end_tenure()
        self._stop_reading(now_s)
        if isinstance(error, DatabaseGone) and not self._awaits_end(now_s):
            parts.database_log.warning("database_gone", reason=str(error))
            parts.reporting.tell({"is": "error", "reason": str(error)})
            progress.exit_code = EXIT_GONE
            return
        if error.sqlstate == LOCK_NOT_AVAILABLE and database.connected:
            self._wait_for_lock(error, now_s)
            return
        if error.sqlstate == NO_PRIVILEGE:
            error = self._what_is_missing(error)
        was = progress.phase
        server = "" if database.about is None else database.about.started
        database.close()
        if isinstance(error, DatabaseUnfit):
            progress.enter(Phase.BLOCKED, f"{error}; looked at again every {BLOCKED_S:g} s")
            progress.next_step.set(now_s + BLOCKED_S)
        elif isinstance(error, ServerDown):
            parts.outage.failed(error)
            progress.enter(Phase.DISCONNECTED, str(error), Loss.OF_SERVER)
            progress.next_step.set(parts.outage.next_try_s(now_s))
        else:
            parts.outage.lost()
            progress.enter(Phase.DISCONNECTED, str(error), Loss.OWN)
            led, stood_by = was is Phase.SERVING, was is Phase.STANDBY
            progress.next_step.set(self._comeback.lost(error, now_s, led=led, stood_by=stood_by, server=server))
            self._parts.reporting.tell({"is": "away", "for_s": self._comeback.away_s(now_s)})

    def arrive(self) -> None:
        """The database is served again."""
        self._gone_since_s = math.inf

    def _stop_reading(self, now_s: float) -> None:
        if self._parts.serving is not None:
            self._parts.serving.offline.lost(now_s)
            self._progress.note_unread(now_s)

    def _what_is_missing(self, error: DatabaseError) -> DatabaseError:
        """What the check of the database says of a missing privilege, with what to do: one reason, whoever met it."""
        try:
            self._parts.database.connect()  # the error ended the connection
            self._parts.database.check()
        except DatabaseUnfit as found:
            return found
        except DatabaseError:
            pass  # what cannot be checked stays as it was met
        return error

    def _wait_for_lock(self, error: DatabaseError, now_s: float) -> None:
        """A table is locked, perhaps by an upgrade: keep the connection and the leader lock, and wait."""
        try:
            holders = self._parts.database.lock_holders()
        except DatabaseError as lost:
            self.lose(lost, now_s)
            return
        what = "; ".join(holders) or str(error)
        reason = f"{what}; its running jobs keep their permits, which other databases may wait for"
        self._progress.enter(Phase.BLOCKED, reason)
        self._progress.next_step.set(now_s + LOCKED_S)

    def keep_away(self, now_s: float) -> None:
        """The database is released to an administrator: disconnect. Open requests continue and count."""
        if not self.is_released:
            self.is_released = True
            self._progress.next_step.clear()
            self._reading.close()
            self._stop_reading(now_s)
            self._parts.database.close()
            self._progress.enter(Phase.BLOCKED, "released by order: `qjsupervisor resume DATABASE` ends that")
        self.wait(now_s)

    def come_back(self) -> None:
        """The database is no longer released."""
        self.is_released = False
        self._progress.next_step.ring()

    def leave(self, now_s: float) -> None:
        """The database no longer exists: exit once its jobs in Odoo need not be counted any more."""
        if self._progress.phase is not Phase.DISCONNECTED:
            self.lose(DatabaseUnavailable(self._parts.database.name, "it does not exist any more"), now_s)
        self.wait(now_s)
        if self._awaits_end(now_s):
            self._progress.next_step.set(self._gone_since_s + OVER_S)
        else:
            self._progress.exit_code = EXIT_STOPPED

    def _awaits_end(self, now_s: float) -> bool:
        """Whether jobs of a dropped database still run in Odoo and must be counted."""
        self._gone_since_s = min(self._gone_since_s, now_s)
        return self._parts.dispatcher.open > 0 and now_s < self._gone_since_s + OVER_S

    def wait(self, now_s: float) -> None:
        """Open requests continue and count; permits only the database could confirm are given up after a while."""
        serving, progress = self._parts.serving, self._progress
        if serving is not None:
            self._parts.dispatcher.tick(now_s)
            serving.offline.settle_unread(now_s, gave_up=not progress.holds_unread)
        if progress.give_up.is_due:
            self._give_up(now_s)

    def _give_up(self, now_s: float) -> None:
        """Give up all permits except those of open requests."""
        serving, worker_slot = self._parts.serving, self._parts.worker_slot
        self._progress.note_read()
        if serving is not None:
            given_up = serving.offline.give_up(now_s)
            what = f"{given_up} permits were given up" if given_up else ""
        else:
            what = "the permits of its running jobs were given up" if worker_slot.holds_any else ""
            worker_slot.let_go()
        if what:
            reason = f"its database was not served for {GIVE_UP_S:g} s; jobs that still run there are not counted"
            self._parts.database_log.error("permits_given_up", reason=f"{what}: {reason}")
            self._progress.note_given_up(f"; {what}, as it was not served for {GIVE_UP_S:g} s")
