"""Administrators' work on a database: `release`, and databases that are dropped and made again."""

from __future__ import annotations

import time

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn
from qjsupervisor.worker.comeback import AWAY_S

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Supervisor, odoo_conf, wait_until

QUICK: dict[str, dict[str, object]] = {"qjsupervisor": {"rescan_interval": 0.5}}


def sessions(postgres: ThrowawayPostgres, name: str) -> int:
    """Of ours, in one database."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'qjsupervisor%%'"
    return int(postgres.execute("postgres", count, (name,), superuser=True)[0][0])


def state(supervisor: Supervisor, name: str) -> str:
    return str((supervisor.database_status(name) or {}).get("state"))


def test_a_released_database_is_left_alone_until_it_is_resumed(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one, other = database(), database()
    names = f"{one.name},{other.name}"
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=names, channels="root:1", sections=QUICK))
    running.wait_ready(one.name, other.name)
    pids = running.pids()
    one.insert_jobs(1, kwargs={"sleep": 12})
    one.wait_for_states(started=1)
    other.insert_jobs(1)
    assert running.run("release", one.name).returncode == 0
    wait_until(lambda: sessions(postgres, one.name) == 0, "the connection is closed")
    wait_until(lambda: state(running, one.name) == "blocked", "status says so")
    shown = running.database_status(one.name)
    assert shown is not None
    assert "released by order" in shown["last_error"]
    (pause,) = running.status()["pauses"]
    assert (pause["database"], pause["released"], pause["remaining_s"]) == (one.name, True, None)
    assert odoo.stats()["running"].get("root") == 1
    assert other.states() == {"pending": 1}, "what runs in Odoo counts"
    other.wait_for_states(done=1, timeout_s=15)
    one.insert_jobs(1)
    one.connection.close()
    until_s = time.monotonic() + 2
    wait_until(lambda: time.monotonic() > until_s or sessions(postgres, one.name), "some scans later")
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    postgres.execute("postgres", end, (one.name,), superuser=True)  # Odoo's
    copy = f"{one.name}_copy"
    postgres.execute("postgres", f'CREATE DATABASE "{copy}" TEMPLATE "{one.name}"', superuser=True)
    postgres.drop_database(copy)
    one.reconnect()
    assert one.states() == {"done": 1, "pending": 1}
    assert running.run("resume", one.name).returncode == 0
    one.wait_for_states(done=2, timeout_s=5)
    assert running.pids() == pids
    assert set(odoo.stats()["executions"][one.name].values()) == {1}
    assert odoo.stats()["peak"]["root"] == 1


def test_a_release_ends_by_itself(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections=QUICK))
    running.wait_ready(one.name)
    assert running.run("release", one.name, "--for", "2s").returncode == 0
    wait_until(lambda: state(running, one.name) == "blocked", "it is released")
    running.wait_ready(one.name, timeout_s=5)
    assert running.run("release", "nowhere").returncode != 0


def test_a_database_that_is_made_again_is_served_at_once_each_time(
    postgres: ThrowawayPostgres,
    odoo: StandIn,
    database: DatabaseFactory,
    template: str,
    supervisor: SupervisorFactory,
) -> None:
    """To be gone is no failure: no pause that grows, as after a crash."""
    one = database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections=QUICK))
    for _ in range(3):
        running.wait_ready(one.name, timeout_s=6)
        one.insert_jobs(1)
        one.wait_for_states(done=1)
        mark = running.mark()
        one.connection.close()
        postgres.drop_database(one.name)
        running.wait_for("worker_reaped", after=mark, database=one.name)
        postgres.create_database(one.name, template)
        one.reconnect()
    running.wait_ready(one.name, timeout_s=6)
    shown = running.database_status(one.name)
    assert shown is not None
    assert shown["restarts"] == 0


def test_who_ends_our_session_can_rename_and_copy_though_scans_go_on(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Each look of a scan was a session, and what was renamed was served under its new name half a second later."""
    one = database()
    pattern = {"qjsupervisor": {"rescan_interval": 0.5, "databases_include": f"{one.name}*"}}
    running = supervisor(odoo_conf(postgres, odoo.port, sections=pattern))
    running.wait_ready(one.name)
    one.connection.close()
    moved = f"{one.name}_moved"

    def run(statement: str) -> float:
        begun_s = time.monotonic()
        postgres.execute("postgres", statement, superuser=True)
        return time.monotonic() - begun_s

    def connections() -> int:
        """To both, ever."""
        count = "SELECT sum(sessions) FROM pg_stat_database WHERE datname IN (%s, %s)"
        return int(postgres.execute("postgres", count, (one.name, moved), superuser=True)[0][0] or 0)

    def settled() -> int:
        """When the sessions that ended are counted: statistics come late."""
        before, until_s = connections(), time.monotonic() + 1.2
        wait_until(lambda: time.monotonic() > until_s, "the worker's own look, and the statistics of it", 2)
        return max(before, connections())

    for source, target in ((one.name, moved), (moved, one.name)):
        running.wait_ready(source, timeout_s=20)
        run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{source}'")
        ended_s, before = time.monotonic(), settled()
        assert run(f'ALTER DATABASE "{source}" RENAME TO "{target}"') < 1
        wait_until(lambda ended_s=ended_s: time.monotonic() > ended_s + 4, "the administrator looks at his work", 5)
        assert connections() == before
        assert run(f'CREATE DATABASE "{target}_copy" TEMPLATE "{target}"') < 3
        assert time.monotonic() < ended_s + AWAY_S + 2
        postgres.drop_database(f"{target}_copy")
    one.reconnect()
    one.insert_jobs(1)
    one.wait_for_states(done=1, timeout_s=15)
