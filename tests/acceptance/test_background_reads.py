"""Reads on a second connection: where the first address of the server refuses, and where there is none to be had."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, odoo_conf, wait_until
from .link import Link

JOBS = 700
#: Far fewer than there are jobs, so that more have to be read again and again.
WINDOW: dict[str, object] = {"window": 100}


@pytest.fixture
def full(database: DatabaseFactory) -> Database:
    made = database()
    made.insert_jobs(JOBS)
    return made


def test_the_first_address_of_the_server_refuses(
    postgres: ThrowawayPostgres, odoo: StandIn, full: Database, supervisor: SupervisorFactory
) -> None:
    """The next one is tried on a descriptor of the same number, of which the loop has to be told."""
    options: dict[str, object] = {"db_host": f"127.0.0.2,{postgres.host}"}
    sections = {"options": options, "qjsupervisor": WINDOW}
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=full.name, channels="root:8", sections=sections))
    full.wait_for_states(done=JOBS, timeout_s=30)
    assert running.log_events("table_read_failed") == []


@pytest.fixture
def lonely(postgres: ThrowawayPostgres, full: Database) -> Iterator[str]:
    """A role that may do what the owner may."""
    ((owner,),) = full.execute("SELECT current_user")
    postgres.execute("postgres", f"CREATE ROLE lonely LOGIN PASSWORD 'x' IN ROLE {owner}", superuser=True)
    yield "lonely"
    postgres.execute("postgres", "DROP ROLE lonely", superuser=True)


def test_no_second_connection(
    postgres: ThrowawayPostgres, odoo: StandIn, full: Database, lonely: str, supervisor: SupervisorFactory
) -> None:
    options: dict[str, object] = {"db_user": lonely, "db_password": "x"}
    sections = {"options": options, "qjsupervisor": WINDOW}
    conf = odoo_conf(postgres, odoo.port, db_name=full.name, channels="root:0", sections=sections)
    running = supervisor(conf)
    running.wait_ready(full.name)
    postgres.execute("postgres", f"ALTER ROLE {lonely} CONNECTION LIMIT 1", superuser=True)
    running.write_conf(conf.replace("root:0", "root:8"))
    assert running.run("reload").returncode == 0
    full.wait_for_states(done=JOBS, timeout_s=30)
    running.wait_for("table_read_failed")
    assert running.log_events("database_lost") == []


def test_a_second_connection_that_only_logs_in(
    postgres: ThrowawayPostgres, odoo: StandIn, full: Database, supervisor: SupervisorFactory
) -> None:
    """A pooler in session mode that is full takes it, and lets its statements wait."""
    with Link((postgres.host, postgres.port)) as link:
        options: dict[str, object] = {"db_host": link.host, "db_port": link.port}
        sections = {"options": options, "qjsupervisor": {**WINDOW, "rescan_interval": 3600}}
        conf = odoo_conf(postgres, odoo.port, db_name=full.name, channels="root:0", sections=sections)
        running = supervisor(conf)
        running.wait_ready(full.name)
        link.only_logins = True
        running.write_conf(conf.replace("root:0", "root:8"))
        assert running.run("reload").returncode == 0
        full.wait_for_states(done=JOBS, timeout_s=30)
        failed = running.wait_for("table_read_failed")
        assert "gets no answer" in failed["reason"]
        wait_until(
            lambda: "read on the worker's own connection" in str(running.database_status(full.name)),
            lambda: f"the status says so: {running.database_status(full.name)}",
        )
        assert running.log_events("database_lost") == []
