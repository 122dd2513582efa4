"""Supervisors of one cluster in one process: real tables and brokers, and a coordinator in memory that fails."""

from __future__ import annotations

import copy
import os
from typing import Any

from qjsupervisor.broker.broker import Broker
from qjsupervisor.broker.ledger import Answer, Ledger, Statement
from qjsupervisor.broker.rules import execute
from qjsupervisor.broker.settings import BrokerSettings
from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.control import Pipe
from qjsupervisor.errors import DatabaseUnavailable
from qjsupervisor.states import Fairness
from qjsupervisor.table.leases import LeaseTable
from qjsupervisor.table.semaphore import SemaphoreTable

CAPACITIES = {"root": 3, "root.s": 1}
CHANNELS = [
    ChannelSpec(name=name, capacity=capacity, sequential=name == "root.s") for name, capacity in CAPACITIES.items()
]
DATABASES = ("a", "b", "c")


class World:
    """The coordinator, and what is true of the databases."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.saved = Ledger()
        self.now_s = 1000.0
        self.incarnation = 1
        #: Running jobs by database and channel; they outlive everybody.
        self.rows: dict[str, dict[str, int]] = {name: dict.fromkeys(CAPACITIES, 0) for name in DATABASES}
        self.owner: dict[str, Supervisor | None] = dict.fromkeys(DATABASES)
        self.terms = dict.fromkeys(DATABASES, 0)

    def running(self, channel: str) -> int:
        below = [name for name in CAPACITIES if name == channel or name.startswith(channel + ".")]
        return sum(rows[name] for rows in self.rows.values() for name in below)


class FakeCoordinator:
    """One broker's session; `fault` is what becomes of its next statement."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.fault = ""
        self.connected = False
        #: It tells the broker to look, which then says something, and so renews its lease.
        self.tells = False
        self.ledger, self.clock_s = Ledger(), 0.0
        self.sent_s = 0.0
        self.answered_s = -1e9
        self._fd = os.eventfd(0)

    def connect(self) -> None:
        self.connected = True

    def fileno(self) -> int:
        return self._fd

    def heard(self, _member: str) -> bool:
        return self.tells

    def close(self) -> None:
        self.connected = False

    def end(self) -> None:
        os.close(self._fd)

    def execute(self, said: Statement) -> Answer:
        fault, self.fault = self.fault, ""
        if fault == "statement lost":
            self.close()
            raise DatabaseUnavailable("ledger", fault)
        # As JSON, like the real one.
        ledger = Ledger.from_json(self._world.ledger.to_json())
        answer = execute(ledger, copy.deepcopy(said), self._world.now_s, str(self._world.incarnation))
        self._world.ledger = ledger
        if fault == "answer lost":
            self.close()
            raise DatabaseUnavailable("ledger", fault)
        if answer.ok:
            self.answered_s = self._world.now_s
        return answer


class Jobs:
    """A worker's queue, as the table sees it."""

    def __init__(self, waiting: dict[int, int], held: dict[int, int]) -> None:
        self.waiting = waiting
        self.held = held
        self.failed: dict[int, int] = {}
        self.changed: set[int] = set()
        self.new_heads: set[int] = set()
        self.withdrawn: list[int] = []
        self.may_start = True
        self.tree_generation = 1
        self.taken: list[int] = []

    @property
    def wanted_channels(self) -> int:
        return sum(1 << channel for channel, n in self.waiting.items() if n) if self.may_start else 0

    def best(self, candidates: int) -> int:
        return next(channel for channel, n in self.waiting.items() if n and candidates >> channel & 1)

    def key(self, _channel: int) -> tuple[int, int, int]:
        return (0, 0, 0)

    def order(self) -> list[int]:
        return [channel for channel, n in self.waiting.items() if n] if self.may_start else []

    def take(self, channel: int) -> None:
        self.waiting[channel] -= 1
        self.held[channel] = self.held.get(channel, 0) + 1
        self.new_heads.add(channel)
        self.taken.append(channel)


class Supervisor:
    """A table, a broker, and a worker for each database."""

    def __init__(self, world: World, name: str, floor: tuple[tuple[str, int], ...] = ()) -> None:
        self.world, self.name, self.floor = world, name, floor
        self.table = SemaphoreTable(CHANNELS, slots=len(DATABASES), fairness=Fairness.ROUND_ROBIN, leased=True)
        self.table.open_start_barrier()
        for slot, database in enumerate(DATABASES):
            self.table.assign(slot, database, 1)
        self.slots = {database: self.table.worker_slot(slot) for slot, database in enumerate(DATABASES)}
        for each in self.slots.values():
            each.attach()
        self.index = self.table.core.tree().index
        self.jobs: dict[str, Jobs] = {}
        self.start_broker()

    def start_broker(self) -> None:
        self.coordinator = FakeCoordinator(self.world)
        settings = BrokerSettings(
            cluster="c", member=self.name, master_pid=int(self.name[1:]), heartbeat_s=1, floor=self.floor, dsn=()
        )
        coordinator: Any = self.coordinator
        self._pipes = Pipe.pair()
        self.broker = Broker(settings, LeaseTable(self.table), self._pipes[0], coordinator)

    def end_broker(self) -> None:
        self.broker.close()
        self.coordinator.end()
        for pipe in self._pipes:
            pipe.close()

    def end(self) -> None:
        self.end_broker()
        for descriptor in [*self.table.core.wakeups, self.table.core.broker_wakeup]:
            os.close(descriptor)

    def step(self, fault: str) -> None:
        self.coordinator.fault = fault
        self.broker.step(1e12)

    def lead(self, database: str) -> None:
        """Its worker gets the leader lock, counts what runs, and says so."""
        world, slot = self.world, self.slots[database]
        world.owner[database] = self
        world.terms[database] += 1
        slot.take_back()
        held = {self.index[channel]: n for channel, n in world.rows[database].items() if n}
        jobs = self.jobs[database] = Jobs(dict.fromkeys(self.index.values(), 2), held)
        jobs.may_start = False
        slot.exchange(jobs)
        slot.begin_tenure(world.terms[database])

    def turn(self, database: str) -> None:
        """Its worker starts what may start."""
        slot, jobs = self.slots[database], self.jobs[database]
        jobs.may_start = slot.is_served
        slot.exchange(jobs)
        names = {number: name for name, number in self.index.items()}
        for channel in jobs.taken:
            self.world.rows[database][names[channel]] += 1
        jobs.taken.clear()

    def lose(self, database: str) -> None:
        self.slots[database].end_tenure()
        jobs = self.jobs[database]
        jobs.may_start = False
        self.slots[database].exchange(jobs)

    def stand_by(self, database: str) -> None:
        if self.slots[database].holds_any:
            self.slots[database].hand_over()
