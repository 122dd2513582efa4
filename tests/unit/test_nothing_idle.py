"""Nothing that could start idles, whatever minimums, maximums, weights, reserves, shares and rates are set.

Only what jobs do, and a reserve deep in the tree more often than by chance: the table's state machine, with its deaths
and reloads, seldom gets to permits that are all in use but those kept for a channel below another one.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qjsupervisor.channelspec import ChannelSpec, Rate, Share
from qjsupervisor.states import Fairness

from .slots import World

NAMES = ("root", "root.a", "root.a.x", "root.a.x.y", "root.b", "root.c")
SLOTS = 3

minimums = st.sampled_from((0, 0, 1, 2))
shares = st.builds(Share, minimums, st.sampled_from((None, None, 2)), reserve=st.booleans())


@st.composite
def trees(draw: st.DrawFn) -> list[ChannelSpec]:
    def below(name: str) -> ChannelSpec:
        least = draw(minimums)
        rate = draw(st.sampled_from((None, None, None, Rate(2, 1))))
        return ChannelSpec(
            name=name,
            capacity=draw(st.sampled_from((None, None, 1, 3))),
            minimum=least,
            reserve=bool(least) and draw(st.booleans()),
            weight=draw(st.sampled_from((0, 0, 1, 3))),
            rate=rate,
        )

    return [ChannelSpec(name="root", capacity=draw(st.integers(1, 5))), *map(below, NAMES[1:])]


@given(
    specs=trees(),
    given_shares=st.just([]) | st.lists(shares, min_size=SLOTS, max_size=SLOTS),
    fairness=st.sampled_from(Fairness),
    steps=st.lists(st.tuples(st.integers(0, SLOTS - 1), st.integers(-2, len(NAMES) - 1)), min_size=6, max_size=16),
)
@settings(max_examples=300, deadline=None)
def test_nothing_startable_idles(
    specs: list[ChannelSpec], given_shares: list[Share], fairness: Fairness, steps: list[tuple[int, int]]
) -> None:
    """Each step is a job that arrives in a channel, or (negative) one that ends; then all come to rest."""
    with pytest.MonkeyPatch.context() as patch:
        world = World(specs, [1] * SLOTS, fairness, shares=given_shares)
        try:
            world.install_clock(patch)
            world.start_all()
            for number, (slot, channel) in enumerate(steps):
                worker = world.workers[slot]
                assert worker.queue is not None
                if channel >= 0:
                    worker.queue.arrive(channel, (10, number, number))
                elif worker.database.running:
                    worker.finish(0)
                world.check_quiet()
        finally:
            world.close()


def test_permits_left_for_a_database_that_does_not_come_are_given_to_others() -> None:
    """It was granted one of the two that its channel is guaranteed, and hangs before it takes it."""
    specs = [ChannelSpec(name="root", capacity=2), ChannelSpec(name="root.a", capacity=None, minimum=2)]
    with pytest.MonkeyPatch.context() as patch:
        world = World([*specs, ChannelSpec(name="root.b", capacity=None)], [1, 1])
        try:
            world.install_clock(patch)
            world.start_all()
            hangs, other = world.workers
            assert hangs.queue is not None
            assert hangs.worker_slot is not None
            assert other.queue is not None
            world.table.open_start_barrier()
            hangs.stopped = True
            for number in range(2):
                hangs.queue.arrive(1, (10, number, number))
            hangs.worker_slot._publish(hangs.queue, world.now_ns, served=False)
            other.queue.arrive(2, (10, 9, 9))
            other.turn()
            assert not other.database.running, "both are for the other one"
            world.quiet()
            assert other.database.running, "it looked again"
        finally:
            world.close()
