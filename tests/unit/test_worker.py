"""When a worker wakes: a moment that is over must not wake it again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from qjsupervisor.backoff import GIVE_UP_S
from qjsupervisor.config.load import load
from qjsupervisor.control import Pipe
from qjsupervisor.states import Phase, TargetState
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.worker.worker import Worker

NOT_SERVING = [Phase.DISCONNECTED, Phase.BLOCKED, Phase.STANDBY]


class Rig:
    """A worker that does not serve, and whose next attempt to do so is an hour away."""

    def __init__(self) -> None:
        config = load({}, {"ODOO_QUEUE_JOB_CHANNELS": "root:1", "ODOO_RC": "/dev/null"})
        self.table = table = SemaphoreTable(config.channels, slots=1, fairness=config.fairness)
        table.assign(0, "db", 1)
        self.settings = config.worker_settings("db")
        self.master, self.pipe = Pipe.pair()
        self.worker = Worker(self.settings, table.worker_slot(0), self.pipe)
        self.worker.progress.next_step.set(time.monotonic() + 3600)

    def turn(self, phase: Phase) -> float:
        """Turns until nothing is left to do; how long the worker would wait after that."""
        self.worker.progress.phase = phase
        self.worker.turn(more=True)
        while self.worker.parts.loop.next_s() <= time.monotonic():
            self.worker.turn(more=False)
        return self.worker.parts.loop.next_s() - time.monotonic()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.worker.close()
    made.master.close()
    made.pipe.close()


@pytest.mark.parametrize("held", [2, 0])
@pytest.mark.parametrize("phase", [Phase.DISCONNECTED, Phase.BLOCKED])
def test_permits_of_a_predecessor_are_given_up_where_nobody_can_read(rig: Rig, phase: Phase, held: int) -> None:
    """It died, and its database is not fit now: another one's jobs do not wait for that for ever."""
    rig.table.core.add_held(0, 0, held, 0)
    rig.table.core.set_failed(0, 0, 1, 0)
    rig.turn(phase)
    assert rig.table.channel_views()[0].running == held
    assert rig.worker.progress.give_up.at_s == pytest.approx(time.monotonic() + GIVE_UP_S, abs=5)
    rig.worker.progress.give_up.ring()
    rig.turn(phase)
    assert rig.table.channel_views()[0].running == 0
    assert rig.table.channel_views()[0].failed == 0
    assert not rig.worker.parts.worker_slot.holds_any


@pytest.mark.parametrize("phase", NOT_SERVING)
def test_the_end_of_a_pause_wakes_once(rig: Rig, phase: Phase) -> None:
    now_s = time.monotonic()
    rig.master.send({"do": "pauses", "pauses": {"root": now_s - 1, "root.a": now_s + 0.2, "root.b": None}})
    assert 0 < rig.turn(phase) <= 0.2
    assert set(rig.worker.instructions.pauses) == {"root.a", "root.b"}, "none is in force that is over"
    rig.worker.turn(more=False)
    assert set(rig.worker.instructions.pauses) == {"root.b"}
    assert rig.turn(phase) > 1


@pytest.mark.parametrize("phase", NOT_SERVING)
def test_a_target_that_is_down_wakes_nobody_who_does_not_serve(rig: Rig, phase: Phase) -> None:
    """Who does not serve sends no probe of a job there, so its pause may be over for long."""
    (target,) = rig.worker.parts.dispatcher.targets
    now_s = time.monotonic()
    target.breaker.failed(now_s - 3600, "Connection refused", "1")
    assert target.breaker.state is TargetState.DOWN
    assert target.breaker.retry_at_s < now_s
    rig.master.send({"do": "pauses", "pauses": {}})
    assert rig.turn(phase) > 1
