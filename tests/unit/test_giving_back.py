"""Jobs that nobody ran: which of them go back to `pending`, and which keep their permits."""

from __future__ import annotations

import pytest

from qjsupervisor.job import Job, Pending
from qjsupervisor.worker.jobs import State

from .play import NOT_FOUND, Play


def test_a_job_that_odoo_took_after_its_row_was_read_keeps_its_permit(play: Play) -> None:
    """Read as `enqueued`, `started` when it was to be given back: root had 7 rows of 6 once (chaos, seed 21)."""
    play.rows.state = "started"
    play.ends(NOT_FOUND)
    assert play.turn(1000.0, start=True), "its row is looked at again, at once"
    assert play.running == 1
    play.turn(1000.1, start=True)
    assert play.running == 1
    assert play.serving.backlog.is_held(1)


def test_a_job_that_was_given_back_has_none(play: Play) -> None:
    play.ends(NOT_FOUND)
    play.turn(1000.0, start=False)
    assert play.running == 0


@pytest.mark.parametrize(("locked", "running"), [(True, 2), (False, 1)])
def test_a_double_that_cannot_be_given_back_keeps_its_permit(wide: Play, locked: bool, running: int) -> None:
    """A claimed job whose uuid is being run already, and whose row somebody locks: it stays `enqueued`, and counts."""
    wide.serving.backlog.put(Pending((10, 2, 2), "root", None))
    wide.rows.claimed = [Job(2, "u", "root", "enqueued", (10, 2, 2), None)]
    wide.rows.id, wide.rows.locked = 2, locked
    assert wide.turn(1000.0, start=True)
    assert bool(len(wide.rows.notified)) is locked, "its row is looked at again"
    wide.turn(1000.1, start=True)
    assert wide.running == running
    assert wide.serving.dispatched == 0
    assert wide.serving.jobs.state(2) is (State.UNATTENDED if locked else State.DEFERRED)
