"""What an exchange with the shared table costs, with and without the keys that say who is next.

300 databases by 100 channels in one process: real slots, real backlogs, a real table. Every permit is held, and each
database waits in a third of the channels. A job ends and another one like it arrives: its database exchanges, and so
does each that was woken. The cost is the CPU time of these exchanges. The tables take turns, so that whatever else the
machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import gc
import random
import select
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from qjsupervisor.backlog.backlog import Backlog
from qjsupervisor.backlog.names import Shared
from qjsupervisor.channelspec import ROOT, ChannelSpec, Share
from qjsupervisor.job import Pending
from qjsupervisor.states import Fairness
from qjsupervisor.table.layout import Header
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.worker.permits import START_BATCH

from ..benchmark.table import show

NO_KEYS = "none"
KINDS = (NO_KEYS, "min", "reserve", "weight", "db_capacity", "db_capacity, reserve", "all")
#: Jobs that wait in one channel of one database.
WAITING = 3
#: Rounds that fill the table, and are not counted.
WARM_UP = 100


@dataclass(frozen=True)
class Size:
    """How many of each; the minimums of all databases fit into the root's permits."""

    databases: int = 300
    channels: int = 100
    permits: int = 400


def specs(kind: str, size: Size) -> list[ChannelSpec]:
    """The root and the channels below it."""
    least = int(kind in ("min", "reserve", "all"))
    branches = [
        ChannelSpec(
            name=f"{ROOT}.c{number}",
            capacity=None,
            minimum=least,
            reserve=kind == "reserve",
            weight=1 + number % 3 if kind in ("weight", "all") else 0,
        )
        for number in range(1, size.channels)
    ]
    return [ChannelSpec(name=ROOT, capacity=size.permits), *branches]


def share(kind: str) -> Share:
    """What each database is guaranteed, and the most it may hold."""
    if kind.startswith("db_capacity") or kind == "all":
        return Share(1, 5, reserve=kind.endswith("reserve"))
    return Share()


class Member:
    """One database: its slot, and its jobs."""

    def __init__(self, table: SemaphoreTable, tree: Sequence[ChannelSpec], slot: int, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.worker_slot = table.worker_slot(slot)
        shared = Shared({spec.name: number for number, spec in enumerate(tree)}, keep_limits=False)
        self.backlog = Backlog(tree, shared, 200)
        self.backlog.tree_generation = table.core.words[Header.GENERATION]
        self.worker_slot.attach()
        self._channels: dict[int, str] = {}
        for number, spec in enumerate(tree):
            if number and (slot + number) % 3 == 0:
                for _ in range(WAITING):
                    self._arrive(spec.name)

    def _arrive(self, channel: str) -> None:
        number = len(self._channels) + 1
        self._channels[number] = channel
        self.backlog.put(Pending((10, number, number), channel, None))

    def exchange(self, budget: int = START_BATCH) -> int:
        """What it cost by the clock. What may start runs at once."""
        self.worker_slot.drain_wakeup()
        self.backlog.prepare(1, budget)
        began = self._clock()
        self.worker_slot.exchange(self.backlog)
        cost = self._clock() - began
        self.backlog.taken.clear()
        return cost

    def end_one(self, rng: random.Random) -> None:
        """A job ends, and another one like it arrives."""
        job_id = rng.choice(sorted(self.backlog.holding()))
        self.backlog.forget(job_id)
        self._arrive(self._channels[job_id])


@dataclass
class Hosting:
    """Databases at one table."""

    kind: str
    size: Size
    fairness: Fairness
    clock: Callable[[], int] = time.thread_time_ns
    #: Of each exchange.
    costs: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        tree = specs(self.kind, self.size)
        self.table = SemaphoreTable(tree, slots=self.size.databases, fairness=self.fairness)
        for slot in range(self.size.databases):
            self.table.assign(slot, f"db{slot}", 1, share(self.kind))
        self._rng = random.Random(1)
        self._poll = select.poll()
        self._slot_of = {fd: slot for slot, fd in enumerate(self.table.core.wakeups)}
        for fd in self._slot_of:
            self._poll.register(fd, select.POLLIN)
        self._members = [Member(self.table, tree, slot, self.clock) for slot in range(self.size.databases)]
        self.table.open_start_barrier()  # wakes all
        while self._settle(budget=1):
            if self.table.core.is_full():
                break
            self.table.core.wake_all()
        self._settle()
        for _ in range(WARM_UP):
            self.turn()
        self.costs.clear()

    def _settle(self, budget: int = START_BATCH) -> list[int]:
        """The woken exchange, until nobody is; what each cost."""
        costs = []
        while woken := self._poll.poll(0):
            costs += [self._members[self._slot_of[fd]].exchange(budget) for fd, _event in woken]
        return costs

    def turn(self) -> None:
        """One job ends."""
        member = self._rng.choice([each for each in self._members if each.backlog.holding()])
        member.end_one(self._rng)
        self.costs.append(member.exchange())
        self.costs += self._settle()


def measure(kinds: Sequence[str], size: Size, fairness: Fairness, turns: int) -> dict[str, list[int]]:
    """Nanoseconds of each exchange, by kind."""
    hostings = [Hosting(kind, size, fairness) for kind in kinds]
    gc.collect()
    gc.disable()
    try:
        for _ in range(turns):
            for hosting in hostings:
                hosting.turn()
    finally:
        gc.enable()
    return {hosting.kind: hosting.costs for hosting in hostings}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="exchange", description="The cost of an exchange with the shared table.")
    parser.add_argument("--turns", type=int, default=2000, help="jobs that end, for each kind")
    parser.add_argument("--databases", type=int, default=Size.databases)
    parser.add_argument("--channels", type=int, default=Size.channels)
    parser.add_argument("--permits", type=int, default=Size.permits)
    parser.add_argument("--fairness", type=Fairness, default=Fairness.ROUND_ROBIN, help="round-robin or priority")
    parser.add_argument("--only", choices=KINDS[1:], help="only this kind, beside none")
    options = parser.parse_args(arguments)
    size = Size(options.databases, options.channels, options.permits)
    found = measure([NO_KEYS, options.only] if options.only else KINDS, size, options.fairness, options.turns)
    medians = {kind: statistics.median(costs) / 1000 for kind, costs in found.items()}
    rows = [
        (
            kind,
            f"{medians[kind]:.1f}",
            f"{statistics.mean(costs) / 1000:.1f}",
            f"{sorted(costs)[len(costs) * 99 // 100] / 1000:.1f}",
            f"{medians[kind] / medians[NO_KEYS]:.2f}",
            f"{statistics.mean(costs) / statistics.mean(found[NO_KEYS]):.2f}",
            f"{sum(costs) / options.turns / 1000:.1f}",
            f"{sum(costs) / sum(found[NO_KEYS]):.2f}",
        )
        for kind, costs in found.items()
    ]
    header = ("keys", "median (us)", "mean (us)", "p99 (us)", "median ratio", "mean ratio", "a job (us)", "ratio")
    show(header, rows, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
