"""What an error of psycopg2's means, once for the worker, the scout and the commands.  Pure."""

from __future__ import annotations

import psycopg2

from ..errors import DatabaseError, DatabaseGone, DatabaseUnavailable, DatabaseUnfit

#: An administrator ended the session, or stopped the server.
ADMIN_SHUTDOWN = "57P01"
#: A lock that somebody else has was waited for as long as we may.
LOCK_NOT_AVAILABLE = "55P03"
#: Text of a row that the server cannot convert to our encoding: untranslatable_character, character_not_in_repertoire.
_UNDECODABLE = ("22P05", "22021")
#: A server may quote a whole row.
_LONGEST_MESSAGE = 2000


def translated(database: str, error: Exception, *, of_row: bool = False) -> DatabaseError:
    """Our error for one of psycopg2's, or for text that could not be decoded.

    `of_row`: the statement writes rows. Somebody's trigger may refuse one of them by any error there is.
    """
    if isinstance(error, UnicodeDecodeError):
        return _flagged(DatabaseUnfit(database, f"holds text that is not UTF-8: {error.reason}"), None, of_row)
    if isinstance(error, UnicodeEncodeError):
        return DatabaseUnfit(database, f"asked for {error.object!r}, which is not UTF-8")
    code = error.pgcode if isinstance(error, psycopg2.Error) else None
    return _flagged(_kind(database, code, message_of(error)), code, of_row and is_survived(error))


def is_survived(error: Exception) -> bool:
    """Whether the server refused a statement, and the connection is as good as before."""
    return isinstance(error, psycopg2.Error) and error.diag.severity_nonlocalized == "ERROR"


def _kind(database: str, code: str | None, message: str) -> DatabaseError:
    # Of a refused connection psycopg2 keeps no SQLSTATE: the server's words have to do.
    if code == "3D000" or (code is None and is_gone(database, message)):
        return DatabaseGone(database, f'database "{database}" does not exist')
    if code == "42P01":
        return DatabaseGone(database, f"queue_job is not installed: {message}")
    if code == "42501":
        return DatabaseUnfit(database, f"a privilege is missing: {message}")
    if code is not None and code[:2] in ("42", "22", "23"):
        return DatabaseUnfit(database, message)
    return DatabaseUnavailable(database, message)


def _flagged(found: DatabaseError, code: str | None, of_row: bool) -> DatabaseError:
    found.sqlstate = code
    found.refused = had_no_effect(code)
    found.of_row = of_row and code is not None
    return found


def is_gone(database: str, message: str) -> bool:
    """Whether a server that refuses a connection says that there is no such database. Another language: no."""
    return f'database "{database}" does not exist' in message


def is_undecodable(error: DatabaseError) -> bool:
    """Whether some row holds text that has no equivalent in our encoding."""
    return error.sqlstate in _UNDECODABLE


def had_no_effect(sqlstate: str | None) -> bool:
    """Whether a statement that ended with this error (None: no word of the server) has certainly changed nothing.

    A session that waits for its synchronous standby has committed already. What ends it then (57: shutdown, crash;
    08: the connection) tells nothing of the statement; a statement that is canceled then is reported as done.
    """
    if sqlstate is None or sqlstate == "40003":  # statement_completion_unknown
        return False
    return sqlstate == "57014" or sqlstate[:2] not in ("08", "57")  # query_canceled, by a timeout too


def message_of(error: Exception) -> str:
    """The words of an error on one line."""
    words = " ".join(str(error).split())[:_LONGEST_MESSAGE]
    return words or "connection lost"
