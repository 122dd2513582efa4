"""`cluster init` and `cluster status` against a real PostgreSQL; supervisors of a cluster: tests/acceptance."""

from __future__ import annotations

import json

from qjsupervisor.broker.coordinator import GRANTS, INIT, Coordinator
from qjsupervisor.broker.ledger import FORMAT, Statement
from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory
from .commands import Run

NO_CLUSTER, UNFIT = 78, 70


def test_init_then_status(run: Run, database: DatabaseFactory) -> None:
    one = database(schema=None)
    own = {"cluster": "c", "cluster_database": one.name}
    status, _, err = run("cluster", "status", own=own)
    assert status != 0
    assert "run `qjsupervisor cluster init`" in err
    for _ in range(2):
        assert run("cluster", "init", own=own) == (0, f"{one.name}: the schema qjsupervisor is there\n", "")
    status, out, _ = run("cluster", "status", "--json", own=own)
    assert (status, json.loads(out)["members"]) == (1, [])
    coordinator = Coordinator(one.dsn(), "c", lambda: None)
    coordinator.connect()
    coordinator.execute(Statement("m", 1, kind="register", capacity={"root": 4}, host="machine", pid=7))
    coordinator.execute(Statement("m", 1, takes=[(("root",), 3)], hungry=["root"], weight={"root": 1}))
    coordinator.close()
    status, out, _ = run("cluster", "status", "--json", own=own)
    (member,) = json.loads(out)["members"]
    assert (status, member["host"], member["alive"], member["leases"]) == (0, "machine", True, {"root": 3})
    status, out, _ = run("cluster", "status", own=own)
    assert status == 0
    assert "machine:7" in out
    assert "root 3" in out


def test_a_lost_member_can_be_forgotten(run: Run, database: DatabaseFactory) -> None:
    """One whose floor is kept, as nobody took over its databases."""
    one = database(schema=None)
    own = {"cluster": "c", "cluster_database": one.name}
    run("cluster", "init", own=own)
    coordinator = Coordinator(one.dsn(), "c", lambda: None)
    coordinator.connect()
    coordinator.execute(Statement("m", 1, kind="register", capacity={"root": 4}, host="machine", pid=7))
    said = Statement("m", 1, hungry=["root"], weight={"root": 1}, floor={"root": 2}, settles={"db": 1})
    said.takes.append((("root",), 3))
    coordinator.execute(said)
    coordinator.close()
    status, _, err = run("cluster", "forget", "machine:8", own=own)
    assert (status, "no member machine:8; there are: machine:7" in err) == (UNFIT, True)
    status, _, err = run("cluster", "forget", "machine:7", own=own)
    assert (status, "machine:7 is alive: stop it" in err) == (UNFIT, True)
    one.execute("UPDATE qjsupervisor.ledger SET document = jsonb_set(document, '{members,m,expires_s}', '0')")
    assert run("cluster", "forget", "machine:7", own=own) == (
        0,
        "cluster c: machine:7 is forgotten; free now: root 3\n",
        "",
    )
    _, out, _ = run("cluster", "status", "--json", own=own)
    assert json.loads(out)["members"] == []


def test_init_brings_an_older_ledger_up_to_date(run: Run, database: DatabaseFactory) -> None:
    one = database(schema=None)
    own = {"cluster": "c", "cluster_database": one.name}
    run("cluster", "init", own=own)
    one.execute("""INSERT INTO qjsupervisor.ledger VALUES ('c', 1, now(), '{"members": {}, "incarnation": "x"}')""")
    status, _, err = run("cluster", "status", own=own)
    assert (status, "run `qjsupervisor cluster init`" in err) == (UNFIT, True)
    _, out, _ = run("check", "--json", own=own, db_name=one.name)
    texts = [each["text"] for each in json.loads(out)["findings"]]
    assert any(f"{one.name}: the ledger of cluster 'c': its format is older than 1" in text for text in texts)
    for _ in range(2):
        assert run("cluster", "init", own=own)[0] == 0
        assert one.execute("SELECT document FROM qjsupervisor.ledger") == [
            ({"members": {}, "incarnation": "x", "format": FORMAT},)
        ]
    one.execute("UPDATE qjsupervisor.ledger SET document = jsonb_set(document, '{format}', '99')")
    status, _, err = run("cluster", "init", own=own)
    assert (status, "its format is 99, of a newer version" in err) == (UNFIT, True)


def test_the_sql_can_be_had_for_somebody_with_the_privileges(run: Run, database: DatabaseFactory) -> None:
    one = database(schema=None)
    status, out, _ = run("cluster", "init", "--print", own={"cluster": "c", "cluster_database": one.name})
    assert status == 0
    one.execute(out)
    assert one.execute("SELECT count(*) FROM qjsupervisor.ledger") == [(0,)]
    assert "GRANT SELECT, INSERT, UPDATE" in out


def test_without_a_cluster_there_is_none_to_show(run: Run) -> None:
    status, _, err = run("cluster", "status")
    assert status == NO_CLUSTER
    assert "cluster is not set" in err


def test_check_says_what_a_member_would_lack(run: Run, database: DatabaseFactory, postgres: ThrowawayPostgres) -> None:
    one = database(schema=None)
    own = {"cluster": "c", "cluster_database": one.name}

    def about_cluster() -> list[str]:
        _, out, _ = run("check", "--json", own=own, db_name=one.name)
        return [each["text"] for each in json.loads(out)["findings"] if each["text"].startswith("cluster c")]

    assert "run `qjsupervisor cluster init`" in about_cluster()[0]
    postgres.execute(one.name, INIT, superuser=True)
    assert "lacks USAGE on the schema" in about_cluster()[0]
    postgres.execute(one.name, "GRANT USAGE ON SCHEMA qjsupervisor TO odoo", superuser=True)
    assert "lacks SELECT, INSERT, UPDATE on qjsupervisor.ledger" in about_cluster()[0]
    postgres.execute(one.name, GRANTS.format(role="odoo"), superuser=True)
    assert "0 supervisors share its capacity" in about_cluster()[0]
    postgres.execute("postgres", f"ALTER DATABASE {one.name} SET default_transaction_read_only = on", superuser=True)
    assert "the server is read-only" in about_cluster()[0]
