"""The records of jobs: their states, and what is remembered."""

from __future__ import annotations

import time

import pytest

from qjsupervisor.loop import Deadline, Timers
from qjsupervisor.worker import jobs
from qjsupervisor.worker.jobs import Jobs, State


def test_there_is_an_end_to_how_many_attempts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows that were deleted while the database could not be heard nobody tells."""
    monkeypatch.setattr(jobs, "MAX_REMEMBERED", 2)
    known = Jobs(Deadline(Timers(), lambda _now_s: None))
    for job_id in (1, 2, 1, 3):
        record = known.enter(known.of(job_id), State.CLAIMING)
        record.attempts += 1
        known.wait(record)
    assert [record.id for record in known.all_in(State.WAITING)] == [1, 3], "that was asked for last"
    assert known.of(1).attempts == 2


def test_only_allowed_transitions() -> None:
    known = Jobs(Deadline(Timers(), lambda _now_s: None))
    record = known.enter(known.of(1), State.CLAIMING)
    known.request(record, "u", None)
    with pytest.raises(AssertionError, match="job 1: requested -> over"):
        known.enter(record, State.OVER)


def test_a_job_that_is_done_is_known_until_its_own_notifications_came() -> None:
    known = Jobs(Deadline(Timers(), lambda _now_s: None))
    record = known.enter(known.of(1), State.CLAIMING)
    known.request(record, "u", None)
    known.enter(record, State.ENDED)
    known.finish(record, done=True)
    assert [known.is_news("u"), known.is_news("u"), known.is_news("u")] == [False, False, True]
    assert known.get(1) is None


def test_no_more_jobs_that_are_over_are_known_than_need_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_OVER", 2)
    known = Jobs(Deadline(Timers(), lambda _now_s: None))
    for job_id in (1, 2, 3):
        record = known.enter(known.of(job_id), State.CLAIMING)
        known.request(record, str(job_id), None)
        known.enter(record, State.ENDED)
        known.finish(record, done=True)
    assert [record.id for record in known.all_in(State.OVER)] == [2, 3]
    later_s = time.monotonic() + 2 * jobs.OWN_S
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    record = known.enter(known.of(4), State.CLAIMING)
    known.request(record, "4", None)
    known.enter(record, State.ENDED)
    known.finish(record, done=True)
    assert [record.id for record in known.all_in(State.OVER)] == [4], "the others are so for too long"
