"""Environment variables: which are meant for us, and which Odoo itself reads as configuration. Pure.

Odoo 19 also reads each key of [options] from a variable, which takes precedence over the file: libpq's names for the
connection to PostgreSQL, ODOO_<KEY> for the rest. Older versions read none of them; libpq then uses PGHOST, PGPORT,
PGUSER, PGPASSWORD and PGSSLMODE where the file sets nothing, and PGDATABASE has no effect because Odoo names its
database. The version is either configured or inferred from what only Odoo 19 writes or reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..text import nearest

#: The first Odoo that reads its configuration from the environment.
READS_ENVIRONMENT = 19

#: Prefix of a PostgreSQL server's name where servers of other kinds are listed too.
SERVER_PREFIX = "postgresql://"
#: Key of [options] -> libpq variable, as Odoo 19 reads it. Under an older Odoo libpq itself reads them, except the
#: last two, which it does not know or interprets differently.
LIBPQ_VARIABLES = {
    "db_host": "PGHOST",
    "db_port": "PGPORT",
    "db_user": "PGUSER",
    "db_password": "PGPASSWORD",  # nosec B105: the name of a variable
    "db_sslmode": "PGSSLMODE",
    "db_name": "PGDATABASE",
    "db_template": "PGDATABASE_TEMPLATE",
}
#: Old names of Odoo keys; Odoo derives no variable from them.
_OLD_NAMES = ("xmlrpc_interface", "xmlrpc_port")
#: Written by Odoo 19's --save; unknown to older versions.
_NEW_KEYS = ("db_app_name", "with_demo", "import_file_maxbytes", "import_file_timeout", "import_url_regex")
#: Read by Odoo 19 only, so whoever sets them runs Odoo 19.
_NEW_VARIABLES = (
    "ODOO_HTTP_PORT", "ODOO_HTTP_INTERFACE", "ODOO_DBFILTER", "ODOO_SERVER_WIDE_MODULES", "ODOO_WORKERS",
    "PGDATABASE_TEMPLATE",
)  # fmt: skip
_VERSION = re.compile(r"(?:saas[-~])?([0-9]{1,2})(?:\.[0-9]+)?(?:[-+. ].*)?")

#: Variables that Kubernetes adds to each container for each service, recognised by name; one more by its value.
_SERVICE = re.compile(r".*_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|.*_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


class Version(NamedTuple):
    """The version of Odoo; `major` is None if nothing tells it."""

    major: int | None
    #: Where it was found.
    place: str

    @property
    def reads_environment(self) -> bool:
        return self.major is not None and self.major >= READS_ENVIRONMENT


def without_services(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without Kubernetes' service variables, whatever the services are called."""
    return {name: value for name, value in environ.items() if not _is_of_service(name, value)}


def _is_of_service(name: str, value: str) -> bool:
    return bool(_SERVICE.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_URL.match(value)))


def parse_version(text: str) -> int:
    """'19', '19.0' or 'saas-18.2' -> the major version."""
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a version of Odoo; allowed: 14.0 to 19.0, or later")
    return int(match[1])


def find_version(environ: Mapping[str, str], keys: Iterable[str]) -> Version:
    """Find the version from ODOO_VERSION (set in official images), keys of [options] or other variables."""
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
    """The variable Odoo 19 reads for a key of [options]."""
    return None if key in _OLD_NAMES else LIBPQ_VARIABLES.get(key, "ODOO_" + key.upper())


def libpq_variable(key: str) -> str | None:
    """The variable libpq reads if Odoo's configuration leaves a key of [options] unset."""
    return None if key in ("db_name", "db_template") else LIBPQ_VARIABLES.get(key)


def nearly(names: Iterable[str], known: Iterable[str], *, prefixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield (name, known name it resembles) for misspelt names that start with one of the prefixes."""
    wanted = list(known)
    for name in names:
        if name not in wanted and name.startswith(prefixes):
            near = nearest(name, wanted, cutoff=0.8)
            if near:
                yield name, near


def server_of(dsn: Mapping[str, object], environ: Mapping[str, str]) -> str:
    """'host:port' of the PostgreSQL server that connection arguments lead to.

    Databases with the same value share a server and its outages. `environ`: the variables libpq reads.
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
