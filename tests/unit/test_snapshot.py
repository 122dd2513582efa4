"""What the master knows of one worker, at one moment."""

from __future__ import annotations

from qjsupervisor.master.snapshot import view_of
from qjsupervisor.states import WorkerState
from tests.unit.supervised import Rig


def test_a_worker_that_runs_and_one_that_died() -> None:
    rig = Rig()
    rig.scan(a="ready", b="ready")
    worker = rig.fleet.workers["a"]
    worker.report.overdue = 2
    worker.report.modules.note({"sale": "to upgrade"}, rig.now_s - 4)
    view = view_of(worker, rig.now_s)
    assert (view.database, view.slot, view.pid, view.restarts) == ("a", worker.slot, worker.pid, 0)
    assert (view.last_error, view.last_error_age_s, view.overdue) == (None, None, 2)
    assert (view.modules or {})["for_s"] == 4.0
    rig.reap("b", -9)
    view = view_of(rig.fleet.workers["b"], rig.now_s + 3)
    assert (view.state, view.pid, view.restarts, view.last_error_age_s) == (WorkerState.BACKING_OFF, None, 1, 3.0)
    assert view.last_error is not None
    assert "SIGKILL" in view.last_error
