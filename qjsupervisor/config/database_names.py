"""`db_name`: names, and PostgreSQL URIs in the place of names.

Pure. No error quotes an entry: a URI may hold a password.
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
    """In the order given, each once. Raises ValueError that says which entry is wrong."""
    names: dict[str, DatabaseName] = {}
    parts = entries(text)
    has_uris = any(part.startswith(_SCHEMES) for part in parts)
    for number, entry in enumerate(parts, start=1):
        try:
            if has_uris and "@" in entry and not entry.startswith(_SCHEMES):
                # The rest of a URI with a comma in its password, most likely.
                raise ValueError(f"neither a name nor a PostgreSQL URI; {_ALLOWED}")
            database = _from_uri(entry) if entry.startswith(_SCHEMES) else DatabaseName(entry)
        except ValueError as error:
            raise ValueError(f"entry {number}: {error}") from None
        names.setdefault(database.name, database)
    return tuple(names.values())


def _from_uri(uri: str) -> DatabaseName:
    """As Odoo: the database of a URI is its path, else its user, else its host."""
    try:
        parts = parse_dsn(uri)
    except psycopg2.ProgrammingError:
        # Without libpq's words, which quote the URI.
        raise ValueError(f"not a PostgreSQL URI; {_ALLOWED}") from None
    if _is_split_amiss(uri, parts):
        raise ValueError(f"not a PostgreSQL URI; {_ALLOWED}")
    name = parts.get("dbname") or parts.get("user") or parts.get("host")
    if not name:
        raise ValueError("the URI names no database; allowed: postgresql://.../DATABASE")
    return DatabaseName(name, uri)


def _is_split_amiss(uri: str, parts: Mapping[str, str]) -> bool:
    """Whether '/', '@' or ':' in a password made libpq take the rest of it for something that is shown."""
    path = uri.partition("://")[2].partition("/")[2].partition("?")[0]
    return "@" in path or "@" in parts.get("host", "")[1:] or not re.fullmatch("[0-9,]*", parts.get("port", ""))
