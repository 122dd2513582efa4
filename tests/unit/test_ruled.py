"""Minimums and weights in the channels that are set up in one database, as properties."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qjsupervisor.backlog.backlog import Backlog
from qjsupervisor.backlog.names import only_root
from qjsupervisor.backlog.ruled import RuledBranch
from qjsupervisor.channelspec import complete_name
from qjsupervisor.config.channel_string import parse_channels, with_options
from qjsupervisor.job import Pending


class Play:
    """One database's tree; jobs that start run until they are ended."""

    def __init__(self, channels: str) -> None:
        self.specs = {spec.name: spec for spec in with_options(parse_channels(channels), ())}
        self.tree = Backlog(tuple(self.specs.values()), only_root(), 1000)
        self.jobs = 0
        self.running: list[tuple[int, str]] = []

    def arrive(self, *names: str, number: int = 1, priority: int = 10) -> None:
        for name in names:
            for _ in range(number):
                self.jobs += 1
                self.tree.put(Pending((priority, self.jobs, self.jobs), name, None))

    def start(self) -> str | None:
        """The next job, if one could start."""
        self.tree.prepare(0, 1)
        if not self.tree.wanted_channels:
            return None
        node = self.tree._heads[0][1]
        self.tree.take(0)
        name = node.name.removeprefix("root.")
        self.running.append((self.tree.taken.pop(), name))
        return name

    def starts(self, number: int) -> list[str | None]:
        return [self.start() for _ in range(number)]

    def end(self, which: int) -> None:
        job_id, _name = self.running.pop(which)
        self.tree.forget(job_id)

    def served(self, number: int) -> list[str]:
        """So many starts, each of which ends at once."""
        found = []
        for _ in range(number):
            name = self.start()
            assert name is not None
            found.append(name)
            self.end(0)
        return found

    # -- a computation of its own

    def held(self, channel: str) -> int:
        return sum(f"{complete_name(name)}.".startswith(f"{channel}.") for _job_id, name in self.running)

    def children(self, channel: str) -> list[str]:
        return [name for name in self.specs if name.rpartition(".")[0] == channel]

    def lack(self, channel: str) -> int:
        spec = self.specs[channel]
        return max(spec.minimum - self.held(channel) if spec.reserve else 0, self.kept(channel))

    def kept(self, channel: str) -> int:
        return sum(self.lack(child) for child in self.children(channel))


def test_only_trees_with_such_rules_pay_for_them() -> None:
    assert type(Play("root:4,a:2:rate=5/1m").tree._branches[0]) is not RuledBranch
    assert type(Play("root:4,a:2:min=1").tree._branches[0]) is RuledBranch
    assert type(Play("root:4,a:2:weight=1").tree._branches[0]) is RuledBranch


@pytest.mark.parametrize("weights", [(3, 1), (1, 1), (7, 3), (5, 3, 2), (4, 3, 2, 1)], ids=str)
def test_weights_are_parts_within_one_of_any_hundred(weights: tuple[int, ...]) -> None:
    play = Play("root:1," + ",".join(f"c{i}:weight={weight}" for i, weight in enumerate(weights)))
    for i in range(len(weights)):
        play.arrive(f"c{i}", number=300)
    served = play.served(300)
    for at in range(201):
        counts = Counter(served[at : at + 100])
        for i, weight in enumerate(weights):
            assert abs(counts[f"c{i}"] - 100 * weight / sum(weights)) <= 1.001, (at, counts)


def test_jobs_of_the_channel_itself_and_channels_without_a_weight_count_once() -> None:
    play = Play("root:1,a:weight=2,b")
    play.arrive("a", "b", "root", number=100)
    assert Counter(play.served(100)) == {"a": 50, "b": 25, "root": 25}


def test_the_smallest_part_of_a_minimum_comes_first() -> None:
    play = Play("root:20,a:min=4,b:min=2,c:9")
    play.arrive("c", priority=1, number=9)
    play.arrive("a", "b", number=9)
    assert play.starts(8) == ["a", "b", "a", "a", "b", "a", "c", "c"]


def test_what_is_reserved_is_kept_free() -> None:
    play = Play("root:4,a:min=2:reserve,b:9")
    play.arrive("b", number=5)
    assert play.starts(3) == ["b", "b", None]
    play.arrive("a", number=3)
    assert play.starts(3) == ["a", "a", None]
    play.end(0)
    assert play.start() == "b"  # none is kept now: the order decides


def test_a_channel_that_is_full_or_paused_does_not_hold_up_others() -> None:
    play = Play("root:9,a:1:min=1:weight=5,b:9:min=3:paused,c:9")
    play.arrive("a", "b", "c", number=3)
    assert play.starts(5) == ["a", "c", "c", "c", None]


CHANNELS = ("root", "a", "a.x", "a.y", "b", "c")


@given(
    tree=st.sampled_from(
        [
            "root:4,a:3,a.x:min=1:reserve,a.y,b:min=1,c",
            "root:5,a:min=2,a.x:weight=3,a.y:min=1,b:3:min=2:reserve,c:weight=2",
            "root:3,a:2,a.x:min=1,a.y:min=1:reserve,b:weight=2,c:weight=1",
            "root:7,a:min=3:reserve,a.x:min=2:reserve,a.y,b:1:sequential:min=1,c:min=40%",
        ]
    ),
    steps=st.lists(
        st.tuples(st.sampled_from(("arrive", "arrive", "start", "start", "end")), st.integers(0, 20)), max_size=80
    ),
)
@settings(max_examples=150, deadline=None)
def test_never_over_nobody_borrows_and_nothing_idles(tree: str, steps: list[tuple[str, int]]) -> None:
    play = Play(tree)
    waiting: Counter[str] = Counter()
    for what, which in steps:
        if what == "arrive":
            name = CHANNELS[which % len(CHANNELS)]
            waiting[name] += 1
            play.arrive(name, priority=which)
        elif what == "end" and play.running:
            play.end(which % len(play.running))
        elif what == "start":
            may = {name for name, number in waiting.items() if number and let_through(play, name)}
            short = [name for name in may if short_below(play, name, "root")]
            started = play.start()
            assert bool(started) == bool(may), (started, may)
            if started is None:
                continue
            assert started in may
            waiting[started] -= 1
            assert not short or started in short, (started, short)


def path(channel: str) -> list[str]:
    name, found = complete_name(channel), []
    while name:
        found.append(name)
        name = name.rpartition(".")[0]
    return found


def let_through(play: Play, channel: str) -> bool:
    """Whether limits, and what is kept for others, let a job through: before it starts."""
    ways = path(channel)
    for node in ways:
        capacity = play.specs[node].capacity
        if capacity is None:
            continue
        free, kept = capacity - play.held(node), play.kept(node)
        play.running.append((0, channel))
        takes_own = play.kept(node) < kept
        play.running.pop()
        if free <= 0 or (free <= kept and not takes_own):
            return False
    return True


def short_below(play: Play, channel: str, node: str) -> bool:
    """Whether a channel on the way from `node` down, without it, holds less than its minimum."""
    ways = path(channel)
    return any(play.held(each) < play.specs[each].minimum for each in ways[: ways.index(node)])
