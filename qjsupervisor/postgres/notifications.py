"""Notifications that a worker's connection has received and not yet processed. Pure.

It reads no rows and knows no jobs: a payload is a uuid, a keyword of queue_job, or anything somebody made up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from psycopg2.extensions import Notify

#: How many notifications are kept; beyond that the table is read instead.
MAX_NOTIFIED = 5000


#: Where supervisors tell each other that they released a database; the payload has no meaning.
OWN_CHANNEL = "qjsupervisor"


class Notified:
    """Received notifications, without irrelevant and duplicate ones; psycopg2 appends to it."""

    def __init__(self) -> None:
        self._uuids: dict[str, None] = {}
        #: Whether a uuid is relevant to the worker; called once per notification.
        self.is_news: Callable[[str], bool] = lambda _uuid: True
        self.own_pid = 0
        #: There were too many to keep: read the table.
        self.overflowed = False
        #: Channel settings changed (queue_job 18.0.4).
        self.reload = False
        #: Our own keep-alive came back.
        self.heard_itself = False
        #: The former leader of this database released it.
        self.let_go = False

    def append(self, notify: Notify) -> None:
        """Called by psycopg2 for each notification it receives, whichever statement it arrives with."""
        if notify.pid == self.own_pid:
            self.heard_itself = True
        elif notify.channel == OWN_CHANNEL:
            self.let_go = True
        elif notify.payload == "reload":
            self.reload = True
        elif self.is_news(notify.payload):
            self.add(notify.payload)

    def add(self, uuid: str) -> None:
        """Queue the row of this job for reading."""
        if len(self._uuids) < MAX_NOTIFIED or uuid in self._uuids:
            self._uuids[uuid] = None
        else:
            self.overflowed = True

    def __len__(self) -> int:
        return len(self._uuids)

    def take(self, limit: int) -> list[str]:
        """Remove and return up to `limit` uuids, oldest first."""
        found = list(itertools.islice(self._uuids, limit))
        for uuid in found:
            del self._uuids[uuid]
        return found

    def forget(self) -> None:
        """Drop everything received so far, because the whole table is about to be read."""
        self._uuids.clear()
        self.overflowed = False

    def begin(self, own_pid: int) -> None:
        """Start over for a new session, whose server process is `own_pid`."""
        self.forget()
        self.own_pid = own_pid
        self.reload = self.heard_itself = self.let_go = False
