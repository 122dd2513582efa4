"""What a worker tells in the status: its reason, or its target's."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from qjsupervisor import logs
from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config.settings import TargetSettings
from qjsupervisor.control import Pipe
from qjsupervisor.loop import Deadline, Loop
from qjsupervisor.odoo.dispatcher import Dispatcher
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.waiter import Waiter
from qjsupervisor.states import Fairness, Phase
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.table.servers import private_servers
from qjsupervisor.worker.reporting import RATE_S, REPORT_S, Reporting
from qjsupervisor.worker.serving import Serving
from qjsupervisor.worker.trees import shared_tree


class Rig:
    """A worker that tells what it is about to the table and to its master."""

    def __init__(self, loop: Loop) -> None:
        root = ChannelSpec(name="root", capacity=1)
        self.table = SemaphoreTable([root], slots=1, fairness=Fairness.ROUND_ROBIN)
        self.table.assign(0, "db", 1)
        worker_slot = self.table.worker_slot(0)
        worker_slot.set_message("of a worker that died")
        targets = [TargetSettings(url="http://127.0.0.1:1")]
        self.dispatcher = Dispatcher(
            loop, targets, "db", private_servers(["a"]), connect_timeout_s=1, read_timeout_s=None
        )
        self.master, self.pipe = Pipe.pair()
        log = logs.silent_logger()
        database = Database("db", {}, Waiter(lambda: None))

        def deadline() -> Deadline:
            return Deadline(loop, lambda _now_s: None)

        tree = shared_tree(worker_slot, window=10)
        self.serving = Serving(database, worker_slot, tree, self.dispatcher, log, log, deadline)
        self.reporting = Reporting(worker_slot, self.pipe, self.dispatcher, log, deadline())
        self.now_s = 1000.0

    def write(self) -> None:
        self.now_s += REPORT_S
        self.reporting.write(self.serving, self.now_s, more=False)

    def close(self) -> None:
        self.dispatcher.close()
        self.master.close()
        self.pipe.close()

    @property
    def message(self) -> str:
        """As the status has it."""
        return self.table.slot_view(0).message


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Loop() as loop:
        made = Rig(loop)
        yield made
        made.close()


def test_the_reason_of_a_target_that_is_down_is_told_again_after_a_change_of_state(rig: Rig) -> None:
    rig.dispatcher.targets[0].breaker.failed(time.monotonic(), "Connection refused", "1")
    rig.write()
    assert rig.message == "Connection refused"
    rig.reporting.enter(Phase.DISCONNECTED, "the server does not answer")
    assert rig.message == "the server does not answer"
    rig.reporting.enter(Phase.SERVING, "")
    rig.write()
    assert rig.message == "Connection refused"


def test_the_reason_of_a_predecessor_is_taken_back(rig: Rig) -> None:
    rig.reporting.enter(Phase.SERVING, "")
    assert rig.message == ""


def test_the_rate_follows_what_ended_and_falls_to_nothing_by_itself(rig: Rig) -> None:
    def since() -> tuple[float, int]:
        view = rig.table.slot_view(0)
        return view.rate_since_ns / 1e9, view.finished - view.rate_finished

    rig.write()
    start_s = rig.now_s
    assert since() == (start_s, 0)
    rig.serving.finished = 30
    rig.write()
    rig.write()
    assert since() == (start_s, 30)
    assert rig.reporting.due.at_s == pytest.approx(start_s + RATE_S), (
        "it wakes for the next mark, though nothing happens"
    )
    for marks in (1, 2):
        rig.now_s = start_s + marks * RATE_S - REPORT_S
        rig.write()
    assert since() == (start_s + RATE_S, 0)
    assert rig.reporting.due.at_s == math.inf, "an idle worker sleeps"


def test_the_rate_after_a_long_rest_counts_no_rest(rig: Rig) -> None:
    rig.write()
    rig.now_s += 3600
    rig.serving.finished = 5
    rig.write()
    view = rig.table.slot_view(0)
    assert (view.rate_since_ns / 1e9, view.rate_finished) == (pytest.approx(rig.now_s - RATE_S), 0)
    rig.serving.finished = 1
    rig.write()
    assert rig.table.slot_view(0).rate_finished == 1, "counted anew"
