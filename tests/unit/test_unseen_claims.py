"""A job that is announced alone, and claimed in the statement that reads it: whether it is, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from psycopg2.extensions import Notify

from qjsupervisor.backlog.backlog import Found, Snapshot
from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.errors import DatabaseUnavailable
from qjsupervisor.job import Pending
from qjsupervisor.loop import Loop
from qjsupervisor.odoo.request import End, RequestOutcome
from qjsupervisor.states import TargetState
from qjsupervisor.table.layout import Header
from qjsupervisor.worker.jobs import State

from .play import Play

DONE = RequestOutcome(End.ANSWERED, 200, "HTTP 200")


@pytest.fixture
def play(request: pytest.FixtureRequest) -> Iterator[Play]:
    """Two jobs ran in root before, and now a new one is announced, which may be anything."""
    root = getattr(request, "param", ChannelSpec(name="root", capacity=2))
    with Loop() as loop:
        made = Play(loop, root, ChannelSpec(name="root.other", capacity=1))
        made.rows.state = made.rows.read_as = "cancelled"  # of which no further notification is awaited
        for _ in range(2):
            made.serving.jobs.include_running = False
            made.ends(DONE)
            made.turn(999.0, start=True)
            made.sends()
        made.ends(DONE)
        made.turn(999.0, start=True)
        made.dispatcher.targets[0].breaker.record_success()
        made.turn(999.0, start=True)
        made.rows.replace("pending")
        yield made
        made.close()


def _runs_well(play: Play) -> None:
    play.rows.state = play.rows.read_as = "done"
    play.dispatcher.ended.clear()  # nobody listens there
    play.ends(DONE)
    play.turn(1000.1, start=True)


def test_a_job_like_those_before_it_is_claimed_unseen(play: Play) -> None:
    play.turn(1000.0, start=True)
    assert play.rows.unseen == ["root"]
    assert not play.rows.claims
    assert play.serving.dispatched == 1
    assert play.serving.backlog.holding() == {1}
    assert play.serving.jobs.state(1) is State.REQUESTED
    assert play.running == 1
    _runs_well(play)
    assert play.running == 0
    assert play.serving.jobs.state(1) is State.OVER


def test_a_job_that_is_in_another_channel_is_claimed_as_any(play: Play) -> None:
    play.rows.channel = "root.other"
    play.turn(1000.0, start=True)
    assert play.rows.unseen == ["root"]
    assert play.rows.claims == [1]
    assert play.serving.backlog.holding() <= {1}


def test_a_dead_job_that_was_requeued_holds_one_permit(play: Play) -> None:
    """Held without a request of ours, as its Odoo worker died; `requeue` makes it pending."""
    play.serving.backlog.hold(1, "root")
    play.serving.jobs.enter(play.serving.jobs.of(1), State.UNATTENDED)
    play.serving.settle()
    play.turn(1000.0, start=True)
    assert play.rows.unseen == ["root"]
    play.serving.settle()
    assert play.running == 1
    _runs_well(play)
    assert play.running == 0


def test_a_failed_job_that_was_requeued_is_not_counted_as_failed(play: Play) -> None:
    play.serving.backlog.fail(1, "root")
    play.turn(1000.0, start=True)
    assert play.rows.unseen == ["root"]
    assert play.serving.backlog.nodes["root"].failed == 0


def test_a_job_that_is_over_already_keeps_no_permit(play: Play) -> None:
    play.rows.replace("done")
    play.turn(1000.0, start=True)
    assert play.rows.unseen == ["root"]
    assert play.serving.dispatched == play.running == 0


def test_a_job_that_got_another_uuid_while_it_is_run_is_not_run_twice(play: Play) -> None:
    play.sends()
    play.rows.notified.take(1)
    play.rows.notified.append(Notify(play.rows.notified.own_pid + 1, "queue_job", "v"))
    play.turn(1000.0, start=True)
    assert play.rows.unseen == ["root"]
    assert play.rows.state == "pending", "it was given back"
    assert play.serving.dispatched == 0
    assert play.serving.backlog.holding() == {1}
    assert play.running == 1


@pytest.mark.parametrize(("refused", "running"), [(True, 0), (False, 1)])
def test_a_claim_whose_answer_is_lost_keeps_its_permit_until_the_rows_are_read(
    play: Play, refused: bool, running: int
) -> None:
    play.rows.error = DatabaseUnavailable("db", "away")
    play.rows.error.refused = refused
    with pytest.raises(DatabaseUnavailable):
        play.turn(1000.0, start=True)
    play.serving.offline.lost(1000.0)
    assert play.running == running
    backlog = play.serving.backlog
    backlog.begin_read()
    conflicting = backlog.load(Snapshot([], Found([], False, [], False), {}, []))
    play.serving.after_load([], conflicting)
    play.serving.settle()
    assert play.running == 0
    assert not play.serving.jobs.has(State.CLAIMING)
    assert not play.serving.jobs.any_at_rest


@pytest.mark.parametrize("state", ["pending", "done"])
def test_a_claim_whose_answer_is_late_holds_nobody_up(play: Play, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    play.rows.replace(state)
    seen = []

    def late() -> None:
        play.rows.waiter.on_late()
        seen.append(play.running)

    play.rows.meanwhile = late
    play.turn(1000.0, start=True)
    assert seen == [0]
    assert play.rows.state == state, "what was claimed nevertheless is given back"
    assert play.serving.dispatched == 0
    monkeypatch.setattr(play.rows, "read_ids", lambda _ids: [])
    play.turn(1000.1, start=False)
    assert not play.serving.jobs.has(State.LATE)
    assert play.rows.claims == ([1] if state == "pending" else []), "it competes again"


def _unproven(play: Play) -> None:
    play.dispatcher.targets[0].breaker.state = TargetState.UNKNOWN
    play.serving.jobs.include_running = True


def _taken(play: Play) -> None:
    for job_id in (7, 8):
        play.serving.backlog.hold(job_id, "root")
    play.serving.settle()


def _waiting(play: Play) -> None:
    _taken(play)
    play.serving.backlog.put(Pending((10, 2, 2), "root", None))


def _waiting_elsewhere(play: Play) -> None:
    play.serving.backlog.hold(7, "root.other")
    play.serving.backlog.put(Pending((10, 2, 2), "root.other", None))
    play.serving.settle()


def _ended(play: Play) -> None:
    """Its row has to be judged, whatever it says now."""
    play.sends()
    play.rows.notified.take(1)
    play.ends(RequestOutcome(End.LOST, None, "reset"))


def _later(play: Play) -> None:
    play.serving.backlog.put(Pending((10, 2, 2), "root", 1 << 60))


def _deferred(play: Play) -> None:
    play.serving.backlog.defer(Pending((10, 2, 2), "root", None))


def _deferred_elsewhere(play: Play) -> None:
    """It may be the very job that is announced, in another channel now."""
    play.serving.backlog.defer(Pending((10, 2, 2), "root.other", None))


def _paused(play: Play) -> None:
    play.serving.backlog.set_paused({"root"})


def _elsewhere_before(play: Play) -> None:
    play.serving.jobs.request(play.serving.jobs.enter(play.serving.jobs.of(9), State.CLAIMING), "another", "root.other")


def _closed(play: Play) -> None:
    play.table.core.words[Header.START_BARRIER] = 0


def _reading(play: Play) -> None:
    play.serving.backlog.begin_read()


def _long(play: Play) -> None:
    play.rows.notified.take(1)
    play.rows.notified.append(Notify(play.rows.notified.own_pid + 1, "queue_job", "u" * 257))


def _several(play: Play) -> None:
    play.rows.notified.append(Notify(play.rows.notified.own_pid + 1, "queue_job", "v"))


@pytest.mark.parametrize(
    "prepare",
    [
        _unproven,
        _taken,
        _waiting,
        _waiting_elsewhere,
        _ended,
        _later,
        _deferred,
        _deferred_elsewhere,
        _paused,
        _elsewhere_before,
        _closed,
        _reading,
        _long,
        _several,
    ],
)
def test_nothing_is_claimed_unseen(play: Play, prepare: Callable[[Play], None]) -> None:
    """Where another one is next, or it could not start, or nothing speaks for where it is."""
    prepare(play)
    play.turn(1000.0, start=True)
    assert not play.rows.unseen
    assert all(job_id > 0 for job_id in play.serving.backlog.holding())
    assert all(job_id > 0 for job_id in play.serving.backlog.known())
    play.serving.settle()
    assert play.running == len(play.serving.backlog.holding())


@pytest.mark.parametrize(
    "play",
    [ChannelSpec(name="root", capacity=2, throttle_s=5), ChannelSpec(name="root", capacity=1, sequential=True)],
    indirect=True,
)
def test_nothing_is_claimed_unseen_where_a_start_is_counted_or_has_its_place(play: Play) -> None:
    play.turn(1000.0, start=True)
    assert not play.rows.unseen
    assert play.rows.claims == [1]


def test_nothing_is_claimed_unseen_where_nothing_may_start(play: Play) -> None:
    play.turn(1000.0, start=False)
    assert not play.rows.unseen


def test_what_was_decided_before_is_claimed_first(play: Play) -> None:
    play.serving.backlog.taken = [2]
    play.serving.backlog.hold(2, "root")
    play.turn(1000.0, start=True)
    assert play.rows.claims[:1] == [2]
    assert not play.rows.unseen
