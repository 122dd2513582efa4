"""Which jobs get a permit: within the batch and what targets allow, or that of one that ended."""

from __future__ import annotations

import pytest

from qjsupervisor.job import Pending
from qjsupervisor.odoo.request import End, RequestOutcome
from qjsupervisor.worker import permits

from .play import Play


def waits(play: Play, *job_ids: int) -> None:
    for job_id in job_ids:
        play.serving.backlog.put(Pending((10, job_id, job_id), "root", None))


def no_room(wide: Play) -> None:
    """Another job has the other permit, and one waits; the row of the first says that it still runs."""
    wide.serving.backlog.hold(7, "root")
    wide.serving.settle()
    waits(wide, 2)
    wide.rows.state = wide.rows.read_as = "started"


@pytest.mark.parametrize(("status", "claims"), [(200, [2]), (500, []), (None, [])])
def test_only_a_job_that_ended_well_hands_its_permit_over(wide: Play, status: int | None, claims: list[int]) -> None:
    """In the statement that looks at its row; of any other end the row decides first."""
    wide.dispatcher.targets[0].breaker.record_success()
    no_room(wide)
    wide.ends(RequestOutcome(End.ANSWERED if status else End.LOST, status, "an end"))
    wide.turn(1000.0)
    assert wide.rows.claims == claims


def test_a_target_that_has_not_proved_itself_hands_nothing_over(wide: Play) -> None:
    no_room(wide)
    wide.ends(RequestOutcome(End.ANSWERED, 200, "HTTP 200"))
    wide.turn(1000.0)
    assert wide.rows.claims == []


def test_no_more_than_a_batch_in_one_turn(wide: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's lock is held while they are chosen."""
    monkeypatch.setattr(permits, "START_BATCH", 1)
    wide.ends_done()
    waits(wide, 2, 3)
    wide.turn(1000.0)
    assert wide.rows.claims == [2]


def test_nothing_starts_where_nothing_may(wide: Play) -> None:
    wide.ends_done()
    waits(wide, 2)
    wide.turn(1000.0, start=False)
    assert wide.rows.claims == []
    assert wide.running == 0
