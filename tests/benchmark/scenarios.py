"""The scenarios: what both runners are put through. Each is run at several sizes.

`prepare` makes what a size needs, once; `measure` is one run of one runner, and leaves things so that the next can
follow. What our own runner costs as things grow is in growth.py.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from .figures import Figure, finite, quantile
from .stand import GaveUp, Stand

_PROBE = """
INSERT INTO queue_job (uuid, channel, state, priority, retry, max_retries, kwargs, args, name, model_name, method_name,
                       date_created)
VALUES (%s, 'root.fast', 'pending', 10, 0, 5, '{}', '[]', 'Probe', 'queue.job', 'probe',
        clock_timestamp() AT TIME ZONE 'UTC')
"""
#: How long a job of the backlog takes, so that even the smallest backlog lasts as long as the measuring.
_BACKLOG_JOB_S = 0.25
_NEIGHBOURS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done. Sizes are what the scenarios vary; numbers of jobs are over all databases."""

    drain_databases: tuple[int, ...] = (1, 20)
    drain_jobs: int = 4000
    backlogs: tuple[int, ...] = (0, 1_000, 5_000, 20_000)
    probes_s: float = 15.0
    probes_per_s: float = 20.0
    waiting: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    databases: tuple[int, ...] = (1, 10, 50, 100, 200)
    databases_jobs: int = 4000
    memory_after_s: float = 1.0
    timeout_s: float = 180.0


FULL = Scale()
QUICK = Scale(
    drain_databases=(1, 5),
    drain_jobs=400,
    backlogs=(0, 1_000),
    probes_s=3.0,
    waiting=(10_000, 50_000),
    databases=(1, 10, 20),
    databases_jobs=400,
    timeout_s=30.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one runner (`kind`) at one size."""

    stand: Stand
    kind: str
    size: int
    scale: Scale


Found = dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One of them; `size` says what its sizes count."""

    name: str
    title: str
    size: str
    sizes: Callable[[Scale], tuple[int, ...]]
    figures: tuple[Figure, ...]
    #: Once for each size.
    prepare: Callable[[Stand, int], None]
    #: Fills in the figures as they are known; raises GaveUp.
    measure: Callable[[Run, Found], None]

    def label(self, size: int) -> str:
        """Which size of which scenario, for people."""
        counted = self.size.removesuffix("s") if size == 1 else self.size
        return f"{self.name}, {size:,} {counted}"


def _nothing(_stand: Stand, _size: int) -> None:
    """There is nothing to prepare that the next runner could use, too."""


def _drain(run: Run, found: Found) -> None:
    stand, size = run.stand, run.size
    names = stand.databases(size)
    with stand.runner(run.kind, names, "root:16") as runner:
        stand.warm_up(runner, names)
        each = max(1, run.scale.drain_jobs // size)
        began_s, cpu_s = time.monotonic(), runner.cpu_s()
        stand.odoo.insert(names, each)
        counts = stand.wait(runner, lambda counts: counts["done"] >= each * size, "all jobs done")
        cpu_s = runner.cpu_s() - cpu_s
        assert counts["last_done_s"] is not None
        found["cpu_ms_per_job"] = round(cpu_s / counts["done"] * 1e3, 3)
        found["jobs_per_s"] = round(counts["done"] / (counts["last_done_s"] - began_s), 1)


def _latency(run: Run, found: Found) -> None:
    stand, size = run.stand, run.size
    names = stand.databases(1 + _NEIGHBOURS)
    probed, neighbours = names[0], names[1:]
    with stand.runner(run.kind, names, "root:16,root.bulk:12,root.fast:4") as runner:
        stand.warm_up(runner, names, watch=probed)
        if size:
            stand.odoo.insert(neighbours, size // _NEIGHBOURS, ["root.bulk"], _BACKLOG_JOB_S)
        sent = _send_probes(stand, probed, run.scale)
        try:
            stand.wait(runner, lambda _: sent.keys() <= stand.odoo.watched().keys(), "all probes asked for")
        except GaveUp:
            if runner.has_ended():
                raise
            # What was not asked for counts as infinitely late: the median may be a figure still.
        asked = stand.odoo.watched()
        late_ms = [(asked.get(one, math.inf) - sent_s) * 1e3 for one, sent_s in sent.items()]
        found["p50_ms"] = finite(quantile(late_ms, 0.5), 2)
        found["p99_ms"] = finite(quantile(late_ms, 0.99), 2)


def _send_probes(stand: Stand, database: str, scale: Scale) -> dict[str, float]:
    """Insert one job after the other at a steady rate; the second in which each was sent, by its uuid."""
    sent: dict[str, float] = {}
    with closing(stand.postgres.connect(database)) as session, session.cursor() as cursor:
        began_s = time.monotonic()
        for number in range(int(scale.probes_s * scale.probes_per_s)):
            stand.pause(max(0.0, began_s + number / scale.probes_per_s - time.monotonic()))
            probe = str(uuid.uuid4())
            sent[probe] = time.monotonic()
            cursor.execute(_PROBE, (probe,))
    return sent


def _prepare_start(stand: Stand, size: int) -> None:
    (name,) = stand.databases(1)
    stand.odoo.insert([name], size, sleep_s=0.2)
    stand.settle(name)


def _start(run: Run, found: Found) -> None:
    stand, name = run.stand, "bench_0"
    stand.put_back(name)
    began_s = time.monotonic()
    with stand.runner(run.kind, [name], "root:1") as runner:
        counts = stand.wait(runner, lambda counts: counts["first_asked_s"] is not None, "a first job")
        assert counts["first_asked_s"] is not None
        found["first_job_s"] = round(counts["first_asked_s"] - began_s, 3)
        stand.pause(run.scale.memory_after_s)
        found["memory_mib"] = round(runner.memory_mib(), 1)


def _databases(run: Run, found: Found) -> None:
    stand, size = run.stand, run.size
    names = stand.databases(size)
    stand.odoo.insert(names, 1)
    began_s = time.monotonic()
    with stand.runner(run.kind, names, "root:16") as runner:
        served = stand.wait(runner, lambda counts: counts["served"] >= size, "a job in each database")
        assert served["last_served_s"] is not None
        found["all_served_s"] = round(served["last_served_s"] - began_s, 3)
        stand.pause(run.scale.memory_after_s)
        found["memory_mib"] = round(runner.memory_mib(), 1)
        each = max(1, run.scale.databases_jobs // size)
        began_s = time.monotonic()
        stand.odoo.insert(names, each)
        counts = stand.wait(runner, lambda counts: counts["done"] >= served["done"] + each * size, "all jobs done")
        assert counts["last_done_s"] is not None
        found["jobs_per_s"] = round((counts["done"] - served["done"]) / (counts["last_done_s"] - began_s), 1)


_JOBS_PER_S = Figure("jobs_per_s", "throughput", "jobs/s")
_MEMORY = Figure("memory_mib", "memory", "MiB")

SCENARIOS = (
    Scenario(
        name="drain",
        title="Drain a backlog of short jobs",
        size="databases",
        sizes=lambda scale: scale.drain_databases,
        figures=(Figure("cpu_ms_per_job", "CPU per job", "ms"), _JOBS_PER_S),
        prepare=_nothing,
        measure=_drain,
    ),
    Scenario(
        name="latency",
        title="From INSERT to Odoo, beside a backlog of other databases",
        size="jobs beside",
        sizes=lambda scale: scale.backlogs,
        figures=(Figure("p50_ms", "latency, median", "ms"), Figure("p99_ms", "latency, 99 %", "ms")),
        prepare=_nothing,
        measure=_latency,
    ),
    Scenario(
        name="startup",
        title="Start on waiting jobs",
        size="waiting jobs",
        sizes=lambda scale: scale.waiting,
        figures=(Figure("first_job_s", "first job after", "s"), _MEMORY),
        prepare=_prepare_start,
        measure=_start,
    ),
    Scenario(
        name="databases",
        title="Many databases",
        size="databases",
        sizes=lambda scale: scale.databases,
        figures=(Figure("all_served_s", "a job run in each after", "s"), _MEMORY, _JOBS_PER_S),
        prepare=_nothing,
        measure=_databases,
    ),
)
