"""A short connection of a command to one database; psycopg2's errors become ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import errors
from psycopg2.extensions import connection as Connection

from ..config.load import Config
from ..config.settings import APPLICATION_NAME
from ..errors import DatabaseError, DatabaseGone, DatabaseUnavailable, DatabaseUnfit

#: Whatever a table's size: somebody waits at a terminal.
_STATEMENT_TIMEOUT_MS = 120_000
_LOCK_TIMEOUT_MS = 5_000


def dsn_of(config: Config, database: str, command: str) -> dict[str, Any]:
    """What to connect to a database with; `command` is shown in pg_stat_activity."""
    return {**config.dsn(database), "application_name": f"{APPLICATION_NAME} {command}"}


@contextmanager
def session(config: Config, database: str, command: str) -> Iterator[Connection]:
    """A connection in autocommit; raises DatabaseError for whatever goes wrong inside."""
    with opened(dsn_of(config, database, command), database) as connection:
        yield connection


@contextmanager
def opened(dsn: Mapping[str, Any], database: str) -> Iterator[Connection]:
    """The same, from what psycopg2.connect takes."""
    try:
        connection = psycopg2.connect(**dsn)
    except UnicodeEncodeError as error:
        raise DatabaseGone(database, f"{database!r} is not UTF-8: no database is called that") from error
    except psycopg2.Error as error:
        # Of a refused connection psycopg2 keeps no SQLSTATE: the server's words have to do.
        raise DatabaseUnavailable(database, f"{database}: cannot connect: {first_line(error)}") from error
    try:
        connection.autocommit = True
        _set_up(connection)
        yield connection
    except psycopg2.Error as error:
        raise translated(error, database) from error
    except UnicodeDecodeError as error:
        raise DatabaseUnfit(database, f"{database}: holds text that is not UTF-8") from error
    except UnicodeEncodeError as error:
        raise DatabaseUnfit(database, f"{database}: asked for {error.object!r}, which is not UTF-8") from error
    finally:
        connection.close()


def _set_up(connection: Connection) -> None:
    connection.set_client_encoding("UTF8")
    with connection.cursor() as cursor:
        # By statement, not in `options`: poolers refuse those.
        cursor.execute("SET statement_timeout = %s", (_STATEMENT_TIMEOUT_MS,))
        cursor.execute("SET lock_timeout = %s", (_LOCK_TIMEOUT_MS,))


def translated(error: psycopg2.Error, database: str) -> DatabaseError:
    """Our error for one of psycopg2's, with what it means here."""
    if isinstance(error, errors.UndefinedTable):
        return DatabaseGone(database, f"{database}: queue_job is not installed in it ({first_line(error)})")
    if isinstance(error, errors.InsufficientPrivilege):
        return DatabaseUnfit(database, f"{database}: {first_line(error)}; see GRANT in README")
    if isinstance(error, psycopg2.OperationalError):
        return DatabaseUnavailable(database, f"{database}: {first_line(error)}")
    return DatabaseError(database, f"{database}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """The first line of a message, which says what happened; the others quote the statement."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
