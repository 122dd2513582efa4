"""One capacity over several supervisors, under every fault that hypothesis can think of.

Real shared tables, real brokers, the real ledger; the coordinator is a document in memory that loses statements and
answers, restarts and forgets. Property: the jobs that run are never more than a channel's capacity.
"""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qjsupervisor.broker.broker import Broker
from qjsupervisor.broker.ledger import Answer, Ledger, Statement
from qjsupervisor.broker.rules import FORGET_S, LEASE_S, execute
from qjsupervisor.broker.settings import BrokerSettings
from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.control import Pipe
from qjsupervisor.errors import DatabaseUnavailable
from qjsupervisor.states import Fairness
from qjsupervisor.table.layout import Header
from qjsupervisor.table.leases import LeaseTable
from qjsupervisor.table.semaphore import SemaphoreTable

CAPACITIES = {"root": 3, "root.s": 1}
CHANNELS = [
    ChannelSpec(name=name, capacity=capacity, sequential=name == "root.s") for name, capacity in CAPACITIES.items()
]
DATABASES = ("a", "b", "c")
MEMBERS = 3

#: Seconds on a machine of its own, and several times that on one that does much else.
pytestmark = pytest.mark.timeout(300)


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

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
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
        settings = BrokerSettings(cluster="c", member=self.name, master_pid=1, dsn=())
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


members = st.integers(0, MEMBERS - 1)
databases = st.sampled_from(DATABASES)
faults = st.sampled_from(["", "", "", "", "statement lost", "answer lost"])


class Cluster(RuleBasedStateMachine):
    """What may happen."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.made = 0
        self.members = [self._new() for _ in range(MEMBERS)]
        for member, database in zip(self.members, DATABASES, strict=True):
            member.lead(database)
            member.step("")
        self.replicate()

    def _new(self) -> Supervisor:
        self.made += 1
        return Supervisor(self.world, f"m{self.made}")

    @rule(member=members, fault=faults)
    def talk(self, member: int, fault: str) -> None:
        self.members[member].step(fault)

    @rule(database=databases)
    def work(self, database: str) -> None:
        owner = self.world.owner[database]
        if owner is not None:
            owner.turn(database)

    @rule(database=databases, channel=st.sampled_from(sorted(CAPACITIES)))
    def finish(self, database: str, channel: str) -> None:
        rows, owner = self.world.rows[database], self.world.owner[database]
        if rows[channel]:
            rows[channel] -= 1
            if owner is not None:
                jobs, number = owner.jobs[database], owner.index[channel]
                jobs.held[number] -= 1
                jobs.changed.add(number)
                jobs.waiting[number] += 1
                owner.turn(database)

    @rule(database=databases, member=members)
    def move(self, database: str, member: int) -> None:
        """Its server loses the lock, and another one gets it; or the same."""
        owner, other = self.world.owner[database], self.members[member]
        if owner is not None:
            owner.lose(database)
        other.lead(database)
        if owner is not None and owner is not other:
            owner.stand_by(database)

    @rule(member=members)
    def restart_broker(self, member: int) -> None:
        self.members[member].end_broker()
        self.members[member].start_broker()

    @rule(member=members)
    def die(self, member: int) -> None:
        dead = self.members[member]
        self.members[member] = self._new()
        dead.end()
        for database, owner in self.world.owner.items():
            if owner is dead:
                self.world.owner[database] = None

    @rule(database=databases, member=members)
    def take_over(self, database: str, member: int) -> None:
        if self.world.owner[database] is None:
            self.members[member].lead(database)

    @rule(cut_off=st.sets(members, max_size=MEMBERS))
    def wait(self, cut_off: set[int]) -> None:
        """Ten seconds; who is not cut off renews. Own deadlines come before the ledger's."""
        if self._guarded() and self.world.ledger.barrier_until_s > self.world.now_s:
            return
        # Not as long as to be forgotten: what then still runs is not counted any more, and an error line says so.
        patient = {n for n in cut_off if self.world.now_s - self.members[n].coordinator.answered_s < FORGET_S / 2}
        self._lead_all()
        self._pass(10.0, patient)

    @rule()
    def settle_down(self) -> None:
        """Two lease times in which everybody talks, and each database is led: as a barrier assumes."""
        self._lead_all()
        for _ in range(4):
            self._pass(10.0, set())

    def _lead_all(self) -> None:
        for database, owner in self.world.owner.items():
            if owner is None and any(self.world.rows[database].values()):
                self.members[0].lead(database)

    def _pass(self, seconds: float, cut_off: set[int]) -> None:
        self.world.now_s += seconds
        for number, member in enumerate(self.members):
            if number in cut_off and self.world.now_s >= member.coordinator.answered_s + LEASE_S - 1:
                member.table.core.words[Header.LEASE_UNTIL_NS] = 0
        for number, member in enumerate(self.members):
            if number not in cut_off:
                member.coordinator.fault, member.coordinator.tells = "", True
                member.broker.step(1e12)
                member.coordinator.tells = False
                member.broker.step(1e12)

    def _guarded(self) -> bool:
        """After a loss of history: a barrier's assumption has to be kept (settle_down)."""
        return self.world.ledger.barrier_until_s > 0

    @rule()
    def replicate(self) -> None:
        self.world.saved = Ledger.from_json(copy.deepcopy(self.world.ledger.to_json()))

    @rule(loses=st.booleans())
    def fail_over(self, loses: bool) -> None:
        self.world.incarnation += 1
        if loses:
            self.world.ledger = Ledger.from_json(copy.deepcopy(self.world.saved.to_json()))
        for member in self.members:
            member.coordinator.fault = "statement lost"
            member.broker.step(1e12)
        for member in self.members:
            member.broker.step(1e12)

    def teardown(self) -> None:
        for member in getattr(self, "members", []):
            member.end()

    @invariant()
    def never_over(self) -> None:
        if hasattr(self, "world"):
            for channel, capacity in CAPACITIES.items():
                assert self.world.running(channel) <= capacity, (channel, self.world.rows, self.world.ledger)


Cluster.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCluster = Cluster.TestCase
