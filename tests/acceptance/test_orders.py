"""The commands that talk to a running supervisor."""

from __future__ import annotations

import json
from pathlib import Path

from qjsupervisor.demo.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Supervisor, odoo_conf, wait_until


def conf(postgres: ThrowawayPostgres, name: str, **options: object) -> str:
    """Port 1: nobody answers there, so that jobs wait."""
    return odoo_conf(postgres, 1, db_name=name, channels="root:4,root.slow:1", sections={"qjsupervisor": options})


def why(supervisor: Supervisor, database: str) -> dict[str, list[str]]:
    done = supervisor.run("jobs", database, "--json")
    assert done.returncode == 0, done.stderr
    return {job["uuid"]: [reason["code"] for reason in job["reasons"]] for job in json.loads(done.stdout)["jobs"]}


def test_pause_and_resume(
    postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    done = running.run("pause", f"{one.name}:slow", "--for", "30m")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"paused for 30 min: channel root.slow of {one.name}" in done.stdout
    (uuid,) = one.insert_jobs(1, channel="root.slow")
    (pause,) = running.status()["pauses"]
    assert (pause["database"], pause["channel"]) == (one.name, "root.slow")
    assert 1700 < pause["remaining_s"] <= 1800
    assert "paused" in why(running, one.name)[uuid]
    assert running.run("resume", f"{one.name}:slow").returncode == 0
    assert running.status()["pauses"] == []
    assert "paused" not in why(running, one.name)[uuid]


def test_what_the_supervisor_refuses(
    postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    for arguments, said in (
        (("pause", "no_such"), "is not served"),
        (("resume", one.name), "is not paused"),
    ):
        done = running.run(*arguments)
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_reload(postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory) -> None:
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    running.write_conf(conf(postgres, one.name, max_databases=7, log_level="debug"))
    done = running.run("reload")
    assert done.returncode == 0
    assert "configuration read again" in done.stdout
    assert "max_databases: takes effect at the next start only" in done.stdout
    running.write_conf(conf(postgres, one.name, log_level="loud"))
    done = running.run("reload")
    assert done.returncode == 78, "the command reads the same file"
    assert "log_level" in done.stderr


def test_status_for_people(
    postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    done = running.run("status")
    assert done.returncode == 0
    for text in (one.name, "ready", "root.slow", "http://127.0.0.1:1"):
        assert text in done.stdout


def test_target_down(postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory) -> None:
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    (uuid,) = one.insert_jobs(1)
    wait_until(lambda: "target down" in why(running, one.name)[uuid], "the job waits for its target")


def test_stop(
    postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory, tmp_path: Path
) -> None:
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    done = running.run("stop")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"stopped (was process {running.pid})" in done.stdout
    assert running.wait() == 0
    assert running.run("stop").returncode == 69
