"""The environment: which variables are meant for us, and which ones Odoo itself takes for its configuration. Pure.

Odoo 19 reads each key of [options] from a variable too, and that goes before the file: libpq's names for what reaches
PostgreSQL, ODOO_<KEY> for the rest. An older Odoo reads none of them; there libpq takes PGHOST, PGPORT, PGUSER,
PGPASSWORD and PGSSLMODE where the file says nothing, and PGDATABASE has no effect, since Odoo names its database. Which
Odoo it is has to be told, or be seen from what only Odoo 19 writes or reads.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

#: The first Odoo that reads its configuration from the environment.
READS_ENVIRONMENT = 19

#: What the name of a PostgreSQL begins with where there are servers of other kinds too.
SERVER_PREFIX = "postgresql://"
#: Key of [options] -> variable of libpq: by Odoo 19, and by libpq itself where an older Odoo says nothing (but for
#: the last two, which libpq takes for something else or does not know).
LIBPQ_VARIABLES = {
    "db_host": "PGHOST",
    "db_port": "PGPORT",
    "db_user": "PGUSER",
    "db_password": "PGPASSWORD",  # nosec B105: the name of a variable
    "db_sslmode": "PGSSLMODE",
    "db_name": "PGDATABASE",
    "db_template": "PGDATABASE_TEMPLATE",
}
#: Keys that Odoo had under an older name: no variable is made from those.
_OLD_NAMES = ("xmlrpc_interface", "xmlrpc_port")
#: Written by Odoo 19's --save, unknown before.
_NEW_KEYS = ("db_app_name", "with_demo", "import_file_maxbytes", "import_file_timeout", "import_url_regex")
#: Nobody but Odoo 19 reads these, and somebody set them.
_NEW_VARIABLES = (
    "ODOO_HTTP_PORT", "ODOO_HTTP_INTERFACE", "ODOO_DBFILTER", "ODOO_SERVER_WIDE_MODULES", "ODOO_WORKERS",
    "PGDATABASE_TEMPLATE",
)  # fmt: skip
_VERSION = re.compile(r"(?:saas[-~])?([0-9]{1,2})(?:\.[0-9]+)?(?:[-+. ].*)?")

#: What Kubernetes puts into each container for each service of the namespace, by names; by values there is one more.
_SERVICE = re.compile(r".*_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|.*_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


class Version(NamedTuple):
    """Which Odoo it is; `major` None: nothing says so."""

    major: int | None
    #: What says so.
    place: str

    @property
    def reads_environment(self) -> bool:
        return self.major is not None and self.major >= READS_ENVIRONMENT


def without_services(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables that Kubernetes makes for services, whatever those are called."""
    return {name: value for name, value in environ.items() if not _is_of_service(name, value)}


def _is_of_service(name: str, value: str) -> bool:
    return bool(_SERVICE.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_URL.match(value)))


def parse_version(text: str) -> int:
    """'19', '19.0', 'saas-18.2' -> the major number."""
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a version of Odoo; allowed: 14.0 to 19.0, or later")
    return int(match[1])


def find_version(environ: Mapping[str, str], keys: Iterable[str]) -> Version:
    """As ODOO_VERSION (official images have it), the keys of [options] or the other variables tell."""
    match = _VERSION.fullmatch(environ.get("ODOO_VERSION", "").strip())
    if match is not None:
        return Version(int(match[1]), "environment variable ODOO_VERSION")
    for key in _NEW_KEYS:
        if key in keys:
            return Version(READS_ENVIRONMENT, f"[options] {key}, which only Odoo 19 has")
    for name in _NEW_VARIABLES:
        if environ.get(name):
            return Version(READS_ENVIRONMENT, f"environment variable {name}, which only Odoo 19 reads")
    return Version(None, "nothing says which Odoo it is")


def odoo_variable(key: str) -> str | None:
    """The variable from which Odoo 19 reads a key of [options]."""
    return None if key in _OLD_NAMES else LIBPQ_VARIABLES.get(key, "ODOO_" + key.upper())


def libpq_variable(key: str) -> str | None:
    """The variable that libpq reads where Odoo's configuration leaves a key of [options] unset."""
    return None if key in ("db_name", "db_template") else LIBPQ_VARIABLES.get(key)


def nearly(names: Iterable[str], known: Iterable[str], *, prefixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(name, what was probably meant) for names that are nearly known ones and begin like these."""
    wanted = list(known)
    for name in names:
        if name not in wanted and name.startswith(prefixes):
            near = difflib.get_close_matches(name, wanted, n=1, cutoff=0.8)
            if near:
                yield name, near[0]


def server_of(dsn: Mapping[str, object], environ: Mapping[str, str]) -> str:
    """'host:port' of the PostgreSQL that arguments for a connection lead to.

    Databases for which this is the same share a server, and its outages. `environ`: what libpq reads.
    """

    def value(name: str, variable: str) -> str:
        found = dsn.get(name)
        return environ.get(variable, "") if found in (None, "") else str(found)

    service = value("service", "PGSERVICE")
    if service:
        return f"service {service}"
    host = value("host", "PGHOST") or value("hostaddr", "PGHOSTADDR") or "local socket"
    port = value("port", "PGPORT") or "5432"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
