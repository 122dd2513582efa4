"""Parses `db_name`: database names, or PostgreSQL URIs instead of names.

Pure. No error quotes an entry, because a URI may contain a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import psycopg2
from psycopg2.extensions import parse_dsn

from .settings import DatabaseName
from .values import entries

_SCHEMES = ("postgresql://", "postgres://")
_ALLOWED = (
    "allowed: postgresql://[USER[:PASSWORD]@][HOST[:PORT]]/DATABASE, other characters than letters and digits "
    "in the password written as %XX"
)


def parse_database_names(text: str) -> tuple[DatabaseName, ...]:
    """The databases in the order given, without duplicates. Raises ValueError naming the bad entry."""
    names: dict[str, DatabaseName] = {}
    parts = entries(text)
    has_uris = any(part.startswith(_SCHEMES) for part in parts)
    for number, entry in enumerate(parts, start=1):
        try:
            if has_uris and "@" in entry and not entry.startswith(_SCHEMES):
                # Most likely the tail of a URI with a comma in its password.
                raise ValueError(f"neither a name nor a PostgreSQL URI; {_ALLOWED}")
            database = _from_uri(entry) if entry.startswith(_SCHEMES) else DatabaseName(entry)
        except ValueError as error:
            raise ValueError(f"entry {number}: {error}") from None
        names.setdefault(database.name, database)
    return tuple(names.values())


def _from_uri(uri: str) -> DatabaseName:
    """Take the database from a URI as Odoo does: its path, else its user, else its host."""
    try:
        parts = parse_dsn(uri)
    except psycopg2.ProgrammingError:
        # Drop libpq's message, which quotes the URI.
        raise ValueError(f"not a PostgreSQL URI; {_ALLOWED}") from None
    if _is_split_amiss(uri, parts):
        raise ValueError(f"not a PostgreSQL URI; {_ALLOWED}")
    name = parts.get("dbname") or parts.get("user") or parts.get("host")
    if not name:
        raise ValueError("the URI names no database; allowed: postgresql://.../DATABASE")
    return DatabaseName(name, uri)


def _is_split_amiss(uri: str, parts: Mapping[str, str]) -> bool:
    """Whether a '/', '@' or ':' in the password made libpq read part of it as host, port or database."""
    path = uri.partition("://")[2].partition("/")[2].partition("?")[0]
    return "@" in path or "@" in parts.get("host", "")[1:] or not re.fullmatch("[0-9,]*", parts.get("port", ""))
