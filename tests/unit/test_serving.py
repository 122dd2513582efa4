"""One turn: what asks for another one, what is counted."""

from __future__ import annotations

import time

import pytest

from qjsupervisor.job import Job, Pending
from qjsupervisor.odoo.request import End, RequestOutcome
from qjsupervisor.states import JobOutcome

from .play import Play


@pytest.mark.parametrize(("brings", "more"), [(["u", "u"], False), (["u", "u", "other"], True), (["u"] * 3, True)])
def test_what_a_jobs_own_statement_brings_along_is_worth_a_turn_if_it_is_news(
    play: Play, brings: list[str], more: bool
) -> None:
    """Of a job that is over, `started` and `done` are told too: a turn for these came after every job's last one."""
    play.rows.state = play.rows.read_as = "done"
    play.rows.brings = brings
    play.ends(RequestOutcome(End.ANSWERED, 200, "HTTP 200"))
    assert play.turn(1000.0, start=True) is more
    assert bool(len(play.rows.notified)) is more


def test_what_was_said_before_a_request_ended_is_awaited_no_more(play: Play) -> None:
    """Both of a job's notifications came with the end of its request: the next one is somebody else's."""
    for _ in ("started", "done"):
        play.rows.replace("done")
    play.ends(RequestOutcome(End.ANSWERED, 200, "HTTP 200"))
    assert not play.turn(1000.0, start=True)
    play.rows.replace("pending")
    play.turn(1000.1, start=True)
    assert play.rows.claims == [1], "somebody wants it to run once more"


def test_a_claim_that_got_nothing_asks_for_the_next_turn(play: Play) -> None:
    """2,500 waiting rows were deleted: an idle worker tried four of them, five times a second."""
    play.serving.backlog.forget(1)
    play.rows.state = play.rows.read_as = "gone"
    for job_id in (2, 3, 4):
        play.serving.backlog.put(Pending((10, 2, job_id), "root", None))
    while play.turn(1000.0, start=True):
        pass
    assert play.rows.claims == [2, 3, 4]


@pytest.mark.parametrize(
    ("state", "status", "outcome"),
    [
        ("done", 200, JobOutcome.DONE),
        ("failed", 200, JobOutcome.FAILED),
        ("pending", 200, JobOutcome.RETRIED),
        ("enqueued", 404, JobOutcome.NOT_RUN),
        ("started", None, JobOutcome.LOST),
        ("gone", 200, JobOutcome.LOST),
        ("cancelled", 200, JobOutcome.CANCELLED),
    ],
)
def test_each_end_is_counted_by_its_outcome_and_status(
    play: Play, state: str, status: int | None, outcome: JobOutcome
) -> None:
    play.rows.state = play.rows.read_as = state
    play.ends(RequestOutcome(End.ANSWERED if status else End.LOST, status, "a reason"))
    play.turn(1000.0, start=False)
    totals = play.table.totals()
    assert [totals.outcomes[each] for each in JobOutcome] == [int(each is outcome) for each in JobOutcome]
    assert totals.statuses[(status or 0) // 100] == sum(totals.statuses) == 1
    assert totals.durations[outcome].sum_s == pytest.approx(0.1, abs=1e-5)


def test_the_time_from_due_to_dispatch_is_observed(wide: Play) -> None:
    wide.serving.backlog.put(Pending((10, 1, 7), "root", None))
    due_us = int((time.time() - 42) * 1e6)
    wide.rows.claimed = [Job(7, "v", "root", "enqueued", (10, 1, 7), due_us)]
    wide.turn(1000.0, start=True)
    waited = wide.table.totals().waited
    assert sum(waited.counts) == 1
    assert waited.sum_s == pytest.approx(42, abs=5)
