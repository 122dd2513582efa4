"""What a worker's connection heard by NOTIFY, until somebody takes it.  Pure.

It reads no row and knows no job: a payload is a uuid, a word of queue_job's, or whatever somebody made up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from psycopg2.extensions import Notify

#: Notifications remembered; past that the table is read instead.
MAX_NOTIFIED = 5000


#: Where supervisors tell each other that they let a database go; the payload means nothing.
OWN_CHANNEL = "qjsupervisor"


class Notified:
    """What NOTIFY said, without what is no news and without doubles; psycopg2 appends to it."""

    def __init__(self) -> None:
        self._uuids: dict[str, None] = {}
        #: Whether a uuid is news to whoever takes them; asked once for each notification.
        self.is_news: Callable[[str], bool] = lambda _uuid: True
        self.own_pid = 0
        #: More was said than is remembered: read the table.
        self.overflowed = False
        #: A channel's settings changed (queue_job 18.0.4).
        self.reload = False
        #: Our own sign of life came back.
        self.heard_itself = False
        #: Whoever led this database has let it go.
        self.let_go = False

    def append(self, notify: Notify) -> None:
        """Called by psycopg2 for each notification that it meets, in whatever statement."""
        if notify.pid == self.own_pid:
            self.heard_itself = True
        elif notify.channel == OWN_CHANNEL:
            self.let_go = True
        elif notify.payload == "reload":
            self.reload = True
        elif self.is_news(notify.payload):
            self.add(notify.payload)

    def add(self, uuid: str) -> None:
        """The row of this job is to be read, whoever says so."""
        if len(self._uuids) < MAX_NOTIFIED or uuid in self._uuids:
            self._uuids[uuid] = None
        else:
            self.overflowed = True

    def __len__(self) -> int:
        return len(self._uuids)

    def take(self, limit: int) -> list[str]:
        """Up to `limit` of what was said, oldest first."""
        found = list(itertools.islice(self._uuids, limit))
        for uuid in found:
            del self._uuids[uuid]
        return found

    def forget(self) -> None:
        """The table is about to be read: what was said so far is in it."""
        self._uuids.clear()
        self.overflowed = False

    def begin(self, own_pid: int) -> None:
        """Another session listens from now on, of this server process."""
        self.forget()
        self.own_pid = own_pid
        self.reload = self.heard_itself = self.let_go = False
