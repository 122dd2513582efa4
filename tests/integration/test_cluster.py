"""`cluster init` and `cluster status` against a real PostgreSQL; supervisors of a cluster: tests/acceptance."""

from __future__ import annotations

import json

from qjsupervisor.broker.coordinator import Coordinator
from qjsupervisor.broker.ledger import Statement

from ..conftest import DatabaseFactory
from .commands import Run

NO_CLUSTER = 78


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
