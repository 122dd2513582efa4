"""Checks Odoo's own settings and databases for what makes jobs fail, starve users or run twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..config.load import Config
from ..postgres.session import Session
from ..text import same_uuid
from . import statements
from .findings import Finding, warning
from .job_rows import fetch


class OdooFacts(NamedTuple):
    """Facts about one database: one row of ODOO_FACTS, and its uuid."""

    has_server_environment: bool
    #: database.uuid, by which Odoo tells databases apart; None if our role may not read it.
    uuid: str | None


def read_facts(connection: Session) -> OdooFacts:
    """Read the facts with one statement, or two if the parameters are readable."""
    ((has_server_environment, may_read),) = fetch(connection, statements.ODOO_FACTS)
    rows = fetch(connection, statements.DATABASE_UUID) if may_read else []
    return OdooFacts(has_server_environment, rows[0][0] if rows else None)


def warnings_of(facts: OdooFacts) -> Iterator[str]:
    """Warnings about one database."""
    if facts.has_server_environment:
        yield (
            "module server_environment is installed: queue_job then reads its settings from that module's files"
            " and not from [queue_job] of Odoo's; what stands there has to be set here too"
        )


def check_odoo_settings(config: Config) -> Iterator[Finding]:
    """Findings about settings in Odoo's [options] that conflict with running jobs."""
    odoo, capacity = config.odoo, config.channels[0].capacity
    if odoo.server_wide_modules is not None and "queue_job" not in odoo.server_wide_modules:
        yield warning(
            f"server_wide_modules = {','.join(odoo.server_wide_modules)} lacks queue_job: Odoo answers 404, unless it"
            " was started with --load; add it, and restart Odoo"
        )
    hosts = len({target.url for _, targets in config.targets for target in targets})
    if odoo.workers and (capacity is None or capacity >= odoo.workers * hosts):
        limit = "no limit" if capacity is None else str(capacity)
        yield warning(
            f"the capacity of root ({limit}) is not below workers ({odoo.workers}): jobs can take every worker of Odoo,"
            " and people wait for them; lower it, or raise workers"
        )


def duplicates(databases: Iterable[tuple[str, str | None]]) -> Iterator[Finding]:
    """Findings about databases, given as (name, uuid), that are copies of each other."""
    by_uuid: dict[str, list[str]] = {}
    for name, uuid in databases:
        if uuid:
            by_uuid.setdefault(uuid, []).append(name)
    for names in by_uuid.values():
        if len(names) > 1:
            yield warning(same_uuid(names))
