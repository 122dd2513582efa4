"""A storm over the shared table: real processes that are killed and stopped, also inside the critical section.

    scripts/stress --seconds 600 --processes 12 --seed 1 --stops

The storm's own process is the master: it reaps, buries, starts new lives, and watches as qjsupervisor's does. What it
reports is measured by the jobs themselves (ledger.py) and by a process that looks on (observer.py). Exit status 0:
never over, nothing leaked; 1: something was.

`--without` takes parts of the table's ways out, to see what they are for. Without the watch during the drain, permits
stay held for no running job: those of stopped workers, and of dead ones that nobody replaced. Without waiters that
continue a stopped holder, each stop inside the lock stands still until the watch looks; the shorter the jobs, the more
that costs. (Both are what the design's trial had met.) How long something could start and did not is bounded by the
watch, a second: where a stopped holder's peers all sleep, nobody else looks at it.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from qjsupervisor.channelspec import ChannelSpec, Rate, Share
from qjsupervisor.states import Fairness
from qjsupervisor.table.core import TableCore
from qjsupervisor.table.layout import Header
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.table.stuck_holder import HolderWatch, is_stopped

from .hand import Hand
from .ledger import STRUCK_NS, Ledger, beyond, borrowed, over_rate, overruns
from .observer import Observer

TREE = (
    ChannelSpec(name="root", capacity=6),
    ChannelSpec(name="root.slow", capacity=2),
    ChannelSpec(name="root.seq", capacity=1, sequential=True),
)
#: With minimums, weights and a rate, and what databases are guaranteed; the others have a maximum.
RULED = (
    ChannelSpec(name="root", capacity=6),
    ChannelSpec(name="root.slow", capacity=2, minimum=1, reserve=True),
    ChannelSpec(name="root.seq", capacity=1, sequential=True, minimum=1),
    ChannelSpec(name="root.paced", capacity=None, rate=Rate(20, 1), weight=1),
    ChannelSpec(name="root.heavy", capacity=None, weight=3),
)
SHARES = {0: Share(2), 1: Share(1)}
OTHERS = Share(0, 3)
#: How long somebody is looked for who holds the lock; on a loaded machine a signal takes that long.
CATCH_NS = 500_000_000
#: From a death to the next life.
RESTART_S = 0.1
#: No sign of life for so long: killed. (30 s in qjsupervisor: too long for a storm.)
HANG_S = 3.0
WATCH_S = 1.0
DRAIN_S = 30.0
_PR_SET_PDEATHSIG = 1


@dataclass
class Options:
    """What kind of storm. `without`: parts of the table's ways that are taken away, to see what they are for."""

    seconds: float = 60.0
    processes: int = 12
    seed: int = 1
    stops: bool = True
    strikes_per_s: float = 8.0
    fairness: Fairness = Fairness.ROUND_ROBIN
    shares: bool = False
    without: Sequence[str] = ()


@dataclass
class Life:
    """One database's place in the storm."""

    slot: int
    pid: int = 0
    spawned_s: float = 0.0
    due_s: float = 0.0
    unreleased: bool = False
    continue_s: float | None = None


@dataclass
class Storm:
    """Master and bad weather in one."""

    options: Options
    lives: list[Life] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        options = self.options
        _take_away(options.without)
        self.rng = random.Random(options.seed)
        self.tree = RULED if options.shares else TREE
        self.table = SemaphoreTable(self.tree, slots=options.processes, fairness=options.fairness)
        self.ledger = Ledger(options.processes, int(max(20, options.seconds) * 400))
        self.lives = [Life(slot) for slot in range(options.processes)]
        for life in self.lives:
            share = SHARES.get(life.slot, OTHERS) if options.shares else Share()
            self.table.assign(life.slot, f"db{life.slot}", 1, share)
        self.table.open_start_barrier()
        self._watch_s = 0.0
        self._master_pid = os.getpid()

    # -- the master ------------------------------------------------------------------------------------------

    def _fork(self, body: Callable[[], None]) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == self._master_pid:
                body()
        finally:
            os._exit(1)

    def attend(self, now_s: float, *, watch: bool = True) -> None:
        """One turn of the master: reap, release, start; with `watch` also look for who hangs."""
        self._reap(now_s)
        for life in self.lives:
            if life.unreleased:
                life.unreleased = not self.table.try_after_death(life.slot)
            elif not life.pid and now_s >= life.due_s:
                seed = self.rng.getrandbits(32)
                life.pid = self._fork(Hand(self.table, self.ledger, life.slot, seed).run)
                life.spawned_s = now_s
            if life.continue_s is not None and now_s >= life.continue_s:
                self._signal(life, signal.SIGCONT)
                life.continue_s = None
        if watch and now_s >= self._watch_s:
            self._watch_s = now_s + WATCH_S
            self._look_for_hung(now_s)

    def _reap(self, now_s: float) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for life in self.lives:
                if life.pid == pid:
                    life.pid, life.unreleased, life.continue_s = 0, True, None
                    life.due_s = now_s + RESTART_S
                    self._strike(life)
                    if not os.WIFSIGNALED(status):
                        self.counts["faults"] += 1

    def _look_for_hung(self, now_s: float) -> None:
        now_ns = time.monotonic_ns()
        stuck = self.table.stuck_owner(now_ns)
        for life in self.lives:
            if life.pid and life.pid == stuck:
                self.counts["ended by the watch"] += 1
                self._signal(life, signal.SIGKILL)
            elif life.pid and min(self.table.heartbeat_age_s(life.slot, now_ns), now_s - life.spawned_s) > HANG_S:
                self.counts["hung"] += 1
                self._signal(life, signal.SIGKILL)

    # -- the weather -----------------------------------------------------------------------------------------

    def _signal(self, life: Life, signum: int) -> None:
        if life.pid:
            os.kill(life.pid, signum)

    def _strike(self, life: Life) -> None:
        self.ledger.words[self.ledger.head(life.slot) + STRUCK_NS] = time.monotonic_ns()

    def strike(self, now_s: float) -> None:
        """One bolt."""
        inside = self.rng.random() < 0.5
        signum = signal.SIGSTOP if self.options.stops and self.rng.random() < 0.6 else signal.SIGKILL
        life = self._stop_in_the_lock() if inside else self.rng.choice(self.lives)
        if life is None or not life.pid:
            return
        self._signal(life, signum)
        self._strike(life)
        name = "stopped" if signum == signal.SIGSTOP else "killed"
        self.counts[name] += 1
        if inside:
            self.counts[f"{name} inside the lock"] += 1
        # One in three is left to the watch.
        if signum == signal.SIGSTOP and self.rng.random() < 0.67:
            life.continue_s = now_s + self.rng.uniform(0.01, 0.8)

    def _stop_in_the_lock(self) -> Life | None:
        """Whoever holds the lock, stopped in it; None if nobody was caught for a while.

        It is held for some ten microseconds, so most have left it before the signal reaches them: they go on.
        """
        owner, until_ns = self.table.core.mutex.owner, time.monotonic_ns() + CATCH_NS
        by_pid = {life.pid: life for life in self.lives if life.pid}
        while time.monotonic_ns() < until_ns:
            life = by_pid.get(owner())
            if life is None:
                continue
            self._signal(life, signal.SIGSTOP)
            while not is_stopped(life.pid) and time.monotonic_ns() < until_ns:
                pass
            if is_stopped(life.pid) and owner() == life.pid:
                return life
            self._signal(life, signal.SIGCONT)
        return None

    # -- the whole -------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Storm, then drain; what was found."""
        gc.freeze()
        end_observer, report = self._observe()
        start_s = time.monotonic()
        self._blow(start_s + self.options.seconds)
        took_s = time.monotonic() - start_s
        begun = self.ledger.begun()
        os.eventfd_write(end_observer, 1)
        idle = json.loads(_read_all(report))
        drained_s = self._drain(watch="watch" not in self.options.without)
        left = self._left()
        self._end()
        return self._report(begun / took_s, drained_s, left, idle)

    def _observe(self) -> tuple[int, int]:
        the_end = os.eventfd(0, os.EFD_NONBLOCK)
        report, report_to = os.pipe()

        def look_on() -> None:
            Observer(self.table, self.ledger, [spec.capacity or -1 for spec in self.tree]).run(the_end, report_to)

        self._fork(look_on)
        os.close(report_to)
        return the_end, report

    def _blow(self, until_s: float) -> None:
        next_s = time.monotonic() + 0.5
        while (now_s := time.monotonic()) < until_s:
            self.attend(now_s)
            if self.options.strikes_per_s and now_s >= next_s:
                self.strike(now_s)
                next_s = now_s + self.rng.expovariate(self.options.strikes_per_s)
            signal.sigtimedwait([signal.SIGCHLD], 0.01)

    def _drain(self, *, watch: bool) -> float | None:
        """Begin nothing more, and wait until nothing is held; seconds that it took, None if it did not come to it."""
        self.ledger.drain()
        start_s = time.monotonic()
        while (now_s := time.monotonic()) < start_s + DRAIN_S:
            if watch:
                self.attend(now_s)
            signal.sigtimedwait([signal.SIGCHLD], 0.02)
            if now_s > start_s + 0.5 and not any(view.running for view in self.table.channel_views()):
                return now_s - start_s
        return None

    def _left(self) -> dict[str, int]:
        """Permits that are held though no job runs."""
        return {view.name: view.running for view in self.table.channel_views() if view.running}

    def _end(self) -> None:
        for life in self.lives:
            self._signal(life, signal.SIGKILL)
        for life in self.lives:
            if life.pid:
                os.waitpid(life.pid, 0)
        for wakeup in self.table.core.wakeups:
            os.close(wakeup)

    def _report(
        self, throughput: float, drained_s: float | None, left: dict[str, int], idle: dict[str, Any]
    ) -> dict[str, Any]:
        paths = self.table.core.tree().paths
        over = list(overruns(self.ledger, paths, [spec.capacity or -1 for spec in self.tree]))
        latencies = self.ledger.latencies_ns()
        share = {f"p{p}": round(latencies[len(latencies) * p // 100] / 1e6, 2) for p in (50, 99) if latencies}
        return {
            "over_capacity": len(over),
            "leaked": left,
            "drained_s": None if drained_s is None else round(drained_s, 1),
            "jobs_per_s": round(throughput, 1),
            "idle": idle,
            "hand_over_ms": {**share, "max": round(latencies[-1] / 1e6, 2) if latencies else None},
            **(self._broken(paths) if self.options.shares else {}),
            "repairs": self.table.core.words[Header.REPAIRS],
            **self.counts,
        }

    def _broken(self, paths: list[tuple[int, ...]]) -> dict[str, int]:
        """How often minimums, maximums and rates were not kept."""
        root = self.tree[0].capacity or 0
        kept = {at: spec.minimum for at, spec in enumerate(self.tree) if spec.reserve}
        paced = next(at for at, spec in enumerate(self.tree) if spec.rate)
        rate = self.tree[paced].rate
        assert rate is not None
        others = [life.slot for life in self.lives if life.slot not in SHARES]
        return {
            "borrowed": len(list(borrowed(self.ledger, paths, kept, root))),
            "beyond_most": sum(beyond(self.ledger, slot, OTHERS.maximum or 0) for slot in others),
            "over_rate": over_rate(self.ledger, paths, paced, rate.starts, int(rate.period_s * 1e9)),
            "paced": sum(paced in paths[job.channel] for s in range(len(self.lives)) for job in self.ledger.jobs(s)),
        }


def _take_away(parts: Sequence[str]) -> None:
    """Switch off, for an experiment, in this process and its children."""
    if "waiters" in parts:
        HolderWatch.look = lambda _self: None  # type: ignore[method-assign,assignment]
    if "repairs" in parts:
        repair = TableCore._repair

        def silent(self: TableCore, now_ns: int) -> None:
            repair(self, now_ns)
            self.words[Header.REPAIRS] -= 1

        TableCore._repair = silent  # type: ignore[method-assign]


def _read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as stream:
        return stream.read()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="stress", description="A storm over the shared semaphore table.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stops", action=argparse.BooleanOptionalAction, default=True, help="stop some, kill others")
    parser.add_argument("--strikes-per-s", type=float, default=8.0)
    parser.add_argument("--fairness", type=Fairness, default=Fairness.ROUND_ROBIN, help="round-robin or priority")
    parser.add_argument("--shares", action="store_true", help="with minimums, maximums, weights and a rate")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=("waiters", "repairs", "watch"),
        help="for experiments: waiters let a stopped holder be; a repair tells nobody; the drain has no watch",
    )
    found = Storm(Options(**vars(parser.parse_args(arguments)))).run()
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    wrong = ("over_capacity", "leaked", "faults", "borrowed", "beyond_most", "over_rate")
    return 1 if any(found.get(each) for each in wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
