"""Channels per database, as queue_job 18.0.4 has them: max_capacity, db_max_capacity, queue_job_channel."""

from __future__ import annotations

from typing import Any

from qjsupervisor.testing import schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.schema import Schema
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until


def start(
    postgres: ThrowawayPostgres, port: int, supervisor: SupervisorFactory, *databases: Database, **queue_job: Any
) -> Supervisor:
    names = ",".join(database.name for database in databases)
    sections = {"queue_job": {"max_capacity": 6, **queue_job}}
    return supervisor(odoo_conf(postgres, port, db_name=names, channels=None, sections=sections))


def test_capacities(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Six over all, four in one, one in another, three in the rest; all six really used."""
    prod, test, rest = database("a_prod"), database("m_test"), database("z_rest")
    running = start(postgres, odoo.port, supervisor, prod, test, rest, db_max_capacity="*_prod:4,m_test:1,*:3")
    running.wait_ready(prod.name, test.name, rest.name)
    for each, jobs in ((prod, 40), (test, 10), (rest, 30)):
        each.insert_jobs(jobs, kwargs={"sleep": 0.1})
    for each, jobs in ((prod, 40), (test, 10), (rest, 30)):
        each.wait_for_states(done=jobs, timeout_s=30)
    stats = odoo.stats()
    assert stats["peak"]["root"] == 6
    peaks = {name: peak["root"] for name, peak in stats["peak_by_database"].items()}
    assert peaks == {prod.name: 4, test.name: 1, rest.name: 3}


def test_settings_change_while_jobs_run(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A pause in the database stops a channel and those below it, live; running jobs are neither lost nor doubled."""
    one = database()
    schema.set_channel(one.connection, "root.mail", capacity=1)
    schema.set_channel(one.connection, "root.mail.bulk", capacity=1)
    running = start(postgres, odoo.port, supervisor, one)
    running.wait_ready(one.name)
    slow = one.insert_jobs(1, kwargs={"sleep": 2})
    wait_until(lambda: one.states().get("started") == 1, "a job runs")
    schema.set_channel(one.connection, "root.mail", capacity=1, paused=True)
    running.wait_for("channels_read", timeout_s=3)
    mail = one.insert_jobs(2, channel="root.mail") + one.insert_jobs(2, channel="root.mail.bulk")
    plain = one.insert_jobs(3)
    wait_until(lambda: all(one.state(uuid) == "done" for uuid in plain), "what is not paused goes on")
    assert {one.state(uuid) for uuid in mail} == {"pending"}
    schema.set_channel(one.connection, "root.mail", capacity=1)
    one.wait_for_states(done=8)
    stats = odoo.stats()
    assert set(stats["executions"][one.name].values()) == {1}
    assert stats["peak_by_database"][one.name]["root.mail"] == 1
    assert set(slow) <= set(stats["executions"][one.name])


def test_an_invalid_tree_stops_only_its_own_database(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A sequential channel of capacity 3, and a database that is too old: both say why, and are taken up when right."""
    good, bad, old = database(), database(), database(schema=Schema(channel_settings=False))
    schema.set_channel(bad.connection, "root.ledger", capacity=3, sequential=True)
    running = start(postgres, odoo.port, supervisor, good, bad, old)
    running.wait_ready(good.name)
    for each in (good, bad, old):
        each.insert_jobs(2)
    good.wait_for_states(done=2)

    def reason(each: Database) -> str:
        entry = running.database_status(each.name) or {}
        return str(entry.get("last_error") or entry.get("message") or "")

    wait_until(lambda: "root.ledger" in reason(bad), lambda: f"a reason: {reason(bad)!r}")
    wait_until(lambda: "18.0.4" in reason(old), lambda: f"a reason: {reason(old)!r}")
    assert bad.states() == old.states() == {"pending": 2}
    schema.set_channel(bad.connection, "root.ledger", capacity=1, sequential=True)
    bad.wait_for_states(done=2, timeout_s=20)


def test_default_of_queue_job_18_0_4(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Neither channels nor max_capacity: one job at once over all; what is paused in Odoo waits, live; old ones run."""
    new, old = database(), database(schema=Schema(channel_settings=False))
    schema.set_channel(new.connection, "root.mail", paused=True)
    running = start(postgres, odoo.port, supervisor, new, old, max_capacity=None)
    running.wait_ready(new.name, old.name)
    mail = new.insert_jobs(2, channel="root.mail", kwargs={"sleep": 0.05})
    for each in (new, old):
        each.insert_jobs(5, kwargs={"sleep": 0.05})
    old.insert_jobs(2, channel="root.mail", kwargs={"sleep": 0.05})
    old.wait_for_states(done=7)
    new.wait_for_states(done=5, pending=2)
    status, found = running.status(), running.run("jobs", new.name, mail[0]).stdout
    assert status["mode"] == "default"
    assert "channel root.mail is paused in the database" in " ".join(found.split())
    schema.set_channel(new.connection, "root.mail")
    new.wait_for_states(done=7)
    assert odoo.stats()["peak"]["root"] == 1
