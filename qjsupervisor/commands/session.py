"""Short database sessions for commands; errors name the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..config.load import Config
from ..config.settings import APPLICATION_NAME, connect_limit_s
from ..errors import DatabaseError
from ..postgres.session import Session

#: Limit for a statement whatever the table's size, because somebody waits at a terminal.
_STATEMENT_TIMEOUT_S = 120.0
#: Set by a statement and not in `options`, which poolers refuse.
_LIMITS = f"SET statement_timeout = '{_STATEMENT_TIMEOUT_S:g}s'; SET lock_timeout = '5s'"


def dsn_of(config: Config, database: str, command: str) -> dict[str, Any]:
    """Connection arguments for a database; `command` is shown in pg_stat_activity."""
    return {**config.dsn(database), "application_name": f"{APPLICATION_NAME} {command}"}


@contextmanager
def session(config: Config, database: str, command: str) -> Iterator[Session]:
    """A session in autocommit. Raises DatabaseError for any database error inside."""
    dsn = dsn_of(config, database, command)
    with opened(dsn, database, connect_limit_s(dsn, config.connect_timeout_s)) as found:
        yield found


@contextmanager
def opened(dsn: Mapping[str, Any], database: str, connect_s: float | None = None) -> Iterator[Session]:
    """As `session`, with arguments of psycopg2.connect; `connect_s`: see Session."""
    found = Session(database, dsn, connect_s=connect_s, settings=[(0, _LIMITS)], for_people=True)
    found.limit_s = _STATEMENT_TIMEOUT_S
    try:
        found.connect()
        yield found
    except DatabaseError as error:
        if str(error).startswith(f"{database}: "):
            raise
        raise error.named(f"{database}: {error}") from error
    finally:
        found.close()
