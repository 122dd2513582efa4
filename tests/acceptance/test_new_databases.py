"""`new_databases = hold`, and copies of a database: real copies on a real server."""

from __future__ import annotations

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until

_UUID = "INSERT INTO ir_config_parameter (key, value) VALUES ('database.uuid', %s)"


def copy_of(original: Database, name: str) -> Database:
    """As `createdb --template` makes one."""
    original.connection.close()
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    original.postgres.execute("postgres", end, (original.name,), superuser=True)
    statement = f'CREATE DATABASE "{name}" TEMPLATE "{original.name}" OWNER {original.postgres.user}'
    original.postgres.execute("postgres", statement, superuser=True)
    original.reconnect()
    return Database(original.postgres, name)


def held(supervisor: Supervisor, name: str) -> str:
    view = wait_until(lambda: supervisor.database_status(name), f"{name} is seen")
    assert view is not None
    return str(view["last_error"]) if view["held"] else ""


def test_a_copy_of_production_waits_for_its_word(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    prod = database()
    prod.execute(_UUID, ("11111111-2222",))
    prod.insert_jobs(2, eta_s=3600)
    name = f"{prod.name}_copy"
    own = {"databases_include": f"{prod.name}*", "rescan_interval": 0.5, "new_databases": "hold"}
    running = supervisor(odoo_conf(postgres, odoo.port, sections={"qjsupervisor": own}))
    running.wait_ready(prod.name)
    copy = copy_of(prod, name)
    try:
        copy.execute("UPDATE queue_job SET eta = NULL")
        wait_until(lambda: held(running, name), "it waits")
        assert f"it has the database.uuid of {prod.name}: is it a copy?" in held(running, name)
        view = running.database_status(name)
        assert view is not None
        assert (view["state"], view["pid"]) == ("blocked", None)
        assert "held" in running.run("jobs", name, "--json").stdout
        check = running.run("check")
        assert f"Waiting now: {name}." in " ".join(check.stdout.split())
        running.kill()
        before = len(running.log_events("master_ready"))
        running.start()
        wait_until(lambda: len(running.log_events("master_ready")) > before, "started anew")
        wait_until(lambda: held(running, name), "it still waits")
        assert copy.states() == {"pending": 2}
        assert running.run("resume", name).returncode == 0
        copy.wait_for_states(done=2)
        assert running.stop() == 0
        running.start()
        running.wait_ready(prod.name, name)  # the word holds in the next life
        wait_until(lambda: running.status()["copies"] == [[prod.name, name]], "it is told")
        wait_until(lambda: len(running.log_events("databases_alike")) == 2, "once in each life")
        assert "have one database.uuid" in running.run("status").stdout.replace("\n", " ")
        copy.drop()
        wait_until(lambda: running.database_status(name) is None, "it is gone")
        copy = copy_of(prod, name)
        wait_until(lambda: held(running, name), "another one of the same name waits again")
    finally:
        copy.drop()


def test_one_that_is_made_anew_in_a_moment_is_not_served_by_the_worker_of_the_former_one(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    prod, test = database(), database()
    own = {"rescan_interval": 600, "new_databases": "hold"}
    names = f"{prod.name},{test.name}"
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=names, sections={"qjsupervisor": own}))
    running.wait_ready(prod.name, test.name)
    prod.insert_jobs(2, eta_s=3600)
    staged = copy_of(prod, f"{prod.name}_staged")
    staged.execute("UPDATE queue_job SET eta = NULL")
    staged.connection.close()
    test.connection.close()
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    old = f"{test.name}_old"
    for statement, params in ((f'ALTER DATABASE "{test.name}" RENAME TO "{old}"', (test.name,)),
                              (f'ALTER DATABASE "{staged.name}" RENAME TO "{test.name}"', (staged.name,))):  # fmt: skip
        postgres.execute("postgres", end, params, superuser=True)
        postgres.execute("postgres", statement, superuser=True)
    test.reconnect()
    try:
        wait_until(lambda: held(running, test.name), lambda: f"held: {running.database_status(test.name)}")
        assert "made anew" in held(running, test.name)
        assert test.states() == {"pending": 2}
    finally:
        postgres.drop_database(old)
