"""The shared table as a state machine: any order of what databases, workers and the master do, any death."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qjsupervisor.channelspec import ChannelSpec, Rate, Share
from qjsupervisor.states import Fairness

from .slots import Died, Worker, World

CHANNELS = ("root", "root.slow", "root.slow.deep", "root.seq", "root.calm", "root.free")
SLOTS = 4

databases = st.integers(0, SLOTS - 1)
channels = st.integers(0, len(CHANNELS) - 1)
#: In place of which store a process dies; a change has a few dozen of them.
deaths = st.none() | st.integers(2, 30)

#: Seconds on a machine of its own, and several times that on one that does much else.
pytestmark = pytest.mark.timeout(300)


databases_shares = st.builds(
    Share,
    st.sampled_from((0, 0, 1, 2)),
    st.sampled_from((None, None, 2, 3)),
    reserve=st.sampled_from((False, False, True)),
)
rates = st.none() | st.builds(Rate, st.integers(1, 4), st.integers(1, 3))


@st.composite
def trees(draw: st.DrawFn) -> list[ChannelSpec]:
    """The same channels, with other limits; half of the trees have minimums or weights."""
    capacity = st.integers(1, 4)
    has_minimums, has_weights = draw(st.booleans()), draw(st.booleans())

    def branch() -> dict[str, Any]:
        least = draw(st.sampled_from((0, 0, 1, 2))) if has_minimums else 0
        weight = draw(st.sampled_from((0, 1, 3))) if has_weights else 0
        return {"minimum": least, "reserve": bool(least) and draw(st.booleans()), "weight": weight}

    return [
        ChannelSpec(name="root", capacity=draw(capacity), paused=draw(st.integers(0, 9)) == 0),
        ChannelSpec(name="root.slow", capacity=draw(st.none() | st.integers(1, 2)), rate=draw(rates), **branch()),
        ChannelSpec(name="root.slow.deep", capacity=draw(st.none() | st.just(1)), **branch()),
        ChannelSpec(name="root.seq", capacity=1, sequential=True, **branch()),
        ChannelSpec(
            name="root.calm",
            capacity=draw(st.none() | capacity),
            throttle_s=draw(st.integers(0, 2)),
            rate=draw(rates),
            **branch(),
        ),
        ChannelSpec(name="root.free", capacity=None, **branch()),
    ]


class TableMachine(RuleBasedStateMachine):
    """Weights, fairness and the tree are drawn once; the rest is the rules' business."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.jobs = 0

    @initialize(
        specs=trees(),
        weights=st.lists(st.sampled_from((1, 1, 3)), min_size=SLOTS, max_size=SLOTS),
        fairness=st.sampled_from(Fairness),
        start_barrier=st.integers(0, 4),
        shares=st.just([]) | st.lists(databases_shares, min_size=SLOTS, max_size=SLOTS),
        jobs=st.lists(st.tuples(databases, channels), max_size=16),
    )
    def make(
        self,
        specs: list[ChannelSpec],
        weights: list[int],
        fairness: Fairness,
        start_barrier: int,
        shares: list[Share],
        jobs: list[tuple[int, int]],
    ) -> None:
        self.world = World(specs, weights, fairness, start_barrier=start_barrier > 0, shares=shares)
        self.world.install_clock(self.patch)
        for database, channel in jobs:
            self.jobs_arrive(database, channel, 1, 1)
        self.world.start_all()

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.drain()
        finally:
            self.patch.undo()
            if hasattr(self, "world"):
                self.world.close()

    # -- databases -------------------------------------------------------------------------------------------

    @rule(database=databases, channel=channels, priority=st.integers(0, 3), number=st.integers(1, 3))
    def jobs_arrive(self, database: int, channel: int, priority: int, number: int) -> None:
        worker = self.world.workers[database]
        for _ in range(number):
            self.jobs += 1
            key = (priority, self.jobs, self.jobs)
            if worker.queue is not None:
                worker.queue.arrive(channel, key)
            else:
                waiting = worker.database.waiting.setdefault(channel, [])
                waiting.append(key)
                waiting.sort()

    @rule(database=databases, which=st.integers(0, 9), failed=st.integers(0, 5))
    def job_ends(self, database: int, which: int, failed: int) -> None:
        worker = self.world.workers[database]
        if worker.database.running:
            worker.finish(which % len(worker.database.running), failed=failed == 0)

    @rule(database=databases, which=st.integers(0, 9))
    def next_job_takes_over(self, database: int, which: int) -> None:
        worker = self.world.workers[database]
        if worker.database.running and worker.may_succeed(which % len(worker.database.running)):
            assert worker.queue is not None
            worker.queue.succeed(which % len(worker.database.running))

    @rule(database=databases, number=st.integers(1, 3), dies_at=deaths)
    def jobs_end_and_it_turns(self, database: int, number: int, dies_at: int | None) -> None:
        for which in range(number):
            self.job_ends(database, which, 1)
        self.turn(database, dies_at)

    @rule(database=databases, channel=channels)
    def job_is_cancelled(self, database: int, channel: int) -> None:
        worker = self.world.workers[database]
        if worker.database.waiting.get(channel):
            if worker.queue is not None:
                worker.queue.cancel(channel)
            else:
                worker.database.waiting[channel].pop(0)

    @rule(database=databases)
    def failed_jobs_are_put_right(self, database: int) -> None:
        worker = self.world.workers[database]
        for channel in list(worker.database.failed):
            if worker.queue is not None:
                worker.queue.set_failed(channel, 0)
            else:
                worker.database.failed[channel] = 0

    @rule(database=databases, budget=st.integers(0, 3))
    def target_takes_so_many(self, database: int, budget: int) -> None:
        queue = self.world.workers[database].queue
        if queue is not None:
            queue.budget = budget

    # -- workers ---------------------------------------------------------------------------------------------

    @rule(database=databases, dies_at=deaths)
    def turn(self, database: int, dies_at: int | None) -> None:
        worker = self.world.workers[database]
        if worker.responsive:
            self._mortal(worker, worker.turn, dies_at)

    @rule(ms=st.sampled_from((0, 3, 100)), failing=st.integers(0, 2))
    def claims_take_long_or_fail(self, ms: int, failing: int) -> None:
        self.world.claim_ns, self.world.failing = ms * 1_000_000, failing

    @rule(
        database=databases,
        channel=channels,
        ages_s=st.lists(st.integers(0, 3), max_size=3),
        leaves=st.booleans(),
        dies_at=deaths,
    )
    def former_starts_are_read(
        self, database: int, channel: int, ages_s: list[int], leaves: bool, dies_at: int | None
    ) -> None:
        worker = self.world.workers[database]
        if not worker.responsive:
            return
        seat = worker.worker_slot
        assert seat is not None
        if seat.starts_unknown:
            self._mortal(worker, seat.await_starts, dies_at)
        elif not leaves:
            self.world.note_past_starts(channel, ages_s)
            self._mortal(worker, lambda: seat.end_starts({channel: ages_s}), dies_at)
        else:
            self._mortal(worker, seat.forget_starts, dies_at)

    @rule(database=databases, dies_at=deaths)
    def new_life(self, database: int, dies_at: int | None) -> None:
        worker = self.world.workers[database]
        if not worker.alive and worker.released:
            self._mortal(worker, worker.start, dies_at)

    def _mortal(self, worker: Worker, act: object, dies_at: int | None) -> None:
        assert callable(act)
        self.world.fuse.set(dies_at)
        try:
            act()
        except Died:
            self.world.fuse.set(None)
            worker.dies()
        finally:
            self.world.fuse.set(None)

    @rule(database=databases)
    def dies_outside(self, database: int) -> None:
        worker = self.world.workers[database]
        if worker.alive:
            worker.dies()

    @rule(database=databases)
    def stops_or_goes_on(self, database: int) -> None:
        worker = self.world.workers[database]
        if worker.alive:
            worker.stopped = not worker.stopped

    # -- the master ------------------------------------------------------------------------------------------

    @rule(database=databases)
    def release_the_dead(self, database: int) -> None:
        worker = self.world.workers[database]
        if not worker.alive and not worker.released:
            self.world.release(worker)

    @rule(database=databases)
    def give_up(self, database: int) -> None:
        worker = self.world.workers[database]
        if not worker.alive and worker.released:
            worker.database.running.clear()  # nobody counts them, here neither
            assert self.world.table.try_give_up(worker.slot)

    @precondition(lambda self: not self.world.table.start_barrier_open)
    @rule()
    def gate_opens(self) -> None:
        self.world.table.open_start_barrier()

    @rule(specs=trees())
    def reload(self, specs: list[ChannelSpec]) -> None:
        assert self.world.table.try_configure(specs)
        for channel, spec in enumerate(specs):
            if spec.rate is None:
                self.world.sent_ns.pop(channel, None)  # a rate that comes later begins to count then

    @rule(database=databases, share=databases_shares)
    def share_is_another(self, database: int, share: Share) -> None:
        assert self.world.table.try_share({database: share})

    @rule(ms=st.sampled_from((1, 60, 1000, 2000)))
    def time_passes(self, ms: int) -> None:
        self.world.now_ns += ms * 1_000_000

    # -- what must hold --------------------------------------------------------------------------------------

    @rule()
    def all_come_to_rest(self) -> None:
        self.world.check_quiet()

    @invariant()
    def derived_follows_from_truth(self) -> None:
        if hasattr(self, "world"):
            self.world.check_derived()

    def drain(self) -> None:
        """Everybody lives again, every job ends: the table must be empty."""
        for worker in self.world.workers:
            if worker.stopped:
                worker.stopped = False
            if not worker.alive:
                if not worker.released:
                    self.world.release(worker)
                worker.start()
        self.world.check_quiet()
        while any(worker.database.running for worker in self.world.workers):
            for worker in self.world.workers:
                if worker.database.running:
                    worker.finish(0)
                    self.world.check_quiet()
        assert [view.running for view in self.world.table.channel_views()] == [0] * len(CHANNELS)


TestTableMachine = TableMachine.TestCase
TestTableMachine.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    # Without shrinking: a failure would take minutes to be shown, and the steps are told anyway.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
