"""Whether the cost of a job stays what it is while databases, waiting jobs, channels or the capacity grow.

Our runner alone. CPU of all its processes, for each of some thousand jobs, once it runs smoothly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .figures import Figures
from .runners import OURS
from .stand import GaveUp, Stand
from .table import DASH, number

#: Jobs until a queue that was there from the start runs smoothly.
_RUN_IN = 500
#: At least so many jobs of each database: its first one costs more than the others.
_OF_EACH = 20
#: With jobs that last so many seconds for each place, the capacity is full at 200 jobs a second.
_JOB_S_PER_PLACE = 1 / 200


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthScale:
    """What grows, from step to step."""

    databases: tuple[int, ...] = (1, 10, 75, 150, 300)
    waiting: tuple[int, ...] = (10_000, 125_000, 250_000, 500_000, 1_000_000)
    channels: tuple[int, ...] = (1, 10, 125, 250, 500, 1_000)
    capacity: tuple[int, ...] = (10, 60, 125, 250, 500)
    jobs: int = 3_000
    timeout_s: float = 180.0


FULL_GROWTH = GrowthScale()
QUICK_GROWTH = GrowthScale(
    databases=(1, 5, 10),
    waiting=(2_000, 20_000, 40_000),
    channels=(1, 50, 100),
    capacity=(10, 25, 50),
    jobs=400,
    timeout_s=30.0,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One size of one thing that grows."""

    what: str
    size: int
    figures: Figures


def grow(stand: Stand, scale: GrowthScale, progress: Callable[[Step, str], None]) -> list[Step]:
    """Measure every step; `progress` is told of each, and why it was given up, if it was."""
    steps = []
    for what, size, measure in _plan(scale):
        found: dict[str, float | None] = {"cpu_ms_per_job": None, "jobs_per_s": None, "memory_mib": None}
        reason = ""
        try:
            found.update(measure(stand, size, scale.jobs))
        except GaveUp as error:
            reason = str(error)
        steps.append(Step(what, size, found))
        progress(steps[-1], reason)
    return steps


_Measure = Callable[[Stand, int, int], Figures]


def _plan(scale: GrowthScale) -> Iterator[tuple[str, int, _Measure]]:
    plan: tuple[tuple[str, tuple[int, ...], _Measure], ...] = (
        ("databases", scale.databases, _databases),
        ("waiting jobs", scale.waiting, _waiting),
        ("channels", scale.channels, _channels),
        ("capacity", scale.capacity, _capacity),
    )
    for what, sizes, measure in plan:
        for size in sizes:
            yield what, size, measure


def _databases(stand: Stand, size: int, jobs: int) -> Figures:
    return _drained(stand, stand.databases(size), "root:16", max(jobs, _OF_EACH * size))


def _channels(stand: Stand, size: int, jobs: int) -> Figures:
    channels = [f"root.c{index}" for index in range(size)]
    tree = ",".join(["root:16", *(f"{name}:4" for name in channels)])
    return _drained(stand, stand.databases(1), tree, jobs, channels)


def _capacity(stand: Stand, size: int, jobs: int) -> Figures:
    return _drained(stand, stand.databases(1), f"root:{size}", jobs, sleep_s=size * _JOB_S_PER_PLACE)


def _drained(
    stand: Stand,
    names: Sequence[str],
    tree: str,
    jobs: int,
    channels: Sequence[str] = ("root",),
    sleep_s: float = 0.0,
) -> Figures:
    with stand.runner(OURS, names, tree) as runner:
        stand.warm_up(runner, names)
        each = max(1, jobs // len(names))
        began_s, cpu_s = time.monotonic(), runner.cpu_s()
        stand.odoo.insert(names, each, channels, sleep_s)
        counts = stand.wait(runner, lambda counts: counts["done"] >= each * len(names), "all jobs done")
        return _figures(counts["done"], runner.cpu_s() - cpu_s, time.monotonic() - began_s, runner.memory_mib())


def _waiting(stand: Stand, size: int, jobs: int) -> Figures:
    names = stand.databases(1)
    stand.odoo.insert(names, size)
    stand.settle(names[0])
    with stand.runner(OURS, names, "root:16") as runner:
        first = stand.wait(runner, lambda counts: counts["done"] >= _RUN_IN, "the first jobs")["done"]
        began_s, cpu_s = time.monotonic(), runner.cpu_s()
        last = stand.wait(runner, lambda counts: counts["done"] >= first + jobs, "some more jobs")["done"]
        return _figures(last - first, runner.cpu_s() - cpu_s, time.monotonic() - began_s, runner.memory_mib())


def _figures(jobs: int, cpu_s: float, took_s: float, memory_mib: float) -> Figures:
    return {
        "cpu_ms_per_job": round(cpu_s / jobs * 1e3, 3),
        "jobs_per_s": round(jobs / took_s, 1),
        "memory_mib": round(memory_mib, 1),
    }


HEADER = ("grows", "to", "CPU per job (ms)", "to the step before", "jobs/s", "memory (MiB)")


def rows(steps: Sequence[Step]) -> list[tuple[str, ...]]:
    """The table's lines."""
    found: list[tuple[str, ...]] = []
    before: Step | None = None
    for step in steps:
        cost = step.figures["cpu_ms_per_job"]
        former = before.figures["cpu_ms_per_job"] if before is not None and before.what == step.what else None
        change = DASH if not cost or not former else f"{cost / former:.2f}"
        others = number(step.figures["jobs_per_s"]), number(step.figures["memory_mib"])
        found.append((step.what, f"{step.size:,}", number(cost), change, *others))
        before = step
    return found
