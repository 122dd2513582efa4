"""Every error that this package raises on purpose.

    QJSupervisorError
    ├─ ConfigError            a setting is wrong: exit 78, nothing is respawned
    ├─ AlreadyRunning         another supervisor owns the pidfile or the control socket: exit 73
    ├─ NoRoom                 the system is out of disk, descriptors or the like: exit 70, a restart may succeed
    ├─ ProtocolError          a peer of the control pipe or socket sent something invalid
    ├─ SemaphoreError         the shared table is full or corrupt
    └─ DatabaseError          raised "from" psycopg2.Error
       ├─ DatabaseUnavailable try again after a pause
       │  └─ ServerDown       so it is with all databases of that PostgreSQL
       ├─ DatabaseGone        it no longer exists, or queue_job is not installed in it
       └─ DatabaseUnfit       it cannot be served as it is (privilege, trigger, 'to upgrade')

A message is for an operator: what is wrong, where, what to do.
"""

from __future__ import annotations

import errno

from .states import EX_CANTCREAT, EX_CONFIG, EX_SOFTWARE

#: The system is short of something. The configuration is not to blame, and a later attempt may succeed.
_SHORT_OF = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EIO})


class QJSupervisorError(Exception):
    """Base of all; `exit_status` is the command's exit status if nothing handles the error."""

    exit_status = EX_SOFTWARE


class ConfigError(QJSupervisorError):
    """A setting is missing, unknown or out of range; `option` names it."""

    exit_status = EX_CONFIG

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


class AlreadyRunning(QJSupervisorError):
    """Another supervisor is running; `pid` is its process id, or None if unknown."""

    exit_status = EX_CANTCREAT

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class NoRoom(QJSupervisorError):
    """The system is short of disk space, descriptors or memory."""


def unusable_path(option: str, path: str, what: str, error: OSError) -> QJSupervisorError:
    """The error for a file or socket that cannot be created: ConfigError, or NoRoom if another path would not help."""
    message = f"{option}: {path} {what}: {error.strerror or error}"
    return NoRoom(message) if error.errno in _SHORT_OF else ConfigError(option, message)


class ProtocolError(QJSupervisorError):
    """A frame is not a JSON object, is too long, or names an unknown order."""


class SemaphoreError(QJSupervisorError):
    """The shared table has no room left, or its lock reports an impossible state."""


class DatabaseError(QJSupervisorError):
    """Something about one database; `database` is its name."""

    def __init__(self, database: str, message: str) -> None:
        super().__init__(message)
        self.database = database
        #: SQLSTATE of the server's error, if there was one.
        self.sqlstate: str | None = None
        #: Whether the server refused the statement, so that it had no effect. Otherwise its effect is unknown.
        self.refused = False
        #: Whether it was refused because of a row (a trigger, a constraint). The connection is still good.
        self.of_row = False

    def named(self, message: str) -> DatabaseError:
        """The same with another message."""
        found = type(self).__new__(type(self))
        found.__dict__.update(self.__dict__)
        found.args = (message,)
        return found


class DatabaseUnavailable(DatabaseError):
    """Not reachable now (down, restarting, too many connections, silent): try again after a pause."""


class ServerDown(DatabaseUnavailable):
    """PostgreSQL itself cannot be reached, or takes no connections now. `server`: 'host:port'; `reason`: why."""

    def __init__(self, database: str, server: str, reason: str) -> None:
        super().__init__(database, f"PostgreSQL at {server} cannot be reached: {reason}")
        self.server = server
        self.reason = reason


class DatabaseGone(DatabaseError):
    """It no longer exists, or queue_job is not installed in it: its worker exits."""


class DatabaseUnfit(DatabaseError):
    """Reachable, but its jobs cannot run as it is; check again later."""
