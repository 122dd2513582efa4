"""A job claimed in the statement that reads it, before more is known of it than its uuid.

Where nothing waits, a job that is announced is most likely pending, due, and in the channel of those before it. So a
permit is taken for one that looks like that, under an id that no row has: the table, the other databases and the limits
decide about it as about any job. Then one statement claims the announced job if it is what was guessed, and reads it in
any case. That is one round trip less before an urgent job runs. A wrong guess keeps a permit for that long that nobody
was waiting for, so none is made where a start has to be counted (throttle) or its place in an order matters.
"""

from __future__ import annotations

from ..backlog.backlog import Backlog
from ..errors import DatabaseError
from ..job import Job, Pending
from ..odoo.dispatcher import Dispatcher
from ..postgres.database import Database
from ..states import TargetState
from ..table.slot import WorkerSlot
from .permits import Permits
from .unsendable import is_sendable

#: In place of the id of the job that is guessed at; rows begin with 1.
GUESS = -1
#: Nobody's job is behind one that may not exist.
_LAST = 1 << 62


class Guess:
    """What one worker expects the next announced job to be."""

    def __init__(self, database: Database, worker_slot: WorkerSlot, dispatcher: Dispatcher, permits: Permits) -> None:
        self._database = database
        self._worker_slot = worker_slot
        self._dispatcher = dispatcher
        self._permits = permits
        self._last: str | None = None
        #: The channel of the last two jobs that were started.
        self._usual: str | None = None

    def note_started(self, channel: str | None) -> None:
        """A job of this channel was started."""
        self._usual = channel if channel == self._last else None
        self._last = channel

    def claim(self, backlog: Backlog, uuid: str, now_s: float) -> tuple[list[Job], list[Job]] | None:
        """As Database.turn, of the jobs of one uuid; None: nothing was asked, a guess would not do. DatabaseError."""
        channel = self._usual
        if channel is None or not self._is_likely(backlog, channel, uuid) or not self._permit(backlog, channel, now_s):
            return None
        try:
            claimed, read = self._database.claim_announced(uuid, channel)
        except DatabaseError as error:
            if error.refused:
                backlog.forget(GUESS)
            if error.of_row:
                return None
            raise  # otherwise the row may be claimed, and the permit is kept until it is read
        if claimed:
            backlog.rename(GUESS, claimed[0].id)
        else:
            backlog.forget(GUESS)
        return claimed, read

    def _is_likely(self, backlog: Backlog, channel: str, uuid: str) -> bool:
        if not is_sendable(uuid) or any(t.breaker.state is not TargetState.UP for t in self._dispatcher.targets):
            return False
        return backlog.is_idle and backlog.is_plain(channel)

    def _permit(self, backlog: Backlog, channel: str, now_s: float) -> bool:
        """Take one, if it is there for the asking."""
        if not self._worker_slot.has_room(backlog.node_for(channel).shared):
            return False
        backlog.put(Pending((_LAST, _LAST, GUESS), channel, None))
        self._permits.exchange(backlog, now_s, start=True)
        if GUESS in backlog.taken:
            backlog.taken.remove(GUESS)
            return True
        backlog.forget(GUESS)
        return False
