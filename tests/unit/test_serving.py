"""Permits of jobs whose requests ended badly, kept as long as the row counts; deferred jobs, kept as long as it is."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pytest
from psycopg2.extensions import Notify

from qjsupervisor import logs
from qjsupervisor.backlog.backlog import Found, Snapshot
from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config.settings import TargetSettings
from qjsupervisor.errors import DatabaseError, DatabaseUnavailable
from qjsupervisor.job import Job, Pending
from qjsupervisor.loop import Deadline, Loop, Timers
from qjsupervisor.odoo.breaker import ACCEPTED_AFTER_S, UNPROVEN_LIMIT
from qjsupervisor.odoo.dispatcher import Dispatcher, Ended
from qjsupervisor.odoo.request import End, Outcome
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.waiter import Waiter
from qjsupervisor.states import Fairness
from qjsupervisor.states import Outcome as WhatBecame
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.table.slot import WorkerSlot
from qjsupervisor.worker import jobs
from qjsupervisor.worker.jobs import JobRecord, Jobs, State
from qjsupervisor.worker.serving import Serving
from qjsupervisor.worker.trees import shared_tree


class Rows(Database):
    """A database of one job; `read_as`: what a read saw, a moment before the row became `state`."""

    def __init__(self) -> None:
        super().__init__("db", {}, Waiter(lambda: None))
        self.state = self.read_as = "enqueued"
        self.id = 1
        #: By somebody else, so that it cannot be given back.
        self.locked = False
        self.claims: list[int] = []
        self.channel = "root"
        #: The channels in which a job was claimed before it was read; what happens under such a claim.
        self.unseen: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.error: DatabaseError | None = None
        #: What the next claim gets.
        self.claimed: list[Job] = []
        #: Payloads of the notifications that the next statement's answer has with it.
        self.brings: list[str] = []

    def turn(
        self, claim: Mapping[int, int], uuids: Sequence[str], unseen_in: str | None = None
    ) -> tuple[list[Job], list[Job]]:
        if self.error is not None:
            raise self.error
        if unseen_in is not None:
            self.unseen.append(unseen_in)
            self.meanwhile()
            if self.state == "pending" and unseen_in == self.channel:
                self.state = self.read_as = "enqueued"
                return [Job(self.id, uuids[0], unseen_in, "enqueued", (10, 1, self.id), None)], []
        read, self.read_as = self.read_as, self.state
        for payload in self.brings:
            self.notified.append(Notify(self.notified.own_pid + 1, "queue_job", payload))
        self.brings.clear()
        self.claims += claim
        if self.claimed:
            claimed, self.claimed = self.claimed, []
            return claimed, []
        if read == "gone" or not ("u" in uuids or self.id in claim):
            return [], []
        return [], [Job(self.id, "u", self.channel, read, (10, 1, self.id), None)]

    def replace(self, state: str, job_id: int = 1) -> None:
        """By somebody else, who notifies."""
        self.state, self.read_as, self.id = state, state, job_id
        self.notified.append(Notify(self.notified.own_pid + 1, "queue_job", "u"))

    def give_back(self, ids: Iterable[int]) -> list[int]:
        if self.state != "enqueued" or self.locked:
            return []
        self.state = "pending"
        return list(ids)

    def look_dead(self, ids: Iterable[int], grace_s: float) -> dict[int, tuple[str, bool]]:
        return {}


class Play:
    """One worker's serving, with a job that holds a permit, of one if nothing else is said, and whose request ends."""

    def __init__(self, loop: Loop, *specs: ChannelSpec) -> None:
        #: Of a target that accepts connections, and answers nobody.
        self.listener = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.table = SemaphoreTable(specs, slots=2, fairness=Fairness.ROUND_ROBIN)
        self.table.assign(0, "db", 1)
        self.table.open_start_barrier()
        worker_slot: WorkerSlot = self.table.worker_slot(0)
        worker_slot.attach()
        self.rows = Rows()
        self.dispatcher = Dispatcher(
            loop,
            [TargetSettings(url=url)],
            "db",
            worker_slot.attach_servers([url]),
            connect_timeout_s=1,
            read_timeout_s=None,
        )
        self.loop = loop
        tree = shared_tree(worker_slot, window=10)
        log = logs.silent_logger()
        self.serving = Serving(
            self.rows, worker_slot, tree, self.dispatcher, log, lambda: Deadline(loop, lambda _now_s: None)
        )
        self.sends()

    def sends(self, job_id: int = 1) -> None:
        """A job is claimed and sent; its request is open for as long as nobody says otherwise."""
        jobs = self.serving.jobs
        self.serving.backlog.hold(job_id, "root")
        jobs.request(jobs.enter(jobs.of(job_id), State.CLAIMING), "u", "root")
        self.serving.settle()

    def close(self) -> None:
        self.dispatcher.close()
        self.listener.close()

    def turn(self, now_s: float, *, start: bool = True) -> bool:
        """What is due by then, and a turn."""
        self.loop.run_due(now_s)
        return self.serving.turn(now_s, start=start)

    def ends(self, outcome: Outcome) -> None:
        self.dispatcher.ended.append(Ended("u", self.dispatcher.targets[0], outcome, 0.1))

    @property
    def running(self) -> int:
        """Permits of the root, as every other worker sees them."""
        return self.table.channel_views()[0].running


@pytest.fixture
def play() -> Iterator[Play]:
    with Loop() as loop:
        made = Play(loop, ChannelSpec(name="root", capacity=1, sequential=True))
        yield made
        made.close()


@pytest.fixture
def wide() -> Iterator[Play]:
    """With room for one more."""
    with Loop() as loop:
        made = Play(loop, ChannelSpec(name="root", capacity=2))
        yield made
        made.close()


NOT_FOUND = Outcome(End.ANSWERED, 404, "HTTP 404")


def test_a_job_that_odoo_took_after_its_row_was_read_keeps_its_permit(play: Play) -> None:
    """Read as `enqueued`, `started` when it was to be given back: root had 7 rows of 6 once (chaos, seed 21)."""
    play.rows.state = "started"
    play.ends(NOT_FOUND)
    assert play.turn(1000.0, start=True), "its row is looked at again, at once"
    assert play.running == 1
    play.turn(1000.1, start=True)
    assert play.running == 1
    assert play.serving.backlog.is_held(1)


@pytest.mark.parametrize(("brings", "more"), [(["u", "u"], False), (["u", "u", "other"], True), (["u"] * 3, True)])
def test_what_a_jobs_own_statement_brings_along_is_worth_a_turn_if_it_is_news(
    play: Play, brings: list[str], more: bool
) -> None:
    """Of a job that is over, `started` and `done` are told too: a turn for these came after every job's last one."""
    play.rows.state = play.rows.read_as = "done"
    play.rows.brings = brings
    play.ends(Outcome(End.ANSWERED, 200, "HTTP 200"))
    assert play.turn(1000.0, start=True) is more
    assert bool(len(play.rows.notified)) is more


def test_what_was_said_before_a_request_ended_is_awaited_no_more(play: Play) -> None:
    """Both of a job's notifications came with the end of its request: the next one is somebody else's."""
    for _ in ("started", "done"):
        play.rows.replace("done")
    play.ends(Outcome(End.ANSWERED, 200, "HTTP 200"))
    assert not play.turn(1000.0, start=True)
    play.rows.replace("pending")
    play.turn(1000.1, start=True)
    assert play.rows.claims == [1], "somebody wants it to run once more"


def test_a_job_that_was_given_back_has_none(play: Play) -> None:
    play.ends(NOT_FOUND)
    play.turn(1000.0, start=False)
    assert play.running == 0


@pytest.mark.parametrize(("status", "running"), [(200, 0), (500, 1), (502, 1)])
def test_while_the_database_is_away_only_success_gives_a_permit_back(play: Play, status: int, running: int) -> None:
    """A job that PostgreSQL went away under ends with a 500, and its row stays `started`."""
    play.ends(Outcome(End.ANSWERED, status, f"HTTP {status}"))
    play.serving.offline.settle_unread(1000.0, gave_up=False)
    assert play.running == running


@pytest.mark.parametrize("down", [True, False])
def test_a_pause_that_ends_between_the_turn_and_the_sleep_is_not_slept_over(play: Play, down: bool) -> None:
    """A job waited for 20 s, as the pause of its target had ended a millisecond before its worker went to sleep."""
    (target,) = play.dispatcher.targets
    if down:
        target.breaker.failed(time.monotonic(), "HTTP 404", "7")
        ends_s = target.breaker.retry_at_s
    else:
        ends_s = time.monotonic() + ACCEPTED_AFTER_S
        for uuid in "abcdefgh"[:UNPROVEN_LIMIT]:
            play.dispatcher.send(uuid)
    play.serving.backlog.forget(1)
    play.serving.backlog.put(Pending((10, 2, 2), "root", None))
    play.turn(ends_s - 0.001, start=True)
    assert not play.rows.claims
    assert play.loop.next_s() <= ends_s + 0.1
    while play.turn(ends_s + 0.1, start=True) and not play.rows.claims:
        pass
    assert play.rows.claims == [2]


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


def test_a_claim_that_got_nothing_asks_for_the_next_turn(play: Play) -> None:
    """2,500 waiting rows were deleted: an idle worker tried four of them, five times a second."""
    play.serving.backlog.forget(1)
    play.rows.state = play.rows.read_as = "gone"
    for job_id in (2, 3, 4):
        play.serving.backlog.put(Pending((10, 2, job_id), "root", None))
    while play.turn(1000.0, start=True):
        pass
    assert play.rows.claims == [2, 3, 4]


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


def test_a_failed_job_that_was_requeued_is_not_counted_as_failed(wide: Play) -> None:
    wide.serving.backlog.fail(2, "root")
    wide.rows.state, wide.rows.id = "pending", 2
    wide.serving.apply(Job(2, "v", "root", "pending", (10, 2, 2), None))
    wide.rows.claimed = [Job(2, "v", "root", "enqueued", (10, 2, 2), None)]
    wide.turn(1000.0, start=True)
    assert wide.serving.dispatched == 1
    assert wide.serving.backlog.nodes["root"].failed == 0


@pytest.mark.parametrize(
    ("state", "status", "outcome"),
    [
        ("done", 200, WhatBecame.DONE),
        ("failed", 200, WhatBecame.FAILED),
        ("pending", 200, WhatBecame.RETRIED),
        ("enqueued", 404, WhatBecame.NOT_RUN),
        ("started", None, WhatBecame.LOST),
        ("gone", 200, WhatBecame.LOST),
        ("cancelled", 200, WhatBecame.CANCELLED),
    ],
)
def test_each_end_is_counted_by_its_outcome_and_status(
    play: Play, state: str, status: int | None, outcome: WhatBecame
) -> None:
    play.rows.state = play.rows.read_as = state
    play.ends(Outcome(End.ANSWERED if status else End.LOST, status, "a reason"))
    play.turn(1000.0, start=False)
    totals = play.table.totals()
    assert [totals.outcomes[each] for each in WhatBecame] == [int(each is outcome) for each in WhatBecame]
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
