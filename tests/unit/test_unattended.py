"""Jobs that hold a permit and that nobody here waits for: when they count as dead."""

from __future__ import annotations

import pytest

from qjsupervisor.backlog.backlog import Found, Snapshot
from qjsupervisor.errors import DatabaseError
from qjsupervisor.job import Job
from qjsupervisor.odoo.request import End, RequestOutcome
from qjsupervisor.worker.jobs import State
from qjsupervisor.worker.outcomes import RequestOutcomes

from .play import NOT_FOUND, Play


@pytest.mark.parametrize(("dated", "after_s"), [(True, 1), (False, 11)])
def test_how_long_a_job_has_to_look_dead(
    play: Play, monkeypatch: pytest.MonkeyPatch, dated: bool, after_s: int
) -> None:
    """Where its row does not say since when, the ten seconds of the contract are waited for here."""
    revived: list[int] = []
    monkeypatch.setattr(play.rows, "look_dead", lambda _ids, _grace_s: {1: ("enqueued", dated)})
    monkeypatch.setattr(play.rows, "revive", lambda dead, _grace_s: revived.extend(dead) or [])
    play.rows.state = play.rows.read_as = "started"
    play.ends(NOT_FOUND)
    play.turn(1000.0, start=False)
    passed_s = -1
    while not revived:
        passed_s += 1
        play.turn(1000.0 + passed_s, start=False)
    assert passed_s == after_s


def test_nobody_is_looked_at_where_there_is_none(play: Play) -> None:
    play.rows.state = play.rows.read_as = "done"
    play.ends(RequestOutcome(End.ANSWERED, 200, "HTTP 200"))
    play.turn(1000.0)
    assert not play.serving.jobs.has(State.UNATTENDED)
    assert play.loop.next_s() > 1001.0, "nothing is to come because of that"


def test_a_job_without_an_answer_is_finished_when_its_row_is_over_and_once(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(RequestOutcomes, "tell", lambda _self, _ended, state, *_rest: told.append(state))
    play.rows.state = play.rows.read_as = "started"
    play.ends(RequestOutcome(End.LOST, None, "closed"))
    play.turn(1000.0)
    assert (play.running, play.serving.finished, told) == (1, 0, [])
    play.rows.replace("done")
    play.turn(1001.0)
    assert (play.running, play.serving.finished, told) == (0, 1, ["done"])


def test_a_dead_job_that_cannot_be_put_back_holds_no_permit(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as failed, so that a sequential channel does not pass it; and again when it turns out to live."""
    dead = {1: ("started", True)}

    def refuse(_dead: object, _grace_s: float) -> list[Job]:
        error = DatabaseError("db", "disk full")
        error.of_row = True
        raise error

    monkeypatch.setattr(play.rows, "look_dead", lambda _ids, _grace_s: dead)
    monkeypatch.setattr(play.rows, "revive", refuse)
    play.rows.state = play.rows.read_as = "started"
    play.ends(NOT_FOUND)
    for now_s in (1000.0, 1000.0, 1001.0):
        play.turn(now_s, start=False)
    backlog = play.serving.backlog
    assert (play.running, backlog.failed) == (0, {0: 1})
    job = Job(1, "u", "root", "started", (10, 1, 1), None)
    backlog.begin_read()
    conflicting = backlog.load(Snapshot([(1, "root")], Found([], False, [], False), {}, []))
    play.serving.after_load([job], conflicting)
    play.serving.settle()
    assert (play.running, backlog.failed) == (0, {0: 1}), "a full read changes nothing"
    dead.clear()
    play.turn(1010.0, start=False)
    assert (play.running, backlog.failed) == (1, {0: 0})
