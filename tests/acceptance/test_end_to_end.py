"""The whole way: an odoo.conf, three databases, their jobs, a stop, a restart, a kill."""

from __future__ import annotations

import signal
import time
from collections import Counter

import psutil
import pytest

from qjsupervisor.testing import schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until
from ..scripted import black_hole

CHANNELS = "root:6,root.slow:2"


def start(
    postgres: ThrowawayPostgres,
    port: int,
    supervisor: SupervisorFactory,
    *databases: Database,
    channels: str = CHANNELS,
) -> Supervisor:
    names = [database.name for database in databases]
    running = supervisor(odoo_conf(postgres, port, db_name=",".join(names), channels=channels))
    running.wait_ready(*names)
    return running


def put_mixed_work(database: Database) -> dict[str, int]:
    """145 jobs; how often each is to be run."""
    plain = database.insert_jobs(60, kwargs={"sleep": 0.02})
    plain += database.insert_jobs(20, kwargs={"sleep": 0.01}, channel=None)
    plain += database.insert_jobs(15, kwargs={"sleep": 0.02}, channel="root.unknown.sub", priority=3)
    plain += database.insert_jobs(20, kwargs={"sleep": 0.05}, channel="root.slow")
    plain += database.insert_jobs(10, eta_s=1)
    plain += database.insert_jobs(10, kwargs={"fail": True})
    retried = database.insert_jobs(10, kwargs={"retry": 1, "retry_s": 0.5})
    return {**dict.fromkeys(plain, 1), **dict.fromkeys(retried, 2)}


def test_mixed_jobs(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """435 jobs of three databases: each once, never more than 6 and 2 at a time, 6 really used."""
    databases = [database() for _ in range(3)]
    wanted = {each.name: put_mixed_work(each) for each in databases}
    running = start(postgres, odoo.port, supervisor, *databases)
    for each in databases:
        each.wait_for_states(done=135, failed=10, timeout_s=40)
    stats = odoo.stats()
    assert sum(len(uuids) for uuids in wanted.values()) == 435
    assert stats["executions"] == wanted
    assert stats["requests"] == wanted
    assert (stats["peak"]["root"], stats["peak"]["root.slow"]) == (6, 2)
    assert set(stats["addressed"]) == {"both"}
    assert running.stop() == 0
    assert [each.states() for each in databases] == [{"done": 135, "failed": 10}] * 3
    dispatched = Counter(entry["database"] for entry in running.log_events("job_dispatched", level="info"))
    assert dispatched == {each.name: 155 for each in databases}
    assert running.log_events(level="error") == []


def test_stop_in_the_midst_and_start_again(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """What runs in Odoo runs on, and is counted again: never over, also while two supervisors' jobs overlap."""
    one, other = database(), database()
    first = start(postgres, odoo.port, supervisor, one, other)
    for each in (one, other):
        each.insert_jobs(8, kwargs={"sleep": 1.5})
    wait_until(lambda: odoo.stats()["running"].get("root") == 6, "six jobs run")
    began_s = time.monotonic()
    assert first.stop() == 0
    assert time.monotonic() - began_s < 8, "graceful_timeout"
    states = Counter(one.states()) + Counter(other.states())
    assert states["pending"] == 10
    assert "enqueued" not in states
    second = start(postgres, odoo.port, supervisor, one, other)

    def agree() -> bool:
        status = second.status()
        return bool(sum(entry["running"] for entry in status["databases"]) == status["channels"][0]["running"])

    wait_until(agree, "the databases' running jobs are those of the channel")
    for each in (one, other):
        each.wait_for_states(done=8, timeout_s=30)
    stats = odoo.stats()
    assert stats["peak"]["root"] == 6
    assert {n for uuids in stats["executions"].values() for n in uuids.values()} == {1}
    assert len(first.log_events("job_dispatched")) == 6


def test_running_jobs_of_a_former_supervisor_are_counted(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Killed without a warning, and the capacity is half of what it was: nothing starts before there is room."""
    one, other = database(), database()
    first = start(postgres, odoo.port, supervisor, one, other)
    one.insert_jobs(4, kwargs={"sleep": 10})
    wait_until(lambda: odoo.stats()["running"].get("root") == 4, "four jobs run")
    first.kill()
    other.insert_jobs(3)
    second = start(postgres, odoo.port, supervisor, one, other, channels="root:2")
    assert second.status()["channels"][0]["running"] == 4
    assert other.states() == {"pending": 3}
    other.wait_for_states(done=3, timeout_s=30)
    runs = odoo.stats()["runs"]
    ended = sorted(run["finished_s"] or 0.0 for run in runs if run["database"] == one.name)
    begun = min(run["started_s"] for run in runs if run["database"] == other.name)
    assert begun > ended[2], "with three of four still running there was no room"
    one.wait_for_states(done=4)
    assert set(odoo.stats()["executions"][one.name].values()) == {1}


def test_stop_gives_back_what_nobody_was_asked_to_run(
    postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    with black_hole() as port:
        running = start(postgres, port, supervisor, one)
        one.insert_jobs(10)
        wait_until(lambda: "enqueued" in one.states(), "jobs that are claimed, and cannot be sent")
        assert running.stop() == 0
    assert one.states() == {"pending": 10}


def test_kill_of_the_master_leaves_nobody(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one, other = database(), database()
    running = start(postgres, odoo.port, supervisor, one, other)
    children = running.children()
    assert len(children) >= 2
    one.insert_jobs(2, kwargs={"sleep": 1})
    one.wait_for_states(started=2)
    running.kill()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    again = start(postgres, odoo.port, supervisor, one, other)
    one.insert_jobs(3)
    one.wait_for_states(done=5)
    assert set(odoo.stats()["executions"][one.name].values()) == {1}
    wait_until(lambda: again.status()["channels"][0]["running"] == 0, "all permits are back")


def test_second_start(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    running = start(postgres, odoo.port, supervisor, one)
    pids = running.pids()
    done = running.run("start")
    assert done.returncode == 73
    assert str(running.pid) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert running.pids() == pids
    one.insert_jobs(1)
    one.wait_for_states(done=1)


# -- databases that come and go ----------------------------------------------------------------------------


@pytest.fixture
def discovering(postgres: ThrowawayPostgres, odoo: StandIn, supervisor: SupervisorFactory) -> Supervisor:
    own = {"qjsupervisor": {"databases_include": "found_*", "rescan_interval": 3600}}
    return supervisor(odoo_conf(postgres, odoo.port, sections=own))


def test_discovery(discovering: Supervisor, database: DatabaseFactory, postgres: ThrowawayPostgres) -> None:
    """Created, dropped, installed later: within 5 s of HUP, and the others keep their processes."""
    running = discovering
    stays, without, hidden = database("found_stays"), database("found_without", schema=None), database("hidden")
    running.wait_for("master_ready")
    running.send_signal(signal.SIGHUP)
    running.wait_ready(stays.name)
    pid = running.pids()[stays.name]

    created = database("found_created")
    created.insert_jobs(3)
    running.send_signal(signal.SIGHUP)
    created.wait_for_states(done=3, timeout_s=5)

    schema.install(without.connection)
    without.insert_jobs(2)
    running.send_signal(signal.SIGHUP)
    without.wait_for_states(done=2, timeout_s=5)

    created.drop()
    schema.uninstall(without.connection)
    running.send_signal(signal.SIGHUP)
    wait_until(lambda: set(running.pids()) == {stays.name}, lambda: f"dropped ones disappear: {running.pids()}", 5)

    assert running.pids() == {stays.name: pid}
    assert hidden.name not in running.log_text()
    stays.insert_jobs(1)
    stays.wait_for_states(done=1)
    assert running.log_events(level="error") == []


# -- a configuration that changes ---------------------------------------------------------------------------


def test_reload(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A broken configuration changes nothing, a good one changes a capacity in place."""
    one, other = database(), database()
    running = start(postgres, odoo.port, supervisor, one, other, channels="root:1")
    pids = running.pids()
    names = f"{one.name},{other.name}"
    running.write_conf(odoo_conf(postgres, odoo.port, db_name=names, channels="root:many"))
    running.send_signal(signal.SIGHUP)
    refused = running.wait_for("configuration_rejected")
    assert "channels" in refused["reason"]
    assert str(running.conf) in refused["reason"]
    for each in (one, other):
        each.insert_jobs(12, kwargs={"sleep": 0.3})
    wait_until(lambda: sum(each.states().get("done", 0) for each in (one, other)) >= 2, "jobs go on")
    assert odoo.stats()["peak"]["root"] == 1
    running.write_conf(odoo_conf(postgres, odoo.port, db_name=names, channels="root:4,root.new:1"))
    running.send_signal(signal.SIGHUP)
    for each in (one, other):
        each.wait_for_states(done=12)
    assert odoo.stats()["peak"]["root"] == 4
    assert [channel["name"] for channel in running.status()["channels"]] == ["root", "root.new"]
    assert running.pids() == pids
    # And lowered again, under running jobs.
    one.insert_jobs(8, kwargs={"sleep": 0.5})
    wait_until(lambda: odoo.stats()["running"].get("root") == 4, "four jobs run")
    running.write_conf(odoo_conf(postgres, odoo.port, db_name=names, channels="root:2"))
    running.send_signal(signal.SIGHUP)
    wait_until(lambda: running.status()["channels"][0]["capacity"] == 2, "the capacity is lowered")
    wait_until(lambda: odoo.stats()["running"].get("root", 0) <= 2, "no more than two run")
    odoo.reset()
    one.insert_jobs(4, kwargs={"sleep": 0.3})
    one.wait_for_states(done=24)
    assert odoo.stats()["peak"]["root"] == 2
    assert running.pids() == pids


def test_reload_that_cannot_read_a_database(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Its running jobs go on, and so do their permits: nobody else may have them meanwhile."""
    one, other = database(), database()
    running = start(postgres, odoo.port, supervisor, one, other, channels="root:4")
    one.insert_jobs(4, kwargs={"sleep": 6})
    one.wait_for_states(started=4)
    postgres.execute(one.name, "REVOKE SELECT ON queue_job FROM odoo", superuser=True)
    names = f"{one.name},{other.name}"
    running.write_conf(odoo_conf(postgres, odoo.port, db_name=names, channels="root:4,root.new:1"))
    running.send_signal(signal.SIGHUP)
    running.wait_for("database_blocked", database=one.name)
    other.insert_jobs(2)
    wait_until(lambda: (running.database_status(other.name) or {})["pending"] == 2, "the jobs are known")
    assert running.status()["channels"][0]["running"] == 4
    assert other.states() == {"pending": 2}
    postgres.execute(one.name, "GRANT SELECT ON queue_job TO odoo", superuser=True)
    other.wait_for_states(done=2)
    assert odoo.stats()["peak"]["root"] == 4


BROKEN: dict[str, dict[str, dict[str, object]]] = {
    "a capacity that is no number": {"queue_job": {"channels": "root:many"}},
    "sequential with two": {"queue_job": {"channels": "root:4,root.a:2:sequential"}},
    "an unknown option of a channel": {"queue_job": {"channels": "root:4,root.a:1:fast"}},
    "a port that is none": {"queue_job": {"port": "http"}},
    "a negative limit": {"queue_job": {"channels": None, "max_capacity": "-1"}},
    "a key that does not exist": {"qjsupervisor": {"rescan_intervall": "5"}},
    "a value that is not among those allowed": {"qjsupervisor": {"fairness": "alphabetical"}},
    "a time that is none": {"qjsupervisor": {"graceful_timeout": "soon"}},
    "a host that is none": {"queue_job": {"host": "http://odoo"}},
    "a database port out of range": {"options": {"db_port": "70000"}},
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_configuration(what: str, postgres: ThrowawayPostgres, supervisor: SupervisorFactory) -> None:
    """One line that names file, section and key; no traceback, no process left."""
    ((section, option),) = [(name, key) for name, keys in BROKEN[what].items() for key in list(keys)[-1:]]
    running = supervisor(odoo_conf(postgres, 8069, db_name="x", sections=BROKEN[what]))
    assert running.wait() == 78
    (line,) = running.log_text().splitlines()
    assert all(part in line for part in (str(running.conf), f"[{section}]", option)), line
