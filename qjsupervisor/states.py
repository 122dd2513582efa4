"""Vocabularies that several modules share: states, modes, exit statuses.

It imports nothing from this package and decides nothing.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

#: sysexits.h: what `qjsupervisor` itself exits with.
EX_OK = 0
EX_SOFTWARE = 70
EX_CANTCREAT = 73
EX_CONFIG = 78

#: Exit codes of a worker, for the master's restart policy.
EXIT_STOPPED = 0
#: A fault inside the worker (a bug): restart with backoff.
EXIT_FAULT = 70
#: The database is gone, or queue_job was removed from it: no restart; the next scan decides.
EXIT_GONE = 69


#: Stands for a channel among a database's pauses: the database is released, so its worker has no connection to it.
RELEASED = ""


class Mode(enum.Enum):
    """Where channel trees come from: one for all databases, or one in each database (queue_job 18.0.4)."""

    #: `channels` is set.
    SERVER_WIDE = "server-wide"
    #: `max_capacity` is set, and `channels` is not.
    PER_DATABASE = "per-database"
    #: Neither is set. One job at a time over all databases. A database whose queue_job has channel settings has its own
    #: tree below that; the others share the root.
    DEFAULT = "default"

    def has_own_tree(self, has_channel_settings: bool) -> bool:
        """Whether a database uses the channels set up in it, given whether its queue_job has such settings."""
        return self is Mode.PER_DATABASE or (self is Mode.DEFAULT and has_channel_settings)


class Fairness(enum.Enum):
    """Which database is next when several wait for one permit."""

    ROUND_ROBIN = "round-robin"
    PRIORITY = "priority"


class WorkerState(enum.Enum):
    """The master's state of one worker; see master.worker_process.TRANSITIONS."""

    STARTING = "starting"
    STANDBY = "standby"
    READY = "ready"
    #: Alive and connected, but nothing may run; the reason is in `last_error`.
    BLOCKED = "blocked"
    BACKING_OFF = "backing off"
    STOPPING = "stopping"
    #: No process, because the database cannot be served as it is. The next scan checks again.
    FAILED = "failed"


class Wakefulness(enum.Enum):
    """How a database is attended to; the `phase` of the status."""

    #: By a worker.
    AWAKE = "awake"
    #: By the porter, which holds its leader lock and hears its notifications.
    DOZING = "dozing"
    #: By the porter, without a connection.
    ASLEEP = "asleep"


#: What has no worker, as the status has it.
RESTING = (Wakefulness.DOZING.value, Wakefulness.ASLEEP.value)


class Phase(enum.Enum):
    """Where a worker stands with its database. The values are the WorkerState that it reports to the master."""

    #: Not connected, or not yet serving.
    DISCONNECTED = "starting"
    #: Another runner leads.
    STANDBY = "standby"
    #: The database cannot be served as it is.
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


class JobOutcome(enum.IntEnum):
    """What became of a dispatched job; an index into the statistics of the shared table."""

    DONE = 0
    FAILED = 1
    #: Odoo set it back to `pending`, to be retried.
    RETRIED = 2
    #: Odoo did not run it; we put it back.
    NOT_RUN = 3
    #: The request ended without an outcome: the row still says `started`, or is gone.
    LOST = 4
    CANCELLED = 5


class TargetState(enum.IntEnum):
    """Health of an Odoo or a PostgreSQL server; stored as a word in the shared table."""

    UP = 0
    DOWN = 1
    #: Not asked yet.
    UNKNOWN = 2


class ServerVerdict(enum.Enum):
    """How a probe changed a server's health, which all databases share."""

    NOTHING = 0
    WENT_DOWN = 1
    CAME_BACK = 2


class StoppedChannel(NamedTuple):
    """A sequential channel of one database in which a job failed."""

    channel: str
    #: Of the first such job; '' where that is not known.
    uuid: str
    failed: int
    #: It stops the jobs of all databases in this channel.
    shared: bool


class TargetHealth(NamedTuple):
    """One Odoo's health as one worker sees it, from the answers to its own requests."""

    url: str
    state: TargetState
    failures: int
    #: Monotonic; 0 unless it is down.
    retry_at_s: float
    reason: str
