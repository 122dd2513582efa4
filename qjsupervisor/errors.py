"""Every error that this package raises on purpose.

    QJSupervisorError
    ├─ ConfigError            a setting is wrong: exit 78, nothing is respawned
    ├─ AlreadyRunning         another supervisor owns the pidfile or the control socket: exit 73
    ├─ NoRoom                 the system is out of disk, descriptors or the like: exit 70, a restart may succeed
    ├─ ProtocolError          a peer of the control pipe or socket sent nonsense
    ├─ SemaphoreError         the shared table is full, or is not what it should be
    └─ DatabaseError          raised "from" psycopg2.Error
       ├─ DatabaseUnavailable try again after a pause
       ├─ DatabaseGone        it does not exist any more, or queue_job is not installed in it
       └─ DatabaseUnfit       it cannot be served as it is (privilege, trigger, 'to upgrade')

A message is for an operator: what is wrong, where, what to do.
"""

from __future__ import annotations

import errno

from .states import EX_CANTCREAT, EX_CONFIG, EX_SOFTWARE

#: Of a system that is short of something; the configuration is not to blame, and a later try may succeed.
_SHORT_OF = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EIO})


class QJSupervisorError(Exception):
    """Base of all; `exit_status` is what the command exits with when nobody handles it."""

    exit_status = EX_SOFTWARE


class ConfigError(QJSupervisorError):
    """A setting is missing, unknown or out of range; `option` names it."""

    exit_status = EX_CONFIG

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


class AlreadyRunning(QJSupervisorError):
    """Another supervisor runs; `pid` is its process id, or None where it cannot be told."""

    exit_status = EX_CANTCREAT

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class NoRoom(QJSupervisorError):
    """The system is short of disk space, descriptors or memory."""


def unusable_path(option: str, path: str, what: str, error: OSError) -> QJSupervisorError:
    """For a file or socket that cannot be made: ConfigError, or NoRoom where another path would not help."""
    message = f"{option}: {path} {what}: {error.strerror or error}"
    return NoRoom(message) if error.errno in _SHORT_OF else ConfigError(option, message)


class ProtocolError(QJSupervisorError):
    """A frame is no JSON object, too long, or names no known order."""


class SemaphoreError(QJSupervisorError):
    """The shared table has no room left, or the lock reports what cannot be."""


class DatabaseError(QJSupervisorError):
    """Something about one database; `database` is its name."""

    def __init__(self, database: str, message: str) -> None:
        super().__init__(message)
        self.database = database
        #: SQLSTATE of the server's word, if it had one.
        self.sqlstate: str | None = None
        #: The server itself refused the statement, which so had no effect; else nobody knows.
        self.refused = False
        #: It did so for what is in some row (somebody's trigger, a constraint); the connection is as good as before.
        self.of_row = False


class DatabaseUnavailable(DatabaseError):
    """Not reachable now (down, restarting, too many connections, silent): try again after a pause."""


class DatabaseGone(DatabaseError):
    """It does not exist any more, or queue_job is not installed in it: its worker ends."""


class DatabaseUnfit(DatabaseError):
    """Reachable, but its jobs may not run as it is; look again later."""
