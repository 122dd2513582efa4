"""What databases are guaranteed and limited to, as the jobs that reach Odoo show it: five databases at one Odoo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qjsupervisor.testing import schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, StandInFactory, SupervisorFactory
from ..helpers import Database, Sections, odoo_conf, wait_until

#: A job that outlives its test.
LONG_S = 120
#: From the end of a job in Odoo to the beginning of the next one on its permit, on a busy machine.
ON_ITS_WAY_S = 0.2


def running_at(runs: list[Any], database: str, moment_s: float, about_s: float = 0.0) -> int:
    """How many ran then, or up to `about_s` before or after."""
    return sum(
        run["database"] == database
        and run["started_s"] - about_s <= moment_s < (run["finished_s"] or float("inf")) + about_s
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
        each.insert_jobs(240, kwargs={"sleep": 0.3})  # more than the commands below take
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


def test_channels(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A reserve stays free under load, a minimum comes with the next completions, weights are parts of the starts."""
    one, other = database(), database()
    channels = "root:5,api:min=1:reserve,mail:min=2,bulk:9:weight=3,rest:9:weight=1"

    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}", channels=channels))
    running.wait_ready(one.name, other.name)
    for each in (one, other):
        each.insert_jobs(40, channel="root.bulk", kwargs={"sleep": 0.25})
        each.insert_jobs(25, channel="root.rest", kwargs={"sleep": 0.25})
    wait_until(lambda: running.status()["channels"][0]["running"] == 4, "all but what is reserved")
    waiting = json.loads(running.run("jobs", one.name, "--state", "pending", "--json").stdout)["jobs"]
    codes = {(reason["code"], reason["text"]) for job in waiting for reason in job["reasons"]}
    assert ("guaranteed", "guaranteed to root.api") in codes, codes
    one.insert_jobs(1, channel="root.api")
    # Long ones: as Odoo sees it, a permit is used by nobody while the next request is on its way (ON_ITS_WAY_S).
    one.insert_jobs(20, channel="root.mail", kwargs={"sleep": 0.5})
    wait_until(lambda: all(each.states().keys() <= {"done"} for each in (one, other)), "all of it", 40)
    runs = odoo.stats()["runs"]
    (api,) = [run for run in runs if run["channel"] == "root.api"]
    assert api["started_s"] - api["received_s"] < 0.3
    for run in runs:
        at_once = sum(
            running_at([each], each["database"], run["started_s"]) for each in runs if each["channel"] != api["channel"]
        )
        assert at_once <= 4, "what is reserved is used by others"
    mail = sorted(run["started_s"] for run in runs if run["channel"] == "root.mail")
    last_mail_s = mail[-3]
    borrowed = [run for run in runs if mail[1] < run["started_s"] < last_mail_s and run["channel"] != "root.mail"]
    for run in borrowed:
        held = [each for each in runs if each["channel"] == "root.mail"]
        assert running_at(held, one.name, run["started_s"], ON_ITS_WAY_S), (
            "a borrower was served, and root.mail had nothing"
        )
    worked_s = sum((run["finished_s"] or 0.0) - run["started_s"] for run in runs if run["channel"] == "root.mail")
    assert worked_s / (mail[-1] - mail[0]) > 1.5, "two at once, and a moment between one and the next"
    both = [run["channel"] for run in sorted(runs, key=lambda run: run["started_s"]) if run["channel"] != "root.mail"]
    first = [channel for channel in both if channel in ("root.bulk", "root.rest")][:80]
    assert abs(first.count("root.bulk") - 60) <= 3, first


def test_channels_and_shares_of_databases_with_trees_of_their_own(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Without `channels`: what databases are guaranteed and limited to, and options of the channels set up in them."""
    prod, test, small = database(), database(), database()
    for each in (prod, test, small):
        schema.set_channel(each.connection, "root", capacity=1 if each is small else 6)
    shares = f"{prod.name}:min=3:max=4,*:max=3"
    own = {"db_capacity": shares, "channel_options": "a:weight=3,b:weight=1,api:min=2:reserve"}
    sections: Sections = {"queue_job": {"max_capacity": 6}, "qjsupervisor": own}
    names = [prod.name, test.name, small.name]
    conf = odoo_conf(postgres, odoo.port, db_name=",".join(names), channels=None, sections=sections)
    running = supervisor(conf)
    running.wait_ready(prod.name, test.name)
    wait_until(
        lambda: "minimums below it are 2 (root.api 2), 1 more than 1" in str(running.database_status(small.name)),
        "the database into which they do not fit says so",
    )
    for each in (prod, test):
        each.insert_jobs(60, channel="root.a", kwargs={"sleep": 0.15})
        each.insert_jobs(60, channel="root.b", kwargs={"sleep": 0.15})
    wait_until(lambda: running.status()["channels"][0]["running"] >= 5, "both run")

    def codes() -> set[str]:
        waiting = json.loads(running.run("jobs", prod.name, "--state", "pending", "--json").stdout)["jobs"]
        return {reason["code"] for job in waiting for reason in job["reasons"]}

    # For a moment between two jobs the channels may be full and nothing else.
    wait_until(lambda: codes() & {"guaranteed", "most"}, "what a job waits for is told")
    wait_until(lambda: all(each.states() == {"done": 120} for each in (prod, test)), "all of it", 50)
    runs = odoo.stats()["runs"]
    for each, most in ((prod, 4), (test, 3)):
        mine = [run for run in runs if run["database"] == each.name]
        assert max(running_at(runs, each.name, run["started_s"]) for run in mine) <= most
        order = [run["channel"] for run in sorted(mine, key=lambda run: run["started_s"])][:40]
        assert abs(order.count("root.a") - 30) <= 3, order
    busy = [run for run in runs if run["database"] == test.name][5:35]
    assert sum(running_at(runs, prod.name, run["started_s"]) >= 2 for run in busy) >= 20


WRONG = [
    ("queue_job", "channels", "root:4,a:min=3,b:min=2", "minimums below it are 5 (root.a 3, root.b 2), 1 more than 4"),
    ("qjsupervisor", "db_capacity", "*:min=5", "entry '*': min is 5, 1 more than root has, which is 4"),
]


@pytest.mark.parametrize(("section", "key", "value", "said"), WRONG)
def test_minimums_that_do_not_fit_are_refused(
    postgres: ThrowawayPostgres, supervisor: SupervisorFactory, section: str, key: str, value: str, said: str
) -> None:
    """By a reload, which keeps the old ones, and by `check`; other wrong values: tests/unit/test_sizes.py."""
    running = supervisor(odoo_conf(postgres, 1))
    running.write_conf(odoo_conf(postgres, 1, sections={section: {key: value}}))
    reload, checked = running.run("reload"), running.run("check")
    assert (reload.returncode, checked.returncode) == (78, 78), (reload, checked)
    assert f"[{section}] {key}" in checked.stderr, checked.stderr
    assert said in checked.stderr, checked.stderr
    assert said in reload.stderr, reload.stderr


def test_a_reload_changes_all_of_it_while_jobs_run(
    postgres: ThrowawayPostgres, stand_in: StandInFactory, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """In place: the processes stay, what runs goes on and counts for what is configured now."""
    one, other, odoo = database(), database(), stand_in(workers=12)

    def conf(channels: str, **own: object) -> str:
        names = f"{one.name},{other.name}"
        return odoo_conf(postgres, odoo.port, db_name=names, channels=channels, sections={"qjsupervisor": own})

    def started(which: Database, channel: str) -> int:
        query = "SELECT count(*) FROM queue_job WHERE channel = %s AND state = 'started'"
        return int(which.execute(query, (channel,))[0][0])

    running = supervisor(conf("root:10,root.long:10,root.kept:10,root.paced:10,root.night:10"))
    running.wait_ready(one.name, other.name)
    one.insert_jobs(4, channel="root.long", kwargs={"sleep": LONG_S})
    wait_until(lambda: started(one, "root.long") == 4, "they run")
    pids = running.pids()
    channels = "root:10,root.long:10:weight=3,root.kept:10:min=2:reserve,root.paced:10:rate=2/1h,root.night:10"
    own = {"db_capacity": f"{one.name}:max=5,{other.name}:min=1", "schedule": "root.night: closed daily 00:00-24:00"}
    running.write_conf(conf(channels, **own))
    assert running.run("reload").returncode == 0
    one.insert_jobs(5, channel="root.long", kwargs={"sleep": LONG_S})
    other.insert_jobs(1, channel="root.night")
    other.insert_jobs(3, channel="root.paced")
    wait_until(lambda: other.states().get("done") == 2, "as many as the rate lets through")
    other.insert_jobs(5, channel="root.long", kwargs={"sleep": LONG_S})
    wait_until(lambda: (started(one, "root.long"), started(other, "root.long")) == (5, 3), "one more, and three")
    other.insert_jobs(2, channel="root.kept", kwargs={"sleep": LONG_S})
    wait_until(lambda: started(other, "root.kept") == 2, "their permits were kept")
    assert running.pids() == pids
    done = running.run("jobs", other.name, "--state", "pending", "--json")
    reasons = {job["channel"]: job["why"] for job in json.loads(done.stdout)["jobs"]}
    assert reasons["root.paced"].startswith("rate of root.paced: 2 of 2 in this hour, next in "), reasons
    assert reasons["root.night"].startswith("channel root.night is closed, by schedule"), reasons
    assert (one.states(), other.states()) == (
        {"started": 5, "pending": 4},
        {"started": 5, "pending": 4, "done": 2},
    )
    stats = odoo.stats()
    assert stats["peak"]["root"] <= 10
    assert stats["peak"]["root.long"] <= 8
    assert stats["peak_by_database"][one.name]["root"] <= 5
    assert {number for each in stats["executions"].values() for number in each.values()} == {1}


def test_an_operator_s_word_on_modules_holds_over_a_restart(
    postgres: ThrowawayPostgres,
    odoo: StandIn,
    database: DatabaseFactory,
    supervisor: SupervisorFactory,
    tmp_path: Path,
) -> None:
    one = database()
    upgrade = "UPDATE ir_module_module SET state = %s WHERE name = 'queue_job'"
    own = {"state_dir": tmp_path / "state", "reconcile_interval": 1}
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections={"qjsupervisor": own}))
    running.wait_ready(one.name)
    one.execute(upgrade, ("to upgrade",))
    one.insert_jobs(1)
    wait_until(lambda: (running.database_status(one.name) or {})["state"] == "blocked", "the gate closes")
    assert running.run("resume", one.name, "--anyway").returncode == 0
    one.wait_for_states(done=1)
    assert running.stop() == 0
    running.start()
    running.wait_ready(one.name)
    one.insert_jobs(1)
    one.wait_for_states(done=2)
    one.execute(upgrade, ("installed",))
    wait_until(lambda: (running.database_status(one.name) or {})["modules"] is None, "its end")
    one.execute(upgrade, ("to upgrade",))
    one.insert_jobs(1)
    wait_until(lambda: (running.database_status(one.name) or {})["state"] == "blocked", "the next one is another")
    assert one.states() == {"done": 2, "pending": 1}
