"""What a worker's connection heard by NOTIFY, until somebody takes it.  Pure.

It reads no row and knows no job: a payload is a uuid, a word of queue_job's, or whatever somebody made up.
"""

from __future__ import annotations

import itertools

from psycopg2.extensions import Notify

#: Notifications remembered; past that the table is read instead.
MAX_NOTIFIED = 5000


class Notified:
    """What NOTIFY said, without what we caused ourselves and without doubles; psycopg2 appends to it."""

    def __init__(self) -> None:
        #: How often each was said.
        self._uuids: dict[str, int] = {}
        self.own_pid = 0
        #: More was said than is remembered: read the table.
        self.overflowed = False
        #: A channel's settings changed (queue_job 18.0.4).
        self.reload = False
        #: Our own sign of life came back.
        self.heard_itself = False

    def append(self, notify: Notify) -> None:
        """Called by psycopg2 for each notification that it meets, in whatever statement."""
        if notify.pid == self.own_pid:
            self.heard_itself = True
        elif notify.payload == "reload":
            self.reload = True
        elif notify.payload in self._uuids:
            self._uuids[notify.payload] += 1
        elif len(self._uuids) < MAX_NOTIFIED:
            self._uuids[notify.payload] = 1
        else:
            self.overflowed = True

    def __len__(self) -> int:
        return len(self._uuids)

    def take(self, limit: int) -> dict[str, int]:
        """Up to `limit` of what was said, oldest first, and how often."""
        if len(self._uuids) <= limit:
            found, self._uuids = self._uuids, {}
            return found
        found = dict(itertools.islice(self._uuids.items(), limit))
        for uuid in found:
            del self._uuids[uuid]
        return found

    def forget(self) -> None:
        """The table is about to be read: what was said so far is in it."""
        self._uuids.clear()
        self.overflowed = False
