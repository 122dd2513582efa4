"""The coordinator's row in a real PostgreSQL: several sessions, and what happens between a read and its write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from qjsupervisor.broker.coordinator import GRANTS, INIT, READ_FOR_STATUS, Coordinator
from qjsupervisor.broker.ledger import Ledger, Statement
from qjsupervisor.errors import DatabaseUnavailable, DatabaseUnfit
from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory
from ..helpers import Database, wait_until

Make = Callable[..., Coordinator]


@pytest.fixture
def one(database: DatabaseFactory) -> Database:
    made = database(schema=None)
    made.execute(INIT)
    return made


@pytest.fixture
def make(one: Database) -> Iterator[Make]:
    made: list[Coordinator] = []

    def coordinator(cluster: str = "c") -> Coordinator:
        made.append(Coordinator(one.dsn(), cluster, lambda: None))
        return made[-1]

    yield coordinator
    for each in made:
        each.close()


def register(member: str, root: int = 4) -> Statement:
    return Statement(member, 1, kind="register", capacity={"root": root}, host=member, pid=1)


def takes(member: str, n: int) -> Statement:
    return Statement(member, 1, takes=[(("root",), n)], hungry=["root"], weight={"root": 1})


def test_without_its_schema_it_says_what_to_do(database: DatabaseFactory) -> None:
    bare = database(schema=None)
    coordinator = Coordinator(bare.dsn(), "c", lambda: None)
    with pytest.raises(DatabaseUnfit, match="run `qjsupervisor cluster init`"):
        coordinator.connect()
    assert not coordinator.connected


def test_the_schema_can_be_made_again_and_granted(one: Database) -> None:
    one.execute(INIT)
    one.execute(GRANTS.format(role="odoo"))


def test_members_share_what_there_is(make: Make, one: Database) -> None:
    first, second = make(), make()
    for coordinator, name in ((first, "m1"), (second, "m2")):
        coordinator.connect()
        assert coordinator.execute(register(name)).ok
    assert first.execute(takes("m1", 3)).got == {"root": 3}
    assert second.execute(takes("m2", 3)).got == {"root": 1}
    ((document, now_s),) = one.execute(READ_FOR_STATUS, {"cluster": "c"})
    ledger = Ledger.from_json(document)
    assert {name: entry.lease for name, entry in ledger.members.items()} == {"m1": {"root": 3}, "m2": {"root": 1}}
    assert second.ledger == ledger
    assert abs(now_s - second.clock_s) < 60


def test_clusters_of_one_database_know_nothing_of_each_other(make: Make) -> None:
    first, other = make("c"), make("d")
    for coordinator in (first, other):
        coordinator.connect()
        coordinator.execute(register("m"))
        assert coordinator.execute(takes("m", 4)).got == {"root": 4}


def test_who_is_not_registered_changes_nothing(make: Make) -> None:
    coordinator = make()
    coordinator.connect()
    assert not coordinator.execute(takes("stranger", 1)).ok
    assert coordinator.ledger.members == {}


def test_a_write_that_another_one_came_before_is_computed_anew(make: Make, one: Database) -> None:
    """The version moves between its read and its write, once."""
    coordinator = make()
    coordinator.connect()
    one.execute(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NOT EXISTS (SELECT FROM pg_class WHERE relname = 'meddled') THEN"
        "   CREATE TABLE meddled (); RETURN NULL; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER meddle BEFORE UPDATE ON qjsupervisor.ledger FOR EACH ROW EXECUTE FUNCTION meddle()"
    )
    assert coordinator.execute(register("m")).ok
    assert one.execute("SELECT count(*) FROM pg_class WHERE relname = 'meddled'") == [(1,)], "one was refused"


def test_writes_that_never_get_through_end_the_session(make: Make, one: Database) -> None:
    coordinator = make()
    coordinator.connect()
    one.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER refuse BEFORE UPDATE ON qjsupervisor.ledger FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(DatabaseUnavailable, match="met another one"):
        coordinator.execute(register("m"))
    assert not coordinator.connected


def test_a_row_that_is_gone_is_told(make: Make, one: Database) -> None:
    coordinator = make()
    coordinator.connect()
    one.execute("DELETE FROM qjsupervisor.ledger")
    with pytest.raises(DatabaseUnavailable, match="is gone"):
        coordinator.execute(register("m"))


def test_the_others_are_notified_and_one_does_not_hear_itself(make: Make, one: Database) -> None:
    first, second = make(), make()
    for coordinator, name in ((first, "m1"), (second, "m2")):
        coordinator.connect()
        coordinator.execute(register(name))
    first.execute(takes("m1", 4))
    first.heard("m1")
    wait_until(lambda: second.heard("m2"), "what the first one took")
    second.execute(takes("m2", 1))
    wait_until(lambda: first.heard("m1"), "the one that holds what the other lacks hears it")
    assert not second.heard("m2")
    one.execute("SELECT pg_notify('qjsupervisor_cluster', 'other m1')")
    one.execute("SELECT pg_notify('qjsupervisor_cluster', 'c m9')")
    wait_until(lambda: second.heard("m2"), "its own cluster's")


def test_a_commit_is_on_disk_whatever_the_role_says(make: Make, one: Database) -> None:
    one.execute("ALTER ROLE odoo SET synchronous_commit = off")
    try:
        coordinator = make()
        coordinator.connect()
        coordinator.execute(register("m"))
        sessions = one.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert len(sessions) == 1
        one.execute(
            "CREATE TABLE seen (word text); CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$;"
            "CREATE TRIGGER see BEFORE UPDATE ON qjsupervisor.ledger FOR EACH ROW EXECUTE FUNCTION see()"
        )
        coordinator.execute(takes("m", 1))
        assert one.execute("SELECT DISTINCT word FROM seen") == [("on",)]
    finally:
        one.execute("ALTER ROLE odoo RESET synchronous_commit")


def test_the_document_is_json(make: Make, one: Database) -> None:
    coordinator = make()
    coordinator.connect()
    coordinator.execute(register("m"))
    ((text,),) = one.execute("SELECT document::text FROM qjsupervisor.ledger")
    assert Ledger.from_json(json.loads(text)) == coordinator.ledger


def test_supervisors_of_another_version_do_not_share_a_ledger(one: Database, make: Make) -> None:
    old = make()
    old.connect()
    old.execute(register("m"))
    before = old.execute(takes("m", 3))
    assert before.got == {"root": 3}
    one.execute("UPDATE qjsupervisor.ledger SET document = jsonb_set(document, '{format}', '99')")
    with pytest.raises(DatabaseUnfit, match="cluster 'c': its format is 99, of a newer version"):
        old.execute(takes("m", 1))
    one.execute(INIT)
    with pytest.raises(DatabaseUnfit, match="99"):  # never back to an older one
        old.execute(takes("m", 1))
    one.execute("UPDATE qjsupervisor.ledger SET document = document - 'format'")
    with pytest.raises(DatabaseUnfit, match="run `qjsupervisor cluster init`"):
        old.execute(takes("m", 1))
    for _ in range(2):
        one.execute(INIT)
        assert old.execute(Statement("m", 1)).ok
        assert old.ledger.members["m"].lease == {"root": 3}


def test_what_an_operator_has_to_mend_is_told(one: Database, make: Make, postgres: ThrowawayPostgres) -> None:
    coordinator = make()
    coordinator.connect()
    postgres.execute(one.name, "ALTER SCHEMA qjsupervisor RENAME TO elsewhere", superuser=True)
    with pytest.raises(DatabaseUnfit, match="run `qjsupervisor cluster init`"):
        coordinator.execute(register("a"))
    postgres.execute(one.name, "ALTER SCHEMA elsewhere RENAME TO qjsupervisor", superuser=True)
    postgres.execute(one.name, "ALTER TABLE qjsupervisor.ledger OWNER TO postgres", superuser=True)
    with pytest.raises(DatabaseUnfit, match="cluster init --print"):
        make().connect()
    postgres.execute(one.name, GRANTS.format(role="odoo"), superuser=True)
    postgres.execute("postgres", f"ALTER DATABASE {one.name} SET default_transaction_read_only = on", superuser=True)
    with pytest.raises(DatabaseUnfit, match="is read-only"):
        make().connect()
