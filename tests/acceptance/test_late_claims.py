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
