"""Examples of what channels do, as OCA's queue_job documents them, in our own words; played by any channel manager.

A job is known by its number, which is also its place in the order of creation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Manager(Protocol):
    """A channel manager, OCA's or ours; times in seconds."""

    def notify(
        self, job_id: int, channel: str | None, priority: int, created: int, eta: int | None, state: str, /
    ) -> None: ...

    def decide(self, now: int, /) -> list[int]: ...

    def wakes_at(self) -> float | None: ...

    def configure(self, channels: str, /) -> None: ...


class Configure(NamedTuple):
    """Channels from here on."""

    channels: str

    def play(self, manager: Manager) -> None:
        manager.configure(self.channels)


class Is(NamedTuple):
    """A job's row is so now."""

    state: str
    job_id: int
    channel: str | None
    priority: int = 10
    eta: int | None = None
    created: int = 0

    def play(self, manager: Manager) -> None:
        manager.notify(self.job_id, self.channel, self.priority, self.created, self.eta, self.state)


class Runs(NamedTuple):
    """At that moment exactly these jobs start, in this order."""

    now: int
    job_ids: tuple[int, ...] = ()

    def play(self, manager: Manager) -> None:
        assert tuple(manager.decide(self.now)) == self.job_ids


class Wakes(NamedTuple):
    """If nothing happens, this is the next moment to look."""

    moment: int

    def play(self, manager: Manager) -> None:
        assert manager.wakes_at() == self.moment


Step = Configure | Is | Runs | Wakes


@dataclass(frozen=True)
class Example:
    """One story."""

    title: str
    steps: tuple[Step, ...]

    def play(self, make: Callable[[], Manager]) -> None:
        manager = make()
        for step in self.steps:
            step.play(manager)


def _pending(channel: str | None, *job_ids: int, priority: int = 10) -> tuple[Step, ...]:
    return tuple(Is("pending", job_id, channel, priority) for job_id in job_ids)


EXAMPLES = [
    Example(
        "a narrow channel beside a wide one",
        (
            Configure("root:4, wide:4, narrow:1"),
            *_pending("wide", 1, 2, 3, 4, 5, 6),
            *_pending("narrow", 11, 12, priority=5),
            Runs(100, (11, 1, 2, 3)),
            # The narrow channel is full, though its next job would be better.
            Is("done", 2, "wide"),
            Runs(100, (4,)),
            Is("done", 11, "narrow", 5),
            Runs(100, (12,)),
            # A job that becomes better while it waits is next.
            Is("done", 1, "wide"),
            Is("pending", 6, "wide", 5),
            Runs(100, (6,)),
        ),
    ),
    Example(
        "room is kept for the narrow channel when the wide one is full",
        (
            Configure("root:5, wide:4, narrow:1"),
            *_pending("wide", *range(1, 17)),
            Runs(100, (1, 2, 3, 4)),
            *_pending("narrow", 21, priority=99),
            Runs(101, (21,)),
        ),
    ),
    Example(
        "jobs of wide channels compete in a narrow parent",
        (
            Configure("root:2, left:2, right:2"),
            *_pending("left", 1, 3),
            Is("pending", 2, "right", 9),
            Is("pending", 4, "right", 11),
            Runs(100, (2, 1)),
            Is("done", 1, "left"),
            Runs(101, (3,)),
            Is("done", 2, "right", 9),
            Runs(102, (4,)),
        ),
    ),
    Example(
        "order: priority, then creation, then number",
        (
            Configure("root:1"),
            Is("pending", 4, None, 9, None, 1),
            Is("pending", 3, None, 9, None, 2),
            Is("pending", 2, None, 9, None, 2),
            Is("pending", 1, None, 2, None, 3),
            Runs(0, (1,)),
            Is("done", 1, None, 2, None, 3),
            Runs(0, (4,)),
            Is("done", 4, None, 9, None, 1),
            Runs(0, (2,)),
            Is("done", 2, None, 9, None, 2),
            Runs(0, (3,)),
        ),
    ),
    Example(
        "a job that is cancelled is not run, and is if it comes back",
        (
            Configure("root:1"),
            *_pending(None, 1, 2),
            Is("cancelled", 1, None),
            Runs(0, (2,)),
            Is("pending", 1, None),
            Runs(0),
            Is("done", 2, None),
            Runs(0, (1,)),
        ),
    ),
    Example(
        "an eta puts a job off; then it competes like the others",
        (
            Configure("root:1"),
            Is("pending", 1, None, 1, 10),
            *_pending(None, 2, 3, priority=1),
            Wakes(10),
            Runs(1, (2,)),
            Is("done", 2, None, 1),
            Wakes(10),
            Runs(11, (1,)),
            Is("done", 1, None, 1, 10),
            Runs(12, (3,)),
            Is("done", 3, None, 1),
            Runs(13),
            # Past eta or not, a better priority is first.
            Is("pending", 4, None, 10, 20),
            *_pending(None, 5, priority=1),
            Wakes(20),
            Runs(21, (5,)),
            Is("done", 5, None, 1),
            Runs(22, (4,)),
        ),
    ),
    Example(
        "of two etas the earlier one is due first, whatever the order of creation",
        (
            Configure("root:1"),
            Is("pending", 1, None, 9, 9),
            Is("pending", 2, None, 9, 2),
            Runs(1),
            Wakes(2),
            Runs(2, (2,)),
            Is("done", 2, None, 9, 2),
            Runs(8),
            Runs(9, (1,)),
        ),
    ),
    Example(
        "a sequential channel waits for an earlier job that is not due",
        (
            Configure("root:1:sequential"),
            Is("pending", 6, None, 1),
            Is("pending", 7, None, 1, 20),
            Is("pending", 8, None, 1),
            Runs(10, (6,)),
            Is("done", 6, None, 1),
            Runs(15),
            Runs(20, (7,)),
            Is("done", 7, None, 1, 20),
            Runs(30, (8,)),
        ),
    ),
    Example(
        "a throttle spaces starts, though there is room",
        (
            Configure("root:4, slow:4:throttle=2"),
            *_pending("slow", 1, 2),
            Runs(100, (1,)),
            Wakes(102),
            Runs(101),
            Wakes(102),
            Runs(102, (2,)),
        ),
    ),
    Example(
        "a throttle in a channel that is full",
        (
            Configure("root:4, slow:2:throttle=2"),
            *_pending("slow", 1, 2, 3),
            Runs(100, (1,)),
            Runs(102, (2,)),
            Runs(103),
            Runs(104),
            Is("done", 1, "slow"),
            Runs(105, (3,)),
            *_pending("slow", 4),
            Is("done", 2, "slow"),
            Runs(106),
            Wakes(107),
        ),
    ),
    Example(
        "a job that is put off makes room for the next one",
        (
            Configure("root:4, one:1"),
            *_pending("one", 1, 2, 3),
            Runs(100, (1,)),
            Runs(101),
            Is("pending", 1, "one", 10, 105),
            Wakes(105),
            Runs(102, (2,)),
            Runs(106),
            Is("done", 2, "one"),
            Runs(107, (1,)),
        ),
    ),
    Example(
        "a sequential channel stops on a failed job",
        (
            Configure("root:4, in_order:1:sequential"),
            *_pending("in_order", 1, 2, 3),
            Runs(100, (1,)),
            Is("failed", 1, "in_order"),
            Runs(101),
            Is("pending", 2, "in_order", 10, 105),
            Runs(102),
            Is("pending", 1, "in_order"),
            Wakes(105),
            Runs(102, (1,)),
            Runs(103),
            Is("done", 1, "in_order"),
            # Number 3 could go, but number 2 comes before it.
            Runs(103),
            Runs(105, (2,)),
            Is("done", 2, "in_order", 10, 105),
            Runs(105, (3,)),
            Is("done", 3, "in_order"),
            Runs(105),
        ),
    ),
    Example(
        "a paused channel stops with its subchannels, and the root with all",
        (
            Configure("root:4, held:2:paused, held.below:1"),
            Is("pending", 1, "held"),
            Is("pending", 2, "held.below"),
            Runs(100),
            Configure("root:4, held:2"),
            Runs(100, (1, 2)),
            Configure("root:4:paused"),
            Is("pending", 4, "held"),
            Runs(106),
        ),
    ),
    Example(
        "names: NULL, '', with and without the root's",
        (
            Configure("root:9, auto.sub:1, seq:1:sequential"),
            *_pending("root.auto.sub", 1),
            *_pending("auto.sub", 2),
            *_pending("seq", 3),
            *_pending("root.seq", 4),
            *_pending(None, 5),
            *_pending("", 6),
            *_pending("root", 7),
            # What lies between and was not configured has no limit.
            *_pending("auto", 8),
            *_pending("root.auto", 9),
            Runs(0, (1, 3, 5, 6, 7, 8, 9)),
        ),
    ),
    Example(
        "a channel that nobody configured is limited by what is above it",
        (
            Configure("root:9, sub:2"),
            *_pending("sub.not.configured", 1),
            *_pending("root.sub.other", 2),
            *_pending("sub", 3),
            *_pending("else.where", 4),
            Runs(0, (1, 2, 4)),
            Is("done", 1, "sub.not.configured"),
            Runs(1, (3,)),
        ),
    ),
    Example(
        "without a configuration one job runs at a time",
        (*_pending("any", 1), *_pending(None, 2), Runs(0, (1,)), Is("done", 1, "any"), Runs(0, (2,))),
    ),
    Example(
        "jobs found running take their room, whatever the capacity",
        (
            Configure("root:2, one:1"),
            Is("started", 1, "one"),
            Is("enqueued", 2, "one"),
            *_pending("one", 3),
            *_pending(None, 4),
            Runs(0),
            Is("done", 1, "one"),
            Runs(0, (4,)),
            Is("done", 2, "one"),
            Runs(0, (3,)),
        ),
    ),
]
