"""Between databases: turns, weights, one order over all; and the pauses that an operator gives."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import odoo_conf, wait_until


def test_a_first_job_waits_for_a_turn_and_not_for_a_backlog(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """600 jobs of one database at capacity 2: another one's first job starts after at most four more."""
    many, few = database(), database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{many.name},{few.name}", channels="root:2"))
    running.wait_ready(many.name, few.name)
    many.insert_jobs(600, kwargs={"sleep": 0.02})
    wait_until(lambda: len(odoo.stats()["runs"]) > 60, "the backlog is being worked off")
    few.insert_jobs(1)
    inserted_s = time.monotonic()
    few.wait_for_states(done=1)
    runs = odoo.stats()["runs"]
    (first,) = [run for run in runs if run["database"] == few.name]
    before = [r for r in runs if r["database"] == many.name and inserted_s < r["started_s"] < first["started_s"]]
    assert len(before) <= 4
    assert many.states()["pending"] > 100, "the backlog must still be there for this to say anything"


def test_weights(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Three turns for one, as long as both wait."""
    heavy, light = database("prod_heavy"), database("light")
    conf = odoo_conf(
        postgres,
        odoo.port,
        db_name=f"{heavy.name},{light.name}",
        channels="root:4",
        sections={"qjsupervisor": {"fairness_weights": "prod_*:3,*:1"}},
    )
    for each in (heavy, light):
        each.insert_jobs(200, kwargs={"sleep": 0.01})
    supervisor(conf).wait_ready(heavy.name, light.name)
    heavy.wait_for_states(done=200, timeout_s=40)
    runs = odoo.stats()["runs"][20:220]  # both have a backlog there
    shares = Counter(run["database"] for run in runs)
    assert 2.4 <= shares[heavy.name] / shares[light.name] <= 3.6, shares


def test_one_order_over_all_databases(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """`fairness = priority`: two databases are served as if their jobs stood in one queue."""
    one, other = database(), database()
    expected = []
    for priority in (20, 5, 11, 7, 3, 16, 9, 1):
        for each in (one, other):
            expected += [(priority, index, uuid) for index, uuid in enumerate(each.insert_jobs(3, priority=priority))]
    conf = odoo_conf(
        postgres,
        odoo.port,
        db_name=f"{one.name},{other.name}",
        channels="root:1",
        sections={"qjsupervisor": {"fairness": "priority"}},
    )
    supervisor(conf).wait_ready(one.name, other.name)
    for each in (one, other):
        each.wait_for_states(done=24, timeout_s=30)
    of = {uuid: priority for priority, _index, uuid in expected}
    ran = [of[run["uuid"]] for run in odoo.stats()["runs"]]
    assert ran == sorted(ran)


def test_pauses_are_kept_over_a_reload_and_a_restart(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A paused channel of one database starts nothing; the rest goes on; it ends by an order, or by itself."""
    one, other = database(), database()
    running = supervisor(
        odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}", channels="root:4,root.slow:2")
    )
    running.wait_ready(one.name, other.name)
    assert running.run("pause", f"{one.name}:root.slow").returncode == 0
    for each in (one, other):
        each.insert_jobs(3, channel="root.slow")
        each.insert_jobs(3)
    other.wait_for_states(done=6)
    one.wait_for_states(done=3, pending=3)
    assert running.run("reload").returncode == 0
    pid = running.pids()[one.name]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: running.pids().get(one.name, pid) != pid, "another worker")
    running.wait_ready(one.name)
    one.insert_jobs(2)
    one.wait_for_states(done=5, pending=3)
    assert running.status()["pauses"], "the pause is shown"
    assert running.run("resume", f"{one.name}:root.slow").returncode == 0
    one.wait_for_states(done=8)
    assert running.run("pause", one.name, "--for", "1s").returncode == 0
    one.insert_jobs(2)
    one.wait_for_states(done=10)


def test_ageing(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A job that has waited goes before a better one that came much later, also of another database; in place."""
    one, other = database(), database()
    own = {"qjsupervisor": {"fairness": "priority"}}
    names = f"{one.name},{other.name}"
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=names, channels="root:1", sections=own))
    running.wait_ready(one.name, other.name)
    one.insert_jobs(1, kwargs={"sleep": 16})
    one.wait_for_states(started=1)
    (late,) = one.insert_jobs(1, priority=4)
    (old,) = one.insert_jobs(1, priority=10)
    (soon,) = other.insert_jobs(1, priority=7)
    one.execute("UPDATE queue_job SET date_created = date_created - interval '5 min' WHERE uuid = %(u)s", {"u": old})

    def waiting() -> list[str]:
        listed = json.loads(running.run("jobs", one.name, "--state", "pending", "--json").stdout)["jobs"]
        return [job["uuid"] for job in listed]

    assert waiting() == [late, old]
    pids = running.pids()
    running.write_conf(running.conf.read_text() + "\nageing = 30s\n")
    assert running.run("reload").returncode == 0
    assert waiting() == [old, late]
    one.wait_for_states(done=3, timeout_s=20)
    other.wait_for_states(done=1)
    assert [run["uuid"] for run in odoo.stats()["runs"]][-3:] == [old, late, soon]
    assert running.pids() == pids
    assert running.status()["ageing_s"] == 30
