"""What a psycopg2 error means, for the worker, the scout and the commands alike. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

import psycopg2

from ..errors import DatabaseError, DatabaseGone, DatabaseUnavailable, DatabaseUnfit

#: An administrator ended the session, or stopped the server.
ADMIN_SHUTDOWN = "57P01"
#: Another session held a lock for longer than we may wait.
LOCK_NOT_AVAILABLE = "55P03"
#: Our role may not do this.
NO_PRIVILEGE = "42501"
#: The server cannot convert a row's text to our encoding: untranslatable_character, character_not_in_repertoire.
_UNDECODABLE = ("22P05", "22021")
#: libpq's advice where an address refused, or cannot be reached.
_NOT_REACHED = "Is the server running"
#: What besides makes a server unfit for any connection.
_OF_SERVER = ("could not translate host name", "timeout expired", "the database system is ")
#: What libpq begins with, and what has its place in ours.
_PLACE = re.compile(r"^(?:connection to server .*? failed|could not connect to server): ")
#: In libpq's words on a failed connection: the server itself refused it; in whatever language, two blanks follow.
_SERVERS_WORD = re.compile(r"^connection to server .*? failed: [^\s:]+:  ", re.MULTILINE)
#: A server may quote a whole row.
_LONGEST_MESSAGE = 2000


def translated(database: str, error: Exception, *, of_row: bool = False) -> DatabaseError:
    """The DatabaseError for a psycopg2 error, or for text that could not be decoded.

    `of_row`: the statement writes rows, and a trigger may refuse one of them with any error whatsoever.
    """
    if isinstance(error, UnicodeDecodeError):
        return _flagged(DatabaseUnfit(database, f"holds text that is not UTF-8: {error.reason}"), None, of_row)
    if isinstance(error, UnicodeEncodeError):
        return DatabaseUnfit(database, f"asked for {error.object!r}, which is not UTF-8")
    code = error.pgcode if isinstance(error, psycopg2.Error) else None
    found = _flagged(_kind(database, code, message_of(error)), code, of_row and is_survived(error))
    found.refused = found.refused or bool(_SERVERS_WORD.search(str(error)))
    return found


def with_place(error: DatabaseError, password: object) -> DatabaseError:
    """The error of a connection; where the password is the reason, it says where that stands. For English messages."""
    message = str(error)
    if "password authentication failed" in message:
        place = getattr(password, "place", "")
        hint = f"; the password is that of {place}" if place else "; the password is none of the configuration's"
    elif "no password supplied" in message:
        hint = "; set db_password in [options] of Odoo's configuration file"
    else:
        return error
    found = type(error)(error.database, message + hint)
    found.sqlstate, found.refused = error.sqlstate, True  # the server asked for it, so it is there
    return found


def ended_by_server(error: DatabaseError, notices: Sequence[str]) -> DatabaseError:
    """Add what the server said when it ended an idle session; libpq reports that as a notice and then a crash."""
    last = next(iter(notices[-1:]), "")
    if error.sqlstate is None and last.startswith("FATAL"):
        ended = DatabaseUnavailable(error.database, " ".join(last.split()))
        ended.sqlstate = ADMIN_SHUTDOWN
        return ended
    return error


def is_survived(error: Exception) -> bool:
    """Whether the server refused the statement and the connection is still good."""
    return isinstance(error, psycopg2.Error) and error.diag.severity_nonlocalized == "ERROR"


def _kind(database: str, code: str | None, message: str) -> DatabaseError:
    # psycopg2 keeps no SQLSTATE for a refused connection, so we go by the server's message.
    if code == "3D000" or (code is None and is_gone(database, message)):
        return DatabaseGone(database, f'database "{database}" does not exist')
    if code == "42P01":
        return DatabaseGone(database, f"queue_job is not installed: {message}")
    if code == NO_PRIVILEGE:
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
    """Whether a refused connection means that the database does not exist. Only works for messages in English."""
    return f'database "{database}" does not exist' in message


def why_unreachable(error: Exception) -> str:
    """Why PostgreSQL could not be connected to, if that holds for all its databases; '' where it does not.

    By libpq's words, since a connection that did not come about has no SQLSTATE.
    """
    message = str(error)
    lines = message.strip().splitlines() or [""]
    words = _PLACE.sub("", lines[0]).strip()
    if _NOT_REACHED in message or any(each in words for each in _OF_SERVER):
        return words.removeprefix("FATAL:").strip()
    return ""


def is_undecodable(error: DatabaseError) -> bool:
    """Whether a row holds text that has no equivalent in our encoding."""
    return error.sqlstate in _UNDECODABLE


def had_no_effect(sqlstate: str | None) -> bool:
    """Whether a statement that failed with this SQLSTATE (None: no answer) is certain to have changed nothing.

    A session that waits for its synchronous standby has already committed. An error that ends the session then (57:
    shutdown, crash; 08: connection) says nothing about the statement; a statement cancelled then is reported as done.
    """
    if sqlstate is None or sqlstate == "40003":  # statement_completion_unknown
        return False
    return sqlstate == "57014" or sqlstate[:2] not in ("08", "57")  # query_canceled, by a timeout too


def message_of(error: Exception) -> str:
    """The message of an error on one line."""
    words = " ".join(str(error).split())[:_LONGEST_MESSAGE]
    return words or "connection lost"
