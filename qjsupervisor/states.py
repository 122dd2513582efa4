"""The fixed vocabularies that several modules share: states, modes, exit statuses.

Imports nothing of this package, decides nothing.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

#: sysexits.h: what `qjsupervisor` itself exits with.
EX_OK = 0
EX_SOFTWARE = 70
EX_CANTCREAT = 73
EX_CONFIG = 78

#: What a worker exits with, read by the master's restart policy.
EXIT_STOPPED = 0
#: A fault inside the worker (a bug): restart with backoff.
EXIT_FAULT = 70
#: The database is gone, or queue_job was removed from it: not restarted, the next scan decides.
EXIT_GONE = 69


#: In place of a channel among a database's pauses: its worker has no connection to it (`release`).
RELEASED = ""


class Mode(enum.Enum):
    """Whose channel tree is it: one for all databases, or one in each database (queue_job 18.0.4)."""

    #: `channels` is set.
    SERVER_WIDE = "server-wide"
    #: `max_capacity` is set, and `channels` is not.
    PER_DATABASE = "per-database"
    #: Neither is set. One job at once over all databases; a database whose queue_job has channel settings has a tree
    #: of its own below that, the others share the root.
    DEFAULT = "default"

    def has_own_tree(self, has_channel_settings: bool) -> bool:
        """Whether the channels of a database are those that are set up in it, if its queue_job has such settings."""
        return self is Mode.PER_DATABASE or (self is Mode.DEFAULT and has_channel_settings)


class Fairness(enum.Enum):
    """Who is next when several databases wait for one permit."""

    ROUND_ROBIN = "round-robin"
    PRIORITY = "priority"


class WorkerState(enum.Enum):
    """What the master knows of one worker; process.TRANSITIONS says which moves are allowed."""

    STARTING = "starting"
    STANDBY = "standby"
    READY = "ready"
    #: Alive and connected, but nothing may run: the reason is in `last_error`.
    BLOCKED = "blocked"
    BACKING_OFF = "backing off"
    STOPPING = "stopping"
    #: No process: the database cannot be served as it is; the next scan looks again.
    FAILED = "failed"


class Phase(enum.Enum):
    """Where a worker is with its database, by the word (a WorkerState) that it tells its master."""

    #: Not connected, or on the way to serve.
    APART = "starting"
    #: Another runner leads.
    STANDBY = "standby"
    #: Not to be served as it is.
    BLOCKED = "blocked"
    SERVING = "ready"


class JobState(str, enum.Enum):
    """`queue_job.state` as queue_job writes it."""

    WAIT_DEPENDENCIES = "wait_dependencies"
    PENDING = "pending"
    ENQUEUED = "enqueued"
    STARTED = "started"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Outcome(enum.IntEnum):
    """What became of a job that was dispatched; an index into the statistics of the shared table."""

    DONE = 0
    FAILED = 1
    #: Odoo put it back to `pending`, to be tried again.
    RETRIED = 2
    #: Odoo did not run it; we put it back.
    NOT_RUN = 3
    #: The request ended, and nobody can tell how the job did: its row says `started`, or is gone.
    LOST = 4
    CANCELLED = 5


class TargetState(enum.IntEnum):
    """Health of an Odoo or another server; stored as a word in the shared table."""

    UP = 0
    DOWN = 1
    #: Nothing was asked of it yet.
    UNKNOWN = 2


class ServerVerdict(enum.Enum):
    """What a probe changed of a server's health that all databases share."""

    NOTHING = 0
    WENT_DOWN = 1
    CAME_BACK = 2


class TargetHealth(NamedTuple):
    """One Odoo as one worker finds it, by what it answers to its own jobs."""

    url: str
    state: TargetState
    failures: int
    #: Monotonic; 0 unless it is down.
    retry_at_s: float
    reason: str
