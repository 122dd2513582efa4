"""Orders at the control socket: what each does, what is refused, and what is logged."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from qjsupervisor.errors import ProtocolError
from tests.unit.supervised import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_pauses_are_told_at_once_at_birth_and_at_their_end(rig: Rig) -> None:
    rig.scan(a="ready", b="ready")
    assert rig.order("pause", database="a", channel="slow", for_s=10)["warning"]
    assert rig.child("a").pipe.told == [{"do": "pauses", "pauses": {"root.slow": rig.now_s + 10}}]
    assert rig.child("b").pipe.told == []
    rig.reap("a", -9)
    rig.step(2)
    assert rig.child("a").pipe.told == [{"do": "pauses", "pauses": {"root.slow": 1010.0}}]
    assert rig.child("a").orders == rig.child("a").pipe.told, "before it could start anything"
    rig.step(8)
    assert rig.child("a").pipe.told[-1] == {"do": "pauses", "pauses": {}}


def test_resume_says_what_it_did_and_what_still_holds(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.order("pause")
    with pytest.raises(ProtocolError, match="wider pause: resume all databases:root instead"):
        rig.order("resume", database="a")
    rig.order("pause", database="a", channel="root")
    answer = rig.order("resume", database="a")
    assert answer["resumed"] == ["a:root"]
    assert answer["warning"] == "still paused by all databases:root"
    rig.order("resume")
    with pytest.raises(ProtocolError, match="is not paused"):
        rig.order("resume")


def test_orders_are_logged_with_who_gave_them(rig: Rig) -> None:
    rig.scan(a="ready")
    with capture_logs() as lines:
        rig.order("pause", database="a", for_s=10, by="anna (command line)")
        rig.order("note", order="requeue", database="a", jobs=3, by=["no name"])
        rig.order("status")
        with pytest.raises(ProtocolError):
            rig.order("resume", database="b", by="anna (command line)")
    who = {"client_uid": 1000, "client_pid": 4711}
    orders = [line for line in lines if str(line["event"]).startswith("order_")]
    assert [(line.pop("event"), line.pop("log_level")) for line in orders] == [
        ("order_accepted", "info"),
        ("order_accepted", "info"),
        ("order_refused", "warning"),
    ]
    assert "is not served" in str(orders[2].pop("reason"))
    assert orders == [
        {"order": "pause", "database": "a", "for_s": 10, "by": "anna (command line)", **who},
        {"order": "requeue", "database": "a", "jobs": 3, **who},
        {"order": "resume", "database": "b", "by": "anna (command line)", **who},
    ]


def test_a_paused_database_that_is_gone_can_be_resumed(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.order("pause", database="a")
    rig.scan()
    rig.reap("a", 0)
    assert rig.order("resume", database="a")["ok"]
    with pytest.raises(ProtocolError, match="not served"):
        rig.order("pause", database="a")
