"""Claims that were not answered in time, or not at all."""

from __future__ import annotations

import pytest

from qjsupervisor.backlog.backlog import Found, Snapshot
from qjsupervisor.errors import DatabaseUnavailable
from qjsupervisor.job import Job, Pending

from .play import Play


@pytest.mark.parametrize(("refused", "running"), [(True, 1), (False, 2)])
def test_a_claim_whose_answer_is_lost_keeps_its_permit_until_the_rows_are_read(
    wide: Play, refused: bool, running: int
) -> None:
    wide.rows.error = DatabaseUnavailable("db", "away")
    wide.rows.error.refused = refused
    wide.serving.backlog.put(Pending((10, 2, 2), "root", None))
    with pytest.raises(DatabaseUnavailable):
        wide.turn(1000.0, start=True)
    wide.serving.offline.lost(1000.0)
    assert wide.running == running
    backlog = wide.serving.backlog
    backlog.begin_read()
    conflicting = backlog.load(Snapshot([], Found([], False, [], False), {}, []))
    wide.serving.after_load([], conflicting)
    wide.serving.settle()
    assert wide.running == 1, "the one that is sent"


def test_a_late_claim_gives_its_permit_back_before_its_answer_is_there(wide: Play) -> None:
    """In the middle of the statement; a claim that was made nevertheless is given back."""
    wide.serving.backlog.put(Pending((10, 2, 2), "root", None))
    wide.rows.claimed = [Job(2, "v", "root", "enqueued", (10, 2, 2), None)]
    wide.rows.id = 2
    seen: list[int] = []

    def is_late() -> None:
        wide.rows.waiter.on_late()
        seen.append(wide.running)

    wide.rows.before_answer = is_late
    wide.turn(1000.0)
    assert seen == [1]
    assert wide.serving.dispatched == 0
    assert wide.rows.state == "pending"


def test_where_every_claim_is_late_jobs_are_sent_nevertheless(wide: Play) -> None:
    """A trigger that takes seconds: they were claimed and given back for ever."""
    for claim in (1, 2):
        wide.serving.backlog.put(Pending((10, 2, 2), "root", None))
        wide.rows.claimed = [Job(2, "v", "root", "enqueued", (10, 2, 2), None)]
        wide.rows.id, wide.rows.state = 2, "enqueued"
        wide.rows.before_answer = lambda: wide.rows.waiter.on_late()
        wide.turn(1000.0 + claim)
        assert wide.serving.dispatched == claim - 1
    assert wide.running == 2
    assert wide.rows.state == "enqueued"


def test_where_every_claim_is_late_nothing_is_sent_without_a_permit(wide: Play) -> None:
    for claim in (1, 2):
        wide.serving.backlog.put(Pending((10, 2, 2), "root", None))
        wide.rows.claimed = [Job(2, "v", "root", "enqueued", (10, 2, 2), None)]
        wide.rows.id, wide.rows.state = 2, "enqueued"

        def is_late(takes: bool = claim == 2) -> None:
            wide.rows.waiter.on_late()
            if takes:
                wide.serving.backlog.hold(3, "root")  # as another database would

        wide.rows.before_answer = is_late
        wide.turn(1000.0 + claim)
    assert wide.serving.dispatched == 0
    assert wide.running == 2
    assert wide.rows.state == "pending", "it was given back"
