"""Jobs that are over though their requests are open."""

from __future__ import annotations

import time

import pytest

from qjsupervisor.worker import jobs

from .served import Rig


@pytest.mark.parametrize("state", ["done", "failed", "gone"])
def test_a_row_that_is_over_ends_its_job_though_no_answer_comes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Odoo's worker hangs after its commit: four such jobs held all permits for ever."""
    monkeypatch.setattr(jobs, "ANSWER_S", 0.2)
    monkeypatch.setattr(jobs, "OVER_S", 0.5)
    (uuid,) = rig.send(1)
    rig.set(uuid, "started")
    if state == "gone":
        rig.one.execute("DELETE FROM queue_job")
    else:
        rig.set(uuid, state)
    began_s = time.monotonic()
    rig.until(lambda: rig.running == 0, "it counts no longer")
    assert time.monotonic() - began_s > 0.5
    rig.until(lambda: rig.unanswered == 1, "it counts against the address")
    rig.answer()
    rig.send(1)
    rig.until(lambda: rig.unanswered == 0, "it answers again")


def test_a_job_that_runs_for_long_is_not_over(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often its row changes meanwhile."""
    monkeypatch.setattr(jobs, "ANSWER_S", 0.1)
    monkeypatch.setattr(jobs, "OVER_S", 0.2)
    (uuid,) = rig.send(1)
    for _ in range(3):
        rig.set(uuid, "started")
    rig.go_on(0.6)
    assert rig.running == 1
    assert rig.worker.parts.dispatcher.open == 1
