"""What a job costs PostgreSQL, as its own log counts it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from qjsupervisor.testing import schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import StandInFactory, SupervisorFactory
from ..helpers import Database, odoo_conf, wait_until

TEMPLATE = "cost_template"
_STATEMENT = re.compile(r"^qjsupervisor\|.*LOG: +(?:statement|execute)", re.MULTILINE)


@pytest.fixture(scope="module")
def talkative() -> Iterator[ThrowawayPostgres]:
    """A cluster that logs every statement, with the name of who sent it."""
    settings: dict[str, str | int] = {"log_statement": "all", "log_line_prefix": "%a|"}
    with ThrowawayPostgres(settings=settings) as cluster:
        cluster.create_database(TEMPLATE)
        connection = cluster.connect(TEMPLATE)
        schema.install(connection)
        connection.close()
        cluster.make_template(TEMPLATE)
        yield cluster


def statements(cluster: ThrowawayPostgres) -> int:
    """How many the supervisor has sent."""
    return len(_STATEMENT.findall(cluster.log.read_text(errors="replace")))


def made(cluster: ThrowawayPostgres, count: int) -> list[Database]:
    names = [f"cost_{count}_{number}" for number in range(count)]
    for name in names:
        cluster.create_database(name, TEMPLATE)
    return [Database(cluster, name) for name in names]


def finished(odoo: StandIn) -> int:
    return sum(run["outcome"] == "done" for run in odoo.stats()["runs"])


@pytest.mark.parametrize(
    ("count", "pace", "most"),
    [(1, "one by one", 3.2), (1, "each after the other", 2.3), (20, "each after the other", 2.6)],
)
def test_statements_for_a_job(
    count: int,
    pace: str,
    most: float,
    talkative: ThrowawayPostgres,
    stand_in: StandInFactory,
    supervisor: SupervisorFactory,
) -> None:
    odoo = stand_in(talkative)
    databases = made(talkative, count)
    try:
        names = [database.name for database in databases]
        own = {"qjsupervisor": {"databases_include": f"cost_{count}_*"}}
        running = supervisor(odoo_conf(talkative, odoo.port, sections=own))
        running.wait_ready(*names, timeout_s=40)
        jobs = 8 * max(10, count) if pace == "each after the other" else 200
        before = statements(talkative)
        for number in range(jobs):
            database = databases[number % count]
            (uuid,) = database.insert_jobs(1, kwargs={"sleep": 0.01})
            if pace == "each after the other":
                wait_until(lambda d=database, u=uuid: d.state(u) == "done", "the job is done")
        wait_until(lambda: finished(odoo) == jobs, lambda: f"{finished(odoo)} of {jobs} done", 40)
        running.stop()
        per_job = (statements(talkative) - before) / jobs
        # At least one claims it; a count that is lower counts nothing.
        assert 0.02 < per_job <= most
        assert sum(len(uuids) for uuids in odoo.stats()["executions"].values()) == jobs
    finally:
        for database in databases:
            database.drop()


def test_notifications_are_read_together(
    talkative: ThrowawayPostgres, stand_in: StandInFactory, supervisor: SupervisorFactory
) -> None:
    """A thousand jobs that nobody may start yet cost a few statements, not a thousand."""
    odoo = stand_in(talkative)
    (database,) = made(talkative, 1)
    try:
        running = supervisor(odoo_conf(talkative, odoo.port, db_name=database.name, channels="root:1"))
        running.wait_ready(database.name)
        database.insert_jobs(1, kwargs={"sleep": 30})
        database.wait_for_states(started=1)
        before = statements(talkative)
        database.insert_jobs(1000)

        def shown() -> object:
            return (running.database_status(database.name) or {}).get("pending")

        wait_until(lambda: shown() == 1000, lambda: f"{shown()} of 1000 are known")
        assert 1 <= statements(talkative) - before <= 12
        running.kill()
    finally:
        database.drop()
