"""One capacity over several supervisors, under every fault that hypothesis can think of.

Real shared tables, real brokers, the real ledger; the coordinator is a document in memory that loses statements and
answers, restarts and forgets. Property: the jobs that run are never more than a channel's capacity.
"""

from __future__ import annotations

import copy

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qjsupervisor.broker.ledger import Ledger
from qjsupervisor.broker.rules import FORGET_S, LEASE_S
from qjsupervisor.table.layout import Header

from .clusters import CAPACITIES, DATABASES, Supervisor, World

MEMBERS = 3

#: Seconds on a machine of its own, and several times that on one that does much else.
pytestmark = pytest.mark.timeout(300)


members = st.integers(0, MEMBERS - 1)
databases = st.sampled_from(DATABASES)
#: What the first supervisor keeps for when it is cut off.
FLOOR = (("root", 1),)
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
        return Supervisor(self.world, f"m{self.made}", FLOOR if self.made == 1 else ())

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
        # What runs within its floor is not forgotten, however long that takes.
        patient |= {n for n in cut_off if self._is_within_floor(self.members[n])}
        self._lead_all()
        self._pass(10.0, patient)

    def _is_within_floor(self, member: Supervisor) -> bool:
        mine = [database for database, owner in self.world.owner.items() if owner is member]
        served = [database for database in mine if member.slots[database].is_served]
        return served == mine != [] and all(
            sum(self.world.rows[name][channel] for name in mine) <= dict(member.floor).get(channel, 0)
            for channel in CAPACITIES
        )

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
