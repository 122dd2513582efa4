"""`db_name`: names, and PostgreSQL URIs in the place of names.

Pure. No error quotes an entry: a URI may hold a password.
"""

from __future__ import annotations

import psycopg2
from psycopg2.extensions import parse_dsn

from .settings import DatabaseName
from .values import entries

_SCHEMES = ("postgresql://", "postgres://")


def parse_database_names(text: str) -> tuple[DatabaseName, ...]:
    """In the order given, each once. Raises ValueError that says which entry is wrong."""
    names: dict[str, DatabaseName] = {}
    for number, entry in enumerate(entries(text), start=1):
        try:
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
        raise ValueError(
            "not a PostgreSQL URI; allowed: postgresql://[USER[:PASSWORD]@][HOST[:PORT]]/DATABASE"
        ) from None
    name = parts.get("dbname") or parts.get("user") or parts.get("host")
    if not name:
        raise ValueError("the URI names no database; allowed: postgresql://.../DATABASE")
    return DatabaseName(name, uri)
