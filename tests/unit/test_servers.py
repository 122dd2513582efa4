"""The shared health of servers as a state machine: any order of what workers find, any death, any stop."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.states import ServerVerdict, TargetState
from qjsupervisor.table.layout import Header, Server
from qjsupervisor.table.servers import LEASE_NS, LONGEST_PAUSE_NS, ServerHealth

from .slots import Died, World

SLOTS = 4
NAMES = ("http://a:1", "http://b:1")
#: From the return of a server to that of all its databases.
RESUME_NS = 5_000_000_000

slots = st.integers(0, SLOTS - 1)
names = st.integers(0, len(NAMES) - 1)
#: In place of which store a process dies.
deaths = st.none() | st.integers(0, 14)

#: Seconds on a machine of its own, and several times that on one that does much else.
pytestmark = pytest.mark.timeout(300)


class Prober:
    """What one worker does about servers; its life ends with `healths`."""

    def __init__(self) -> None:
        self.healths: list[ServerHealth] = []
        self.stopped = False
        self.released = True
        #: The probes that are under way: when each began.
        self.probing: dict[int, int] = {}

    @property
    def alive(self) -> bool:
        return bool(self.healths)

    @property
    def responsive(self) -> bool:
        return self.alive and not self.stopped


class ServerMachine(RuleBasedStateMachine):
    """Two servers that go and come back, four workers that depend on both."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.world = World([ChannelSpec(name="root", capacity=1)], [1] * SLOTS)
        self.world.install_clock(self.patch)
        self.is_up = [True for _ in NAMES]
        self.workers = [Prober() for _ in range(SLOTS)]
        for slot in range(SLOTS):
            self.begin(slot)

    def teardown(self) -> None:
        try:
            self.all_resume()
        finally:
            self.patch.undo()
            self.world.close()

    def begin(self, slot: int) -> None:
        worker_slot = self.world.table.worker_slot(slot)
        worker_slot.attach()
        self.workers[slot].healths = worker_slot.attach_servers(NAMES)

    def mortal(self, slot: int, dies_at: int | None, act: object) -> None:
        assert callable(act)
        self.world.fuse.set(dies_at)
        try:
            act()
        except Died:
            self.world.fuse.set(None)
            self.kill(slot)
        finally:
            self.world.fuse.set(None)

    # -- the world -------------------------------------------------------------------------------------------

    @rule(name=names)
    def goes_or_comes_back(self, name: int) -> None:
        self.is_up[name] = not self.is_up[name]

    @rule(ms=st.sampled_from((1, 400, 3000, 30_000)))
    def time_passes(self, ms: int) -> None:
        self.world.now_ns += ms * 1_000_000

    @rule(slot=slots)
    def dies(self, slot: int) -> None:
        if self.workers[slot].alive:
            self.kill(slot)

    def kill(self, slot: int) -> None:
        worker = self.workers[slot]
        worker.healths, worker.probing = [], {}
        worker.released = worker.stopped = False
        self.world.mutex.holder_died()

    @rule(slot=slots)
    def stops_or_goes_on(self, slot: int) -> None:
        self.workers[slot].stopped = self.workers[slot].alive and not self.workers[slot].stopped

    @rule(slot=slots)
    def is_released(self, slot: int) -> None:
        worker = self.workers[slot]
        if not worker.alive and not worker.released:
            assert self.world.table.try_after_death(slot)
            worker.released = True
            for name in range(len(NAMES)):
                assert self.word(name, Server.PROBER) != slot + 1, "a dead prober is in office"

    @rule(slot=slots, dies_at=deaths)
    def new_life(self, slot: int, dies_at: int | None) -> None:
        worker = self.workers[slot]
        if not worker.alive and worker.released:
            self.mortal(slot, dies_at, lambda: self.begin(slot))

    # -- what workers find -----------------------------------------------------------------------------------

    @rule(slot=slots, name=names, dies_at=deaths, took_ms=st.sampled_from((0, 0, 500, 10_000)))
    def sends(self, slot: int, name: int, dies_at: int | None, took_ms: int) -> None:
        """A job; nobody sends one to a server that is down."""
        worker = self.workers[slot]
        if not worker.responsive or worker.healths[name].is_down:
            return
        health, began_ns = worker.healths[name], self.world.now_ns
        self.world.now_ns += took_ms * 1_000_000
        if self.is_up[name]:
            self.mortal(slot, dies_at, lambda: health.succeeded(self.world.now_ns))
        else:
            self.mortal(slot, dies_at, lambda: self.check_down(name, health.failed("refused", began_ns)))

    @rule(slot=slots, name=names, ago_ms=st.sampled_from((0, 700, 20_000)))
    def an_old_request_fails(self, slot: int, name: int, ago_ms: int) -> None:
        """It began before: what it tells of a server that came back meanwhile is of the past."""
        worker, began_ns = self.workers[slot], self.world.now_ns - ago_ms * 1_000_000
        if worker.responsive:
            was_down, since_ns = worker.healths[name].is_down, self.word(name, Server.SINCE_NS)
            went_down = worker.healths[name].failed("timed out", began_ns)
            assert went_down == (not was_down and began_ns >= since_ns)

    @rule(slot=slots, name=names, dies_at=deaths, answered=st.booleans())
    def request_ends(self, slot: int, name: int, dies_at: int | None, answered: bool) -> None:
        """With an answer, or let go."""
        if self.workers[slot].responsive:
            health, before = self.workers[slot].healths[name], self.word(name, Server.UNANSWERED)
            self.mortal(slot, dies_at, health.answered if answered else health.let_go)
            if self.workers[slot].alive:
                assert self.word(name, Server.UNANSWERED) == (0 if answered else before + 1)

    @rule(slot=slots, name=names, dies_at=deaths)
    def doubts(self, slot: int, name: int, dies_at: int | None) -> None:
        worker = self.workers[slot]
        if worker.responsive and not worker.healths[name].is_down:
            self.mortal(slot, dies_at, worker.healths[name].doubt)

    @rule(slot=slots, name=names, dies_at=deaths)
    def looks(self, slot: int, name: int, dies_at: int | None) -> None:
        """A turn of its loop: it begins a probe if it is the one to do so."""
        worker = self.workers[slot]

        def look() -> None:
            if name not in worker.probing and worker.healths[name].take_probe():
                worker.probing[name] = self.world.now_ns

        if worker.responsive:
            self.mortal(slot, dies_at, look)

    @rule(slot=slots, name=names, dies_at=deaths)
    def probe_ends(self, slot: int, name: int, dies_at: int | None) -> None:
        worker = self.workers[slot]
        if worker.responsive and name in worker.probing:
            health, began_ns = worker.healths[name], worker.probing.pop(name)
            self.mortal(slot, dies_at, lambda: self.end_probe(name, health, began_ns))

    def end_probe(self, name: int, health: ServerHealth, began_ns: int) -> None:
        was_down, is_up = health.is_down, self.is_up[name]
        verdict = health.probed(began_ns, "" if is_up else "refused")
        assert verdict is not ServerVerdict.CAME_BACK or (was_down and is_up)
        assert verdict is not ServerVerdict.WENT_DOWN or (not was_down and not is_up)
        stays_down = was_down and verdict is not ServerVerdict.CAME_BACK
        assert health.is_down == (verdict is ServerVerdict.WENT_DOWN or stays_down)

    def check_down(self, name: int, went_down: bool) -> None:
        assert self.state(name) is TargetState.DOWN or not went_down

    @rule(slot=slots)
    def releases(self, slot: int) -> None:
        if self.workers[slot].responsive:
            for name, health in enumerate(self.workers[slot].healths):
                health.release()
                assert self.word(name, Server.PROBER) != slot + 1

    # -- what must hold --------------------------------------------------------------------------------------

    def word(self, name: int, word: int) -> int:
        base = next(b for b in self.bases() if self.world.core.server_name(b) == NAMES[name])
        return int(self.world.core.words[base + word])

    def bases(self) -> list[int]:
        return [self.world.core.server_base(n) for n in range(self.world.core.words[Header.USED_SERVERS])]

    def state(self, name: int) -> TargetState:
        return TargetState(self.word(name, Server.STATE))

    @invariant()
    def one_record_each(self) -> None:
        assert sorted(self.world.core.server_name(base) for base in self.bases()) == sorted(NAMES)

    @invariant()
    def words_agree(self) -> None:
        if self.world.mutex.owner_died or self.world.core.words[Header.DIRTY]:
            return
        for name in range(len(NAMES)):
            prober, is_down = self.word(name, Server.PROBER), self.state(name) is TargetState.DOWN
            assert (self.word(name, Server.FAILURES) > 0) == is_down
            assert is_down or not self.word(name, Server.REASON_LENGTH)
            doubted = self.word(name, Server.DOUBT_NS) > self.word(name, Server.PROBED_NS)
            assert not prober or is_down or doubted, "somebody probes what nobody asks about"

    def step_all(self) -> list[int]:
        """What the loops of all that can do; when each has to do something next."""
        for slot in range(SLOTS):
            for name in range(len(NAMES)):
                self.looks(slot, name, None)
                self.probe_ends(slot, name, None)
        healths = [health for worker in self.workers if worker.responsive for health in worker.healths]
        return [int(end_s * 1e9) + 1 for end_s in (health.probe_due_s() for health in healths) if end_s is not None]

    @rule()
    def all_resume(self) -> None:
        """Everything is up for good: five seconds later nobody thinks otherwise, and nobody probes.

        A prober that is stopped, and not dead, is waited for until its lease is over.
        """
        for slot, worker in enumerate(self.workers):
            if not worker.alive:
                self.is_released(slot)
                self.new_life(slot, None)
        self.is_up = [True for _ in NAMES]
        limit_ns = RESUME_NS
        if any(worker.stopped for worker in self.workers):
            limit_ns += LEASE_NS
        if all(worker.stopped for worker in self.workers):
            return
        end_ns = self.world.now_ns + limit_ns
        while ends := self.step_all():
            assert min(ends) <= end_ns, "it takes too long"
            self.world.now_ns = max(self.world.now_ns + 1, min(ends))
        assert [self.state(name) is TargetState.DOWN for name in range(len(NAMES))] == [False, False]
        assert [self.word(name, Server.PROBER) for name in range(len(NAMES))] == [0, 0]


def test_pauses_are_short_enough() -> None:
    """A probe follows the return within the longest pause; what is left of five seconds is for the jobs."""
    assert LONGEST_PAUSE_NS * 2 < RESUME_NS


TestServerMachine = ServerMachine.TestCase
TestServerMachine.settings = settings(
    max_examples=80,
    stateful_step_count=50,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
