"""WorkerProcess: every move of the state machine, every deadline."""

from __future__ import annotations

import errno
import math
import signal
from typing import Any

import pytest

from qjsupervisor.backoff import Backoff, RestartPolicy
from qjsupervisor.errors import ProtocolError
from qjsupervisor.master.database_log import DatabaseLog
from qjsupervisor.master.worker_process import TRANSITIONS, TimeLimits, WorkerProcess
from qjsupervisor.states import EXIT_FAULT, EXIT_GONE, WorkerState
from tests.unit.supervised import FakeChild, FakeLoop, FakeSpawner

S = WorkerState
LIMITS = TimeLimits(boot_s=60, graceful_s=8, hang_s=30)


class Rig:
    """One worker process at a time that the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.spawner = FakeSpawner()
        self.timers = FakeLoop()
        self.dues: list[float] = []
        policy = RestartPolicy(Backoff(jitter=0))
        database_log = DatabaseLog(FakeLoop(), lambda: self.now_s)
        log = database_log.of("db1", slot=0)
        self.worker = WorkerProcess("db1", 0, "settings", LIMITS, self.timers, self._due, log, policy)

    def _due(self, worker: WorkerProcess, now_s: float) -> None:
        assert worker is self.worker
        self.dues.append(now_s)

    def spawn(self) -> FakeChild:
        assert self.worker.spawn(self.spawner, lambda _: 0, self.now_s)  # type: ignore[arg-type]
        return self.child

    @property
    def child(self) -> FakeChild:
        return self.spawner.children[-1]

    def say(self, *messages: dict[str, Any] | Exception) -> None:
        self.child.pipe.said += messages
        self.worker.receive(self.now_s)

    def step(self, after_s: float = 0.0, heartbeat_age_s: float = 0.0) -> list[int]:
        """What signals it got so far."""
        self.now_s += after_s
        self.timers.run_until(self.now_s)
        self.worker.check(self.now_s, heartbeat_age_s)
        return self.child.signals

    def reap(self, exit_code: int) -> None:
        self.worker.reaped(exit_code, self.now_s)

    def into(self, state: WorkerState) -> None:
        """From the beginning to a state."""
        if state is S.BACKING_OFF:
            return
        if state is S.FAILED:
            self.worker.fail("unfit")
            return
        self.spawn()
        if state is S.STOPPING:
            self.worker.stop(self.now_s, reason="because")
        elif state is not S.STARTING:
            self.say({"is": state.value})
        assert self.worker.state is state


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_table_knows_every_state_and_no_way_to_itself() -> None:
    assert set(TRANSITIONS) == set(WorkerState)
    assert not [state for state, following in TRANSITIONS.items() if state in following]


ALIVE = (S.STARTING, S.STANDBY, S.READY, S.BLOCKED)


@pytest.mark.parametrize("state", ALIVE)
@pytest.mark.parametrize("said", ALIVE)
def test_what_a_living_worker_says_is_believed(rig: Rig, state: WorkerState, said: WorkerState) -> None:
    rig.into(state)
    rig.say({"is": said.value, "reason": "told"})
    assert rig.worker.state is said
    assert rig.worker.reason == "told"


@pytest.mark.parametrize("said", ALIVE)
def test_what_a_stopping_worker_says_changes_nothing(rig: Rig, said: WorkerState) -> None:
    rig.into(S.STOPPING)
    rig.say({"is": said.value})
    assert rig.worker.state is S.STOPPING


@pytest.mark.parametrize(
    ("state", "exit_code", "following"),
    [
        *((state, EXIT_FAULT, S.BACKING_OFF) for state in ALIVE),
        *((state, -9, S.BACKING_OFF) for state in ALIVE),
        *((state, 0, S.BACKING_OFF) for state in ALIVE),
        *((state, EXIT_GONE, S.FAILED) for state in ALIVE),
        (S.STOPPING, 0, S.FAILED),
        (S.STOPPING, -9, S.FAILED),
    ],
)
def test_after_its_death(rig: Rig, state: WorkerState, exit_code: int, following: WorkerState) -> None:
    rig.into(state)
    rig.reap(exit_code)
    assert rig.worker.state is following
    assert rig.worker.pid is None
    assert rig.child.pipe.closed
    assert rig.worker.restarts == (0 if state is S.STOPPING else 1)


def test_a_crash_loop_is_backed_off_for_ever_and_health_resets(rig: Rig) -> None:
    pauses = []
    for _ in range(8):
        rig.spawn()
        rig.reap(EXIT_FAULT)
        pauses.append(rig.worker.due_s - rig.now_s)
        rig.now_s = rig.worker.due_s
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    rig.spawn()
    rig.say({"is": "ready"})
    rig.now_s += 30
    rig.reap(EXIT_FAULT)
    assert rig.worker.due_s - rig.now_s == 1
    assert rig.worker.restarts == 9


def test_being_alive_without_being_well_is_no_health(rig: Rig) -> None:
    rig.spawn()
    rig.reap(EXIT_FAULT)
    rig.spawn()
    rig.say({"is": "ready"}, {"is": "starting", "reason": "connection lost"})
    rig.now_s += 50
    rig.reap(EXIT_FAULT)
    assert rig.worker.due_s - rig.now_s == 2


def test_the_reason_of_a_death_is_kept(rig: Rig) -> None:
    rig.spawn()
    rig.child.pipe.said = [{"is": "error", "reason": "ValueError: x"}]
    rig.reap(EXIT_FAULT)
    assert rig.worker.last_error == "exit code 70: ValueError: x"
    rig.spawn()
    rig.say({"is": "ready"})
    assert rig.worker.last_error == "exit code 70: ValueError: x"
    rig.now_s += 5
    rig.reap(-signal.SIGSEGV)
    assert rig.worker.last_error == "killed by signal 11 (SIGSEGV)"
    assert rig.worker.last_error_s == rig.now_s


def test_no_room_for_a_process(rig: Rig) -> None:
    for pause_s in (1, 2, 4):
        rig.spawner.error = OSError(errno.EAGAIN, "Resource temporarily unavailable")
        assert not rig.worker.spawn(rig.spawner, lambda _: 0, rig.now_s)  # type: ignore[arg-type]
        assert rig.worker.state is S.BACKING_OFF
        assert rig.worker.due_s == rig.now_s + pause_s
    assert rig.worker.last_error == "no process could be started: Resource temporarily unavailable"
    rig.spawn()
    assert rig.worker.state is S.STARTING


# -- deadlines -----------------------------------------------------------------------------------------------


def test_one_that_never_becomes_ready(rig: Rig) -> None:
    rig.spawn()
    assert rig.timers.next_s() == rig.now_s + 60
    rig.say({"is": "starting", "reason": "connection refused"})
    assert rig.step(59.9) == []
    assert rig.step(0.1) == [signal.SIGABRT]
    assert rig.step(0.9) == [signal.SIGABRT]
    assert rig.step(0.1) == [signal.SIGABRT, signal.SIGKILL]
    assert rig.step(50) == [signal.SIGABRT, signal.SIGKILL]
    rig.reap(-9)
    assert rig.worker.last_error == "killed by signal 9 (SIGKILL): not ready within 60 s: connection refused"


@pytest.mark.parametrize("state", [S.READY, S.STANDBY, S.BLOCKED])
def test_one_that_was_well_once_may_take_its_time_to_reconnect(rig: Rig, state: WorkerState) -> None:
    rig.into(state)
    rig.say({"is": "starting", "reason": "PostgreSQL is away"})
    assert rig.step(3600) == []
    assert rig.timers.next_s() == math.inf


@pytest.mark.parametrize("state", [S.READY, S.STANDBY, S.BLOCKED, S.STARTING])
def test_one_that_hangs(rig: Rig, state: WorkerState) -> None:
    rig.into(state)
    assert rig.step(31, heartbeat_age_s=29) == []
    assert rig.step(0, heartbeat_age_s=31) == [signal.SIGABRT]
    assert rig.step(1, heartbeat_age_s=32) == [signal.SIGABRT, signal.SIGKILL]
    rig.reap(-6)
    assert "no sign of life for 30 s" in (rig.worker.last_error or "")


def test_the_stamp_of_the_life_before_hangs_nobody(rig: Rig) -> None:
    rig.spawn()
    assert rig.step(5, heartbeat_age_s=500) == []


def test_stop_is_an_order_then_a_kill(rig: Rig) -> None:
    rig.into(S.READY)
    rig.worker.stop(rig.now_s, reason="because")
    assert rig.child.pipe.told == [{"do": "stop"}]
    assert rig.child.signals == []
    assert rig.step(7.9) == []
    assert rig.step(0.1) == [signal.SIGKILL]


def test_one_that_does_not_take_the_order_gets_a_signal(rig: Rig) -> None:
    rig.into(S.READY)
    rig.child.pipe.full = True
    rig.worker.stop(rig.now_s, reason="because")
    assert rig.child.signals == [signal.SIGTERM]


def test_a_restart_is_no_fault_and_waits_for_nothing(rig: Rig) -> None:
    rig.into(S.READY)
    rig.worker.stop(rig.now_s, reason="settings changed", restart=True)
    rig.now_s += 1
    rig.reap(0)
    assert rig.worker.is_due
    assert rig.worker.due_s == rig.now_s
    assert rig.worker.restarts == 0
    assert rig.worker.last_error is None


def test_wanted_again_while_it_stops(rig: Rig) -> None:
    rig.into(S.STOPPING)
    rig.worker.want_again(rig.now_s)
    rig.reap(0)
    assert rig.worker.is_due


def test_dropped_while_it_restarts(rig: Rig) -> None:
    rig.into(S.READY)
    rig.worker.stop(rig.now_s, reason="settings", restart=True)
    rig.worker.stop(rig.now_s, reason="gone")
    rig.reap(0)
    assert rig.worker.state is S.FAILED


def test_a_failed_one_comes_back_not_before_its_pause(rig: Rig) -> None:
    rig.into(S.READY)
    rig.reap(EXIT_GONE)
    assert rig.timers.next_s() == math.inf
    rig.worker.want_again(rig.now_s)
    assert rig.worker.is_due
    rig.timers.run_until(rig.now_s + 0.9)
    assert rig.dues == []
    rig.timers.run_until(rig.now_s + 1)
    assert rig.dues == [rig.now_s + 1]


# -- the pipe ------------------------------------------------------------------------------------------------


def test_nonsense_ends_it(rig: Rig) -> None:
    rig.into(S.READY)
    rig.say(ProtocolError("a frame of 3 bytes is no JSON"))
    assert rig.child.signals == [signal.SIGABRT]
    rig.reap(-6)
    assert "sent nonsense: a frame of 3 bytes is no JSON" in (rig.worker.last_error or "")


@pytest.mark.parametrize("message", [{"is": "backing off"}, {"is": ["read"]}, {"is": None}, {}])
def test_a_message_that_does_not_exist_is_nonsense(rig: Rig, message: dict[str, Any]) -> None:
    rig.into(S.READY)
    rig.say(message)
    assert rig.child.signals == [signal.SIGABRT]


def test_an_end_without_a_death_is_followed_by_a_kill(rig: Rig) -> None:
    rig.into(S.READY)
    rig.say(EOFError())
    assert rig.worker.life.pipe_ended
    assert rig.step(7.9) == []
    assert rig.step(0.1) == [signal.SIGKILL]


def test_settled_is_read_or_unable(rig: Rig) -> None:
    assert not rig.worker.is_settled
    rig.spawn()
    assert not rig.worker.is_settled
    rig.say({"is": "read"})
    assert rig.worker.is_settled
    for state in (S.STANDBY, S.BLOCKED, S.STOPPING, S.FAILED):
        other = Rig()
        other.into(state)
        assert other.worker.is_settled
    crashed = Rig()
    crashed.spawn()
    crashed.reap(EXIT_FAULT)
    assert not crashed.worker.is_settled, "its next worker will read the jobs that run"
    crashed.spawn()
    crashed.reap(EXIT_FAULT)
    assert crashed.worker.is_settled


def test_unread_since_its_death_until_it_is_read_again(rig: Rig) -> None:
    rig.into(S.READY)
    rig.say({"is": "read"})
    assert rig.worker.unread_since_s is None
    died_s = rig.now_s
    rig.reap(-9)
    rig.now_s += 10
    rig.spawn()
    rig.reap(-9)
    assert rig.worker.unread_since_s == died_s
    rig.spawn()
    rig.say({"is": "read"})
    assert rig.worker.unread_since_s is None


def test_a_hostile_name_stays_in_the_title_of_a_process(rig: Rig) -> None:
    rig.worker.database = "x\x1b[2J\ny"
    assert rig.spawn().title == "qjsupervisor: worker x\\x1b[2J\\ny"
