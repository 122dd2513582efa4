"""What `check` finds in databases, against a real PostgreSQL."""

from __future__ import annotations

from contextlib import closing

import pytest

from qjsupervisor.commands import check_databases
from qjsupervisor.postgres.lead_queries import LEADER_LOCK
from qjsupervisor.testing import schema as demo_schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.schema import Schema

from ..conftest import DatabaseFactory
from .checking import Check, entry


def test_reasons_of_databases(check: Check, database: DatabaseFactory) -> None:
    good, upgrade = database(), database()
    demo_schema.set_module_state(upgrade.connection, "to upgrade", "sale")
    without, no_trigger = database(schema=None), database(schema=Schema(trigger=False))
    names = f"{good.name},{upgrade.name},{without.name},{no_trigger.name},no_such_database"
    status, found = check(db_name=names)
    assert status == 1
    assert entry(found, good.name)["outcome"] == "would run"
    assert "module sale is 'to upgrade'" in entry(found, upgrade.name)["reason"]
    assert entry(found, without.name)["problem"] is False
    assert "trigger" in entry(found, no_trigger.name)["reason"]
    missing = entry(found, "no_such_database")
    assert "does not exist" in missing["reason"]
    assert missing["problem"] is True


def test_copies_and_modules_that_matter(check: Check, database: DatabaseFactory) -> None:
    """Two databases of one uuid, one with server_environment: warned of; where values come from is shown."""
    one, two = database(), database()
    for each in (one, two):
        each.execute("CREATE TABLE IF NOT EXISTS ir_config_parameter (key varchar, value text)")
        each.execute("INSERT INTO ir_config_parameter (key, value) VALUES ('database.uuid', 'u')")
    two.execute("INSERT INTO ir_module_module (name, state) VALUES ('server_environment', 'installed')")
    status, found = check(db_name=f"{one.name},{two.name}")
    texts = [each["text"] for each in found["findings"]]
    assert any("have one database.uuid" in text and one.name in text and two.name in text for text in texts)
    assert not any("server_environment" in text for text in entry(found, one.name)["warnings"])
    assert any("server_environment" in text for text in entry(found, two.name)["warnings"])
    assert status == 0
    origins = {origin["name"]: origin for origin in found["configuration"]["origins"]}
    assert origins["jobrunner_db_user"]["place"].endswith("[options] db_user")
    assert origins["jobrunner_db_password"]["text"] is None
    assert origins["window"]["place"] == "default"


def test_older_queue_job_is_a_warning(check: Check, database: DatabaseFactory) -> None:
    one = database(schema=Schema(lock_table=False, channel_settings=False, dependencies=False))
    status, found = check(db_name=one.name)
    assert status == 0
    assert "queue_job_lock" in entry(found, one.name)["warnings"][0]


@pytest.mark.parametrize(
    ("application", "outcome", "status"),
    [("jobrunner", "standby", 1), ("qjsupervisor", "would run", 0)],
)
def test_leader_lock(
    check: Check, database: DatabaseFactory, postgres: ThrowawayPostgres, application: str, outcome: str, status: int
) -> None:
    one = database()
    with closing(postgres.connect(one.name)) as other, other.cursor() as cursor:
        cursor.execute("SET application_name = %s", (application,))
        cursor.execute("SELECT pg_advisory_lock(%s)", (LEADER_LOCK,))
        exit_status, found = check(db_name=one.name)
    assert exit_status == status
    assert entry(found, one.name)["outcome"] == outcome
    assert application in entry(found, one.name)["reason"]


def test_pooler_in_transaction_mode(check: Check, database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    one = database()
    monkeypatch.setattr(check_databases, "changes_backend", lambda *_: True)
    status, found = check(db_name=one.name)
    assert status == 1
    assert entry(found, one.name)["outcome"] == "blocked"
    assert "transaction mode" in entry(found, one.name)["reason"]


def test_per_database_trees(check: Check, database: DatabaseFactory) -> None:
    good, bad = database(), database()
    demo_schema.set_channel(good.connection, "root.slow", capacity=2)
    demo_schema.set_channel(bad.connection, "root.slow", capacity=2, sequential=True)
    per_database = {"queue_job": {"max_capacity": 5, "db_max_capacity": "*:3"}}
    status, found = check(db_name=f"{good.name},{bad.name}", channels=None, sections=per_database)
    assert status == 1
    channels = {spec["name"]: spec["capacity"] for spec in entry(found, good.name)["channels"]}
    assert channels == {"root": 3, "root.slow": 2}
    assert "sequential" in entry(found, bad.name)["reason"]


def test_which_channels_hold_and_why(check: Check, database: DatabaseFactory) -> None:
    """Neither key is set: a database with channel settings has its own tree; with `channels` they are passed over."""
    new, old = database(), database(schema=Schema(channel_settings=False))
    demo_schema.set_channel(new.connection, "root.mail", capacity=2, paused=True)
    demo_schema.set_channel(new.connection, "root.plain")
    names = f"{new.name},{old.name}"
    _, found = check(db_name=names, channels=None)
    channels = {spec["name"]: (spec["capacity"], spec["paused"]) for spec in entry(found, new.name)["channels"]}
    assert channels == {"root": (1, False), "root.mail": (2, True), "root.plain": (None, False)}
    assert entry(found, old.name)["channels"] == []
    assert found["configuration"]["mode"] == "default"
    (why,) = [each["text"] for each in found["findings"] if each["text"].startswith("mode ")]
    assert "one job runs at once over all" in why
    assert "1 of 2 have channels of their own" in why
    _, found = check(db_name=names, channels="root:4")
    (warning,) = entry(found, new.name)["warnings"]
    assert "root.mail (capacity 2, paused)" in warning
    assert "root.plain" not in warning, "nothing is set there"
    assert "`channels` is set" in warning
    assert not any("channel settings" in each for each in entry(found, old.name)["warnings"])
    demo_schema.set_channel(new.connection, "root.mail", capacity=2, sequential=True)
    _, found = check(db_name=names, channels="root:4")
    assert entry(found, new.name)["outcome"] == "would run", "a tree that is passed over may be invalid"
