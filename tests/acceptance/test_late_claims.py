"""A claim that a database does not answer keeps no permit from the others, and sends nobody."""

from __future__ import annotations

import os
import signal
import time

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import odoo_conf, wait_until


def test_a_server_process_that_stands_still_under_a_claim(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """Twenty jobs fall due at one moment: their worker held all four permits for 18 s."""
    one, other = database(), database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}"))
    running.wait_ready(one.name, other.name)
    uuids = one.insert_jobs(20, eta_s=2, kwargs={"sleep": 0.05})
    wait_until(lambda: (running.database_status(one.name) or {})["pending"] == 20, "they are known")
    ((leader,),) = one.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'qjsupervisor'"
    )
    os.kill(leader, signal.SIGSTOP)
    try:
        wait_until(lambda: running.status()["channels"][0]["running"] == 4, "all permits are taken for a claim")
        began_s = time.monotonic()
        other.insert_jobs(4)
        other.wait_for_states(done=4, timeout_s=10)
        assert time.monotonic() - began_s < 6, "2 s and what a busy machine needs"
    finally:
        os.kill(leader, signal.SIGCONT)
    one.wait_for_states(done=20)
    assert odoo.stats()["executions"][one.name] == dict.fromkeys(uuids, 1)
    assert odoo.stats()["peak"]["root"] <= 4
    assert not running.log_events("database_lost")
    wait_until(lambda: running.status()["channels"][0]["running"] == 0, "all permits are back")


def test_where_every_claim_takes_too_long_jobs_run_nevertheless(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """A trigger that takes three seconds: they were claimed and given back for ever, without a word."""
    one, other = database(), database()
    one.execute("""
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF NEW.state = 'enqueued' THEN PERFORM pg_sleep(3); END IF; RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE UPDATE ON queue_job FOR EACH ROW EXECUTE FUNCTION slow();
    """)
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}", channels="root:1"))
    running.wait_ready(one.name, other.name)
    (uuid,) = one.insert_jobs(1)
    one.wait_for_states(done=1, timeout_s=20)
    other.insert_jobs(3)
    other.wait_for_states(done=3)
    assert odoo.stats()["executions"][one.name] == {uuid: 1}
    assert odoo.stats()["peak"]["root"] == 1
    wait_until(lambda: running.status()["channels"][0]["running"] == 0, "all permits are back")
