"""Permits of jobs whose requests ended badly, kept as long as the row counts; jobs set aside, kept as long as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pytest
from psycopg2.extensions import Notify

from qjsupervisor import logs
from qjsupervisor.backlog.backlog import Found, Snapshot
from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config.settings import TargetSettings
from qjsupervisor.errors import DatabaseError, DatabaseUnavailable
from qjsupervisor.job import Job, Pending
from qjsupervisor.loop import Loop
from qjsupervisor.odoo.breaker import ACCEPTED_AFTER_S, UNPROVEN_LIMIT
from qjsupervisor.odoo.dispatcher import Dispatcher, Ended
from qjsupervisor.odoo.request import End, Outcome
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.waiter import Waiter
from qjsupervisor.states import Fairness, TargetState
from qjsupervisor.table.layout import Header
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.table.slot import WorkerSlot
from qjsupervisor.worker.deferred import MAX_ATTEMPTS, Cooling
from qjsupervisor.worker.serving import Serving
from qjsupervisor.worker.speculative import GUESS
from qjsupervisor.worker.trees import shared_tree


class Rows(Database):
    """A database of one job; `read_as`: what a read saw, a moment before the row became `state`."""

    def __init__(self) -> None:
        super().__init__("db", {}, Waiter(lambda: None))
        self.state = self.read_as = "enqueued"
        self.id = 1
        self.claims: list[int] = []
        self.guesses: list[str] = []
        self.announced_in = "root"
        self.error: DatabaseError | None = None
        #: Payloads of the notifications that the next statement's answer has with it.
        self.brings: list[str] = []

    def turn(self, claim: Mapping[int, int], uuids: Sequence[str]) -> tuple[list[Job], list[Job]]:
        read, self.read_as = self.read_as, self.state
        for payload in self.brings:
            self.notified.append(Notify(self.notified.own_pid + 1, "queue_job", payload))
        self.brings.clear()
        self.claims += claim
        if read == "gone" or not ("u" in uuids or self.id in claim):
            return [], []
        return [], [Job(self.id, "u", "root", read, (10, 1, self.id), None)]

    def claim_announced(self, uuid: str, channel: str) -> tuple[list[Job], list[Job]]:
        if self.error is not None:
            raise self.error
        self.guesses.append(channel)
        if self.state == "pending" and channel == self.announced_in:
            self.state = self.read_as = "enqueued"
            return [Job(self.id, uuid, channel, "enqueued", (10, 1, self.id), None)], []
        return self.turn({}, [uuid])

    def replace(self, state: str, job_id: int = 1) -> None:
        """By somebody else, who notifies."""
        self.state, self.read_as, self.id = state, state, job_id
        self.notified.append(Notify(self.notified.own_pid + 1, "queue_job", "u"))

    def give_back(self, ids: Iterable[int]) -> list[int]:
        if self.state != "enqueued":
            return []
        self.state = "pending"
        return list(ids)

    def look_dead(self, ids: Iterable[int], grace_s: float) -> dict[int, tuple[str, bool]]:
        return {}


class Play:
    """One worker's serving, with a job that holds a permit, of one if nothing else is said, and whose request ends."""

    def __init__(self, loop: Loop, *specs: ChannelSpec) -> None:
        self.table = SemaphoreTable(specs, slots=2, fairness=Fairness.ROUND_ROBIN)
        self.table.assign(0, "db", 1)
        self.table.open_start_barrier()
        worker_slot: WorkerSlot = self.table.worker_slot(0)
        worker_slot.attach()
        self.rows = Rows()
        self.dispatcher = Dispatcher(
            loop,
            [TargetSettings(url="http://127.0.0.1:1")],
            "db",
            connect_timeout_s=1,
            read_timeout_s=None,
        )
        log = logs.silent_logger()
        self.serving = Serving(self.rows, worker_slot, shared_tree(worker_slot, window=10), self.dispatcher, log)
        self.serving.backlog.hold(1, "root")
        self.serving.settle()

    def ends(self, outcome: Outcome) -> None:
        self.dispatcher.ended.append(Ended(1, "u", self.dispatcher.targets[0], outcome, 0.1))

    @property
    def running(self) -> int:
        """Permits of the root, as every other worker sees them."""
        return self.table.channel_views()[0].running


@pytest.fixture
def play() -> Iterator[Play]:
    with Loop() as loop:
        made = Play(loop, ChannelSpec(name="root", capacity=1, sequential=True))
        yield made
        made.dispatcher.close()


LOST = Outcome(End.LOST, None, "the connection was closed without an answer")


def test_a_job_that_odoo_took_after_its_row_was_read_keeps_its_permit(play: Play) -> None:
    """Read as `enqueued`, `started` when it was to be given back: root had 7 rows of 6 once (chaos, seed 21)."""
    play.rows.state = "started"
    play.ends(LOST)
    assert play.serving.turn(1000.0, start=True), "its row is looked at again, at once"
    assert play.running == 1
    play.serving.turn(1000.1, start=True)
    assert play.running == 1
    assert play.serving.backlog.is_held(1)


@pytest.mark.parametrize(("brings", "more"), [(["u", "u"], False), (["u", "u", "other"], True), (["u"] * 3, True)])
def test_what_a_jobs_own_statement_brings_along_is_worth_a_turn_if_it_is_news(
    play: Play, brings: list[str], more: bool
) -> None:
    """Of a job that is over, `started` and `done` are told too: a turn for these came after every job's last one."""
    play.rows.replace("done")
    play.rows.notified.take(1)
    play.rows.brings = brings
    play.ends(Outcome(End.ANSWERED, 200, "HTTP 200"))
    assert play.serving.turn(1000.0, start=True) is more
    assert not play.rows.notified


def test_what_was_said_before_a_request_ended_is_no_echo_that_is_still_owed(play: Play) -> None:
    """Both of a job's notifications came with the end of its request: the next one is somebody else's."""
    play.serving._open_uuids["u"] = 1
    for _ in ("started", "done"):
        play.rows.replace("done")
    play.ends(Outcome(End.ANSWERED, 200, "HTTP 200"))
    assert not play.serving.turn(1000.0, start=True)
    play.rows.replace("pending")
    play.serving.turn(1000.1, start=True)
    assert play.rows.claims == [1], "somebody wants it to run once more"


def test_a_job_that_was_given_back_has_none(play: Play) -> None:
    play.ends(LOST)
    play.serving.turn(1000.0, start=False)
    assert play.running == 0


@pytest.mark.parametrize(("status", "running"), [(200, 0), (500, 1), (502, 1)])
def test_while_the_database_is_away_only_success_gives_a_permit_back(play: Play, status: int, running: int) -> None:
    """A job that PostgreSQL went away under ends with a 500, and its row stays `started`."""
    play.ends(Outcome(End.ANSWERED, status, f"HTTP {status}"))
    play.serving.settle_unread(1000.0)
    assert play.running == running


@pytest.mark.parametrize("down", [True, False])
def test_a_pause_that_ends_between_the_turn_and_the_sleep_is_not_slept_over(play: Play, down: bool) -> None:
    """A job waited for 20 s, as the pause of its target had ended a millisecond before its worker went to sleep."""
    (target,) = play.dispatcher.targets
    if down:
        target.breaker.failed(1000.0, "HTTP 404", 7, connecting=False)
        ends_s = target.breaker.retry_at_s
    else:
        target.sent_s.update(dict.fromkeys(range(10, 10 + UNPROVEN_LIMIT), 1000.0))
        ends_s = 1000.0 + ACCEPTED_AFTER_S
    play.serving.backlog.forget(1)
    play.serving.backlog.put(Pending((10, 2, 2), "root", None))
    play.serving.turn(ends_s - 0.001, start=True)
    assert not play.rows.claims
    due_s = play.serving.next_deadline_s(ends_s + 0.001)
    assert due_s is not None
    assert due_s <= ends_s
    play.serving.turn(ends_s + 0.002, start=True)
    assert play.rows.claims == [2]


@pytest.mark.parametrize(("locked", "running"), [(True, 1), (False, 0)])
def test_a_double_that_cannot_be_given_back_keeps_its_permit(play: Play, locked: bool, running: int) -> None:
    """A claimed job whose uuid is being run already, and whose row somebody locks: it stays `enqueued`, and counts."""
    serving = play.serving
    serving._open_uuids["u"] = 7
    play.rows.state = "locked" if locked else "enqueued"
    serving._send_claimed(set(), [Job(1, "u", "root", "enqueued", (10, 1, 1), None)])
    serving.settle()
    assert play.running == running
    assert bool(serving._look) == locked, "its row is looked at again"


@pytest.fixture
def cooling(play: Play) -> Cooling:
    """Of a job that nobody ran: it was given back, and set aside. Its target is well again."""
    play.ends(LOST)
    play.serving.turn(1000.0, start=False)
    assert list(play.serving.backlog.aside) == [1]
    play.dispatcher.targets[0].breaker.proved()
    return play.serving._cooling


#: No row any more, or only one of another job: uuids are not unique.
gone = pytest.mark.parametrize(("state", "job_id"), [("gone", 1), ("done", 9)])


@gone
def test_a_job_set_aside_whose_row_is_deleted_holds_up_nobody(
    play: Play, cooling: Cooling, state: str, job_id: int
) -> None:
    play.serving.backlog.put(Pending((10, 2, 2), "root", None))
    play.serving.turn(1000.1, start=True)
    assert not play.rows.claims, "in a sequential channel the others wait for it"
    play.rows.replace(state, job_id)
    play.serving.turn(1000.2, start=True)
    assert not play.serving.backlog.aside
    assert play.rows.claims == [2]


def test_a_job_set_aside_stays_so_as_long_as_it_has_a_row(play: Play, cooling: Cooling) -> None:
    play.rows.replace("pending")
    play.serving.turn(1000.1, start=True)
    assert list(play.serving.backlog.aside) == list(cooling._attempts) == [1]


@gone
def test_attempts_are_forgotten_with_the_row(play: Play, cooling: Cooling, state: str, job_id: int) -> None:
    play.rows.replace(state, job_id)
    play.serving.turn(1000.1, start=True)
    assert not cooling._attempts


def test_attempts_are_forgotten_where_the_row_is_not_there_to_be_claimed(play: Play, cooling: Cooling) -> None:
    """TRUNCATE, for one, notifies nobody."""
    play.rows.state = play.rows.read_as = "gone"
    play.serving.turn(2000.0, start=True)
    assert play.rows.claims == [1]
    assert not cooling._attempts


@gone
def test_attempts_are_forgotten_where_the_row_is_not_there_after_the_request(
    play: Play, cooling: Cooling, state: str, job_id: int
) -> None:
    play.serving.turn(2000.0, start=False)
    play.serving.backlog.hold(1, "root")
    play.rows.state, play.rows.read_as, play.rows.id = state, state, job_id
    play.ends(LOST)
    play.serving.turn(2000.1, start=False)
    assert not cooling._attempts


def test_there_is_an_end_to_how_many_attempts_are_remembered(play: Play) -> None:
    """Of rows that were deleted while the database could not be heard nobody tells."""
    cooling, backlog = Cooling(), play.serving.backlog

    def in_vain(job_id: int) -> None:
        cooling.not_run(backlog, Job(job_id, str(job_id), "root", "pending", (10, 1, job_id), None), 1000.0)
        cooling.readmit(backlog, job_id)

    for job_id in (*range(MAX_ATTEMPTS), 0, MAX_ATTEMPTS):
        in_vain(job_id)
    assert len(cooling._attempts) == MAX_ATTEMPTS
    assert cooling._attempts[0] == 2
    assert 1 not in cooling._attempts, "the one that was not asked for for longest"


@pytest.mark.parametrize(("dated", "after_s"), [(True, 1), (False, 10)])
def test_how_long_a_job_has_to_look_dead(
    play: Play, monkeypatch: pytest.MonkeyPatch, dated: bool, after_s: int
) -> None:
    """Where its row does not say since when, the ten seconds of the contract are waited for here."""
    revived: list[int] = []
    monkeypatch.setattr(play.rows, "look_dead", lambda _ids, _grace_s: {1: ("enqueued", dated)})
    monkeypatch.setattr(play.rows, "revive", lambda dead, _grace_s: revived.extend(dead) or [])
    orphans = play.serving._orphans
    orphans.add(1)
    passed_s = next(s for s in range(20) if orphans.revive(play.serving.backlog, 1000.0 + s) or revived)
    assert passed_s == after_s


PLAIN = ChannelSpec(name="root", capacity=2)


@pytest.fixture
def announced(request: pytest.FixtureRequest) -> Iterator[Play]:
    """Two jobs ran in root before, and now a new one is announced, which may be anything."""
    with Loop() as loop:
        made = Play(loop, getattr(request, "param", PLAIN), ChannelSpec(name="root.other", capacity=1))
        made.serving.backlog.forget(1)
        made.serving.settle()
        made.dispatcher.targets[0].breaker.proved()
        for _ in range(2):
            made.serving._guess.note_started("root")
        made.rows.replace("pending")
        yield made
        made.dispatcher.close()


def test_a_job_like_those_before_it_is_claimed_unseen(announced: Play) -> None:
    announced.serving.turn(1000.0, start=True)
    assert announced.rows.guesses == ["root"]
    assert not announced.rows.claims
    assert announced.serving.dispatched == 1
    assert announced.serving.backlog.holding() == {1}
    assert announced.running == 1


def test_a_job_that_is_another_one_than_guessed_is_claimed_as_any(announced: Play) -> None:
    announced.rows.announced_in = "root.elsewhere"
    announced.serving.turn(1000.0, start=True)
    assert announced.rows.guesses == ["root"]
    assert announced.rows.claims == [1]
    assert announced.serving.backlog.holding() <= {1}


def test_a_dead_job_that_was_requeued_holds_one_permit(announced: Play) -> None:
    """Held without a request of ours, as its Odoo worker died; `requeue` makes it pending, and it is guessed."""
    announced.serving.backlog.hold(1, "root")
    announced.serving.settle()
    announced.serving.turn(1000.0, start=True)
    assert announced.rows.guesses == ["root"]
    announced.serving.settle()
    assert announced.running == 1
    announced.rows.state = announced.rows.read_as = "done"
    announced.ends(Outcome(End.ANSWERED, 200, ""))
    announced.serving.turn(1000.1, start=True)
    assert announced.running == 0


def test_a_failed_job_that_was_requeued_is_not_counted_as_failed(announced: Play) -> None:
    announced.serving.backlog.fail(1, "root")
    announced.serving.turn(1000.0, start=True)
    assert announced.rows.guesses == ["root"]
    assert announced.serving.backlog.nodes["root"].failed == 0


def test_a_job_that_is_over_already_keeps_no_permit(announced: Play) -> None:
    announced.rows.replace("done")
    announced.serving.turn(1000.0, start=True)
    assert announced.rows.guesses == ["root"]
    assert announced.serving.dispatched == announced.running == 0


@pytest.mark.parametrize(("refused", "running"), [(True, 0), (False, 1)])
def test_a_guess_whose_answer_is_lost_keeps_its_permit_until_the_rows_are_read(
    announced: Play, refused: bool, running: int
) -> None:
    announced.rows.error = DatabaseUnavailable("db", "away")
    announced.rows.error.refused = refused
    with pytest.raises(DatabaseUnavailable):
        announced.serving.turn(1000.0, start=True)
    announced.serving.lost(1000.0)
    assert announced.running == running
    backlog = announced.serving.backlog
    backlog.begin_read()
    conflicting = backlog.load(Snapshot([], Found([], False, [], False), {}, []))
    announced.serving.after_load([], conflicting)
    announced.serving.settle()
    assert announced.running == 0


def _unproven(play: Play) -> None:
    play.dispatcher.targets[0].breaker.state = TargetState.UNKNOWN


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
    play.serving._permits.exchange(play.serving.backlog, 999.0, start=True)


def _ended(play: Play) -> None:
    """Its row has to be judged, whatever it says now."""
    play.rows.notified.take(1)
    play.ends(LOST)


def _later(play: Play) -> None:
    play.serving.backlog.put(Pending((10, 2, 2), "root", 1 << 60))


def _aside(play: Play) -> None:
    play.serving.backlog.set_aside(Pending((10, 2, 2), "root", None))


def _aside_elsewhere(play: Play) -> None:
    """It may be the very job that is announced, in another channel now."""
    play.serving.backlog.set_aside(Pending((10, 2, 2), "root.other", None))


def _paused(play: Play) -> None:
    play.serving.backlog.set_paused({"root": None})


def _elsewhere_before(play: Play) -> None:
    play.serving._guess.note_started("root.other")


def _closed(play: Play) -> None:
    play.table.core.words[Header.START_BARRIER] = 0


def _reading(play: Play) -> None:
    play.serving.backlog.begin_read()


def _long(play: Play) -> None:
    play.rows.notified.take(1)
    play.rows.notified.append(Notify(play.rows.notified.own_pid + 1, "queue_job", "u" * 257))


@pytest.mark.parametrize(
    "prepare",
    [
        _unproven,
        _taken,
        _waiting,
        _waiting_elsewhere,
        _ended,
        _later,
        _aside,
        _aside_elsewhere,
        _paused,
        _elsewhere_before,
        _closed,
        _reading,
        _long,
    ],
)
def test_nothing_is_guessed(announced: Play, prepare: Callable[[Play], None]) -> None:
    """Where another one is next, or it could not start, or nothing speaks for the guess."""
    prepare(announced)
    announced.serving.turn(1000.0, start=True)
    assert not announced.rows.guesses
    assert not announced.serving.backlog.is_held(GUESS)
    assert GUESS not in announced.serving.backlog._pending
    announced.serving.settle()
    assert announced.running == len(announced.serving.backlog.holding())


@pytest.mark.parametrize(
    "announced",
    [ChannelSpec(name="root", capacity=2, throttle_s=5), ChannelSpec(name="root", capacity=1, sequential=True)],
    indirect=True,
)
def test_nothing_is_guessed_where_a_start_is_counted_or_has_its_place(announced: Play) -> None:
    announced.serving.turn(1000.0, start=True)
    assert not announced.rows.guesses
    assert announced.rows.claims == [1]


def test_what_was_decided_before_is_claimed_first(announced: Play) -> None:
    announced.serving.backlog.put(Pending((10, 2, 2), "root", None))
    announced.serving._permits.exchange(announced.serving.backlog, 999.0, start=True)
    announced.serving.turn(1000.0, start=True)
    assert announced.rows.claims[:1] == [2]
    assert not announced.rows.guesses


def test_nothing_is_guessed_of_several_or_at_the_end(announced: Play) -> None:
    announced.serving.turn(1000.0, start=False)
    announced.rows.notified.append(Notify(announced.rows.notified.own_pid + 1, "queue_job", "u"))
    announced.rows.notified.append(Notify(announced.rows.notified.own_pid + 1, "queue_job", "v"))
    announced.serving.turn(1000.1, start=True)
    assert not announced.rows.guesses
