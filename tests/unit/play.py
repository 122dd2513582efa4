"""A worker's serving that tests can drive turn by turn: one row, one request, a clock of the test's own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence

from psycopg2.extensions import Notify

from qjsupervisor import logs
from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config.settings import TargetSettings
from qjsupervisor.errors import DatabaseError
from qjsupervisor.job import Job
from qjsupervisor.loop import Deadline, Loop
from qjsupervisor.odoo.dispatcher import Dispatcher, Ended
from qjsupervisor.odoo.request import End, RequestOutcome
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.waiter import Waiter
from qjsupervisor.states import Fairness
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.table.slot import WorkerSlot
from qjsupervisor.worker.jobs import State
from qjsupervisor.worker.serving import Serving
from qjsupervisor.worker.trees import shared_tree

NOT_FOUND = RequestOutcome(End.ANSWERED, 404, "HTTP 404")


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
        #: Called while the next statement is under way.
        self.before_answer: Callable[[], None] | None = None

    def turn(
        self, claim: Mapping[int, int], uuids: Sequence[str], unseen_in: str | None = None
    ) -> tuple[list[Job], list[Job]]:
        if self.error is not None:
            raise self.error
        if self.before_answer is not None:
            before, self.before_answer = self.before_answer, None
            before()
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

    def read_ids(self, ids: Iterable[int]) -> list[Job]:
        return [Job(i, f"u{i}", "root", "pending", (10, 1, i), None) for i in ids]

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
            self.rows, worker_slot, tree, self.dispatcher, log, log, lambda: Deadline(loop, lambda _now_s: None)
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

    def ends(self, outcome: RequestOutcome) -> None:
        self.dispatcher.ended.append(Ended("u", self.dispatcher.targets[0], outcome, 0.1))

    def ends_done(self) -> None:
        """The first job is over, and its permit is free."""
        self.rows.state = self.rows.read_as = "done"
        self.ends(RequestOutcome(End.ANSWERED, 200, "HTTP 200"))
        self.turn(999.0)

    @property
    def running(self) -> int:
        """Permits of the root, as every other worker sees them."""
        return self.table.channel_views()[0].running
