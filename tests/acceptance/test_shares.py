"""What databases are guaranteed and limited to, as the jobs that reach Odoo show it: five databases at one Odoo."""

from __future__ import annotations

import json
from typing import Any

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import odoo_conf, wait_until


def running_at(runs: list[Any], database: str, moment_s: float) -> int:
    return sum(
        run["database"] == database and run["started_s"] <= moment_s < (run["finished_s"] or float("inf"))
        for run in runs
    )


def test_five_databases(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """One has its minimum with the next completions; another's is kept free; none has more than its most."""
    prod, kept, *others = [database("prod_a"), database("kept"), database(), database(), database()]
    names = ",".join(each.name for each in (prod, kept, *others))

    def conf(most: int) -> str:
        shares = {"db_capacity": f"prod_*:min=3:max=4,kept:min=1:reserve,*:max={most}"}
        return odoo_conf(postgres, odoo.port, db_name=names, channels="root:8", sections={"qjsupervisor": shares})

    running = supervisor(conf(2))
    running.wait_ready(*names.split(","))
    for each in others:
        each.insert_jobs(60, kwargs={"sleep": 0.3})
    wait_until(lambda: running.status()["channels"][0]["running"] == 6, "others run their most: 2 each, 6 of 8")
    prod.insert_jobs(60, kwargs={"sleep": 0.3})
    wait_until(lambda: (running.database_status(prod.name) or {})["share"]["used"] >= 3, "its minimum, beside them")
    answer = json.loads(running.run("jobs", others[0].name, "--state", "pending", "--json").stdout)
    codes = {reason["code"] for reason in answer["jobs"][0]["reasons"]}
    assert codes & {"most", "guaranteed"}, answer["jobs"][0]
    kept.insert_jobs(1, kwargs={"sleep": 0.1})
    kept.wait_for_states(done=1)
    pids = running.pids()
    running.write_conf(conf(3))
    assert running.run("reload").returncode == 0
    wait_until(
        lambda: any((running.database_status(each.name) or {})["share"]["used"] == 3 for each in others),
        "the new most, in place",
    )
    assert running.pids() == pids
    prod.wait_for_states(done=60, timeout_s=60)
    runs = odoo.stats()["runs"]
    for run in runs:
        total = sum(running_at(runs, each.name, run["started_s"]) for each in (prod, kept, *others))
        borrowed = total - running_at(runs, kept.name, run["started_s"])
        assert borrowed <= 7, "what is kept free is used by others"
        assert running_at(runs, prod.name, run["started_s"]) <= 4
    first = min(run["started_s"] for run in runs if run["database"] == prod.name)
    waited = [run for run in runs if run["database"] == kept.name]
    assert waited[0]["started_s"] - waited[0]["received_s"] < 0.3
    assert max(running_at(runs, prod.name, first + 0.1 * step) for step in range(12)) >= 3
