"""The view of a cluster: its keys are an interface, and tokens are no permits."""

from __future__ import annotations

from qjsupervisor.broker.ledger import START, Ledger, MemberEntry
from qjsupervisor.broker.view import cluster_view


def ledger() -> Ledger:
    alive = MemberEntry(
        expires_s=110.04, valid=True, lease={"root": 2, "root.t" + START: 1}, excess={"root": 1}, host="b", pid=7,
        hungry=["root", "root.t" + START], serves=["db1", "db2"], capacity={"root": 4},
    )  # fmt: skip
    expired = MemberEntry(
        expires_s=90.0, valid=False, limbo={"root": 1}, limbo_over={"root": 2}, host="a", pid=9, capacity={"root": 3}
    )
    return Ledger(
        members={"m1": alive, "m2": expired},
        left={"db3": {"root": 1}},
        left_over={"db3": {"root": 1}, "db4": {"root.a": 2}},
        barrier_until_s=103.0,
    )


def test_members_are_in_order_of_host_and_tokens_are_left_out() -> None:
    view = cluster_view(ledger(), "c", 100.0, own="m1")
    assert (view["name"], view["barrier_s"], view["differs"]) == ("c", 3.0, {})
    dead, alive = view["members"]
    assert dead == {
        "host": "a", "pid": 9, "own": False, "alive": False, "lease_left_s": 0.0, "leases": {}, "excess": {},
        "limbo": {"root": 3}, "waits_in": [], "databases": 0, "floor": {}, "floor_lacks": {},
    }  # fmt: skip
    assert (alive["own"], alive["alive"], alive["lease_left_s"]) == (True, True, 10.0)
    assert (alive["leases"], alive["excess"], alive["waits_in"]) == ({"root": 2}, {"root": 1}, ["root"])
    assert alive["databases"] == 2


def test_what_waits_for_its_next_server_is_added_up() -> None:
    assert cluster_view(ledger(), "c", 100.0)["limbo"] == {"db3": {"root": 2}, "db4": {"root.a": 2}}


def test_a_barrier_that_is_over_is_no_negative_time() -> None:
    assert cluster_view(ledger(), "c", 200.0)["barrier_s"] == 0.0
    assert not any(member["alive"] for member in cluster_view(ledger(), "c", 200.0)["members"])
