"""Towards serving: who leads a database, who stands by, and when it is tried again."""

from __future__ import annotations

import time

import pytest

from qjsupervisor.states import Phase
from qjsupervisor.worker import comeback
from qjsupervisor.worker.leading import STANDBY_S

from .served import MakeRig, Rig


def test_who_stands_by_leads_as_soon_as_the_leader_lets_go(make_rig: MakeRig) -> None:
    first = make_rig()
    second = make_rig(first.one, serves=False)
    second.until(lambda: second.phase is Phase.STANDBY, "it stands by")
    assert "another runner holds the leader lock" in second.message
    second.go_on(0.1)
    first.order(do="stop")
    first.until(lambda: first.worker.progress.exit_code is not None, "the leader ends")
    began_s = time.monotonic()
    second.until(lambda: second.phase is Phase.SERVING, "the other one leads")
    assert time.monotonic() - began_s < STANDBY_S, "it was told, and did not only try again"
    uuids = second.one.insert_jobs(1)
    second.until(lambda: second.one.state(uuids[0]) == "enqueued", "it runs jobs")


def test_a_release_that_is_announced_with_the_answer_is_heard(make_rig: MakeRig) -> None:
    """The leader may let go just after the lock was refused: nothing else will arrive then."""
    first = make_rig()
    second = make_rig(first.one, serves=False)
    second.until(lambda: second.phase is Phase.STANDBY, "it stands by")
    second.go_on(0.1)
    second.one.execute("NOTIFY qjsupervisor")
    now_s = time.monotonic()
    second.worker.progress.next_step.ring()
    second.worker.step(now_s)
    assert second.phase is Phase.STANDBY
    assert second.worker.progress.next_step.at_s < now_s + STANDBY_S / 2


def test_permits_of_its_predecessor_are_nobody_s_where_another_runner_leads(make_rig: MakeRig) -> None:
    first = make_rig()
    second = make_rig(first.one, serves=False)
    second.table.core.add_held(0, 0, 2, 0)
    assert second.running == 2
    second.until(lambda: second.phase is Phase.STANDBY, "it stands by")
    assert second.running == 0
    assert not second.worker.progress.holds_unread


def test_an_administrator_who_ends_the_session_has_the_database_for_himself(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comeback, "AWAY_S", 1.5)
    rig.cut()
    rig.until(lambda: "left alone" in rig.message, "it was there to look, and left")
    assert not rig.worker.parts.database.connected
    assert rig.heard("away")[0]["for_s"] > 0
    rig.until(lambda: rig.phase is Phase.SERVING, "it comes back")
