"""What `check` says of a cluster's members; against a real PostgreSQL: tests/integration/test_cluster.py."""

from __future__ import annotations

from qjsupervisor.broker.ledger import Ledger, MemberEntry
from qjsupervisor.commands.check_cluster import about_members
from qjsupervisor.config.load import load

CONFIG = load(
    {},
    {
        "ODOO_RC": "/dev/null",
        "ODOO_QUEUE_JOB_CHANNELS": "root:4,root.x:2",
        "QJSUPERVISOR_CLUSTER": "c",
        "QJSUPERVISOR_COORDINATION_FLOOR": "3",
    },
)


def said(**members: MemberEntry) -> list[str]:
    return [each.text for each in about_members(CONFIG, Ledger(members=members), "cluster c")]


def test_agreement_is_only_noted() -> None:
    (line,) = said(a=MemberEntry(valid=True, capacity={"root": 4, "root.x": 2}, host="h", pid=1))
    assert line == "cluster c: 1 supervisors share its capacity now"


def test_other_capacities_and_floors_are_told() -> None:
    lines = said(
        a=MemberEntry(valid=True, capacity={"root": 5, "root.x": 2}, floor={"root": 2}, host="h", pid=1),
        b=MemberEntry(valid=False, capacity={"root": 9}, host="h", pid=2),
    )
    assert "channel root has 4 here, h:1 has 5: the smallest holds" in lines[1]
    assert "coordination_floor of root is 3 here, supervisors have 2 of 4 now" in lines[2]
    assert len(lines) == 3
