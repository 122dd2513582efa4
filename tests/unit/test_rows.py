"""Where each job is put by what its row says: deferred jobs stay so, what has no row is forgotten."""

from __future__ import annotations

import pytest

from qjsupervisor.backlog.backlog import Found, Snapshot
from qjsupervisor.job import Job, Pending
from qjsupervisor.worker.jobs import JobRecord, State

from .play import NOT_FOUND, Play


@pytest.fixture
def deferred(play: Play) -> JobRecord:
    """Of a job that nobody ran: it was given back, and is left alone. Its target is well again."""
    play.ends(NOT_FOUND)
    play.turn(1000.0, start=False)
    assert list(play.serving.backlog.deferred) == [1]
    play.dispatcher.targets[0].breaker.record_success()
    return play.serving.jobs.of(1)


#: No row any more, or only one of another job: uuids are not unique.
gone = pytest.mark.parametrize(("state", "job_id"), [("gone", 1), ("done", 9)])


@gone
def test_a_deferred_job_whose_row_is_deleted_holds_up_nobody(
    play: Play, deferred: JobRecord, state: str, job_id: int
) -> None:
    play.serving.backlog.put(Pending((10, 2, 2), "root", None))
    play.turn(1000.1, start=True)
    assert not play.rows.claims, "in a sequential channel the others wait for it"
    play.rows.replace(state, job_id)
    play.turn(1000.2, start=True)
    assert not play.serving.backlog.deferred
    assert play.rows.claims == [2]
    assert play.serving.jobs.get(1) is None


def test_a_deferred_job_stays_so_as_long_as_it_has_a_row(play: Play, deferred: JobRecord) -> None:
    play.rows.replace("pending")
    play.turn(1000.1, start=True)
    assert list(play.serving.backlog.deferred) == [1]
    assert (deferred.state, deferred.attempts) == (State.DEFERRED, 1)


def test_a_deferred_job_that_a_full_read_finds_running_may_start_again_later(play: Play, deferred: JobRecord) -> None:
    """Somebody else started it, and put it back to pending."""
    running = Job(1, "u", "root", "started", (10, 1, 1), None)
    conflicting = play.serving.backlog.load(Snapshot([(1, "root")], Found([], False, [], False), {}, []))
    play.serving.after_load([running], conflicting)
    assert deferred.state is State.UNATTENDED
    assert not play.serving.backlog.deferred
    play.rows.replace("pending")
    play.turn(1000.2, start=True)
    assert play.rows.claims == [1]


def test_each_time_that_nobody_runs_it_a_job_is_left_alone_for_longer(play: Play, deferred: JobRecord) -> None:
    pauses_s, now_s = [deferred.until_s - 1000.0], 1000.0
    for _ in range(7):
        now_s = deferred.until_s + 0.1
        play.turn(now_s, start=False)
        assert deferred.state is State.WAITING
        play.sends()
        play.rows.state = play.rows.read_as = "enqueued"
        play.ends(NOT_FOUND)
        play.turn(now_s, start=False)
        pauses_s.append(deferred.until_s - now_s)
    assert pauses_s == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])


def test_attempts_are_forgotten_where_the_row_is_not_there_to_be_claimed(play: Play, deferred: JobRecord) -> None:
    """TRUNCATE, for one, notifies nobody."""
    play.rows.state = play.rows.read_as = "gone"
    play.turn(2000.0, start=True)
    assert play.rows.claims == [1]
    assert play.serving.jobs.get(1) is None


@gone
def test_attempts_are_forgotten_where_the_row_is_not_there_after_the_request(
    play: Play, deferred: JobRecord, state: str, job_id: int
) -> None:
    play.turn(2000.0, start=False)
    assert deferred.state is State.WAITING
    play.sends()
    play.rows.state, play.rows.read_as, play.rows.id = state, state, job_id
    play.ends(NOT_FOUND)
    play.turn(2000.1, start=False)
    assert play.serving.jobs.get(1) is None


def test_a_failed_job_that_was_requeued_is_not_counted_as_failed(wide: Play) -> None:
    wide.serving.backlog.fail(2, "root")
    wide.rows.state, wide.rows.id = "pending", 2
    wide.serving.apply(Job(2, "v", "root", "pending", (10, 2, 2), None))
    wide.rows.claimed = [Job(2, "v", "root", "enqueued", (10, 2, 2), None)]
    wide.turn(1000.0, start=True)
    assert wide.serving.dispatched == 1
    assert wide.serving.backlog.nodes["root"].failed == 0


def test_a_deferred_job_competes_again_when_its_time_is_over(play: Play, deferred: JobRecord) -> None:
    play.turn(1000.5)
    assert play.loop.next_s() == pytest.approx(deferred.until_s), "the loop wakes for it"
    play.turn(deferred.until_s - 0.01)
    assert not play.rows.claims
    play.turn(deferred.until_s)
    assert play.rows.claims == [1]
