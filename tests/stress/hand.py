"""The worker of a storm: a real slot in a real table, and jobs that are nothing but time."""

from __future__ import annotations

import math
import random
import select
import time
from bisect import insort
from collections.abc import Sequence

from qjsupervisor.job import Key
from qjsupervisor.table.layout import Slot
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.table.slot import WorkerSlot
from qjsupervisor.table.words import bits

from .ledger import ALIVE_NS, STRUCK_NS, WAITING, Job, Ledger

#: How long a job takes.
JOB_S = (0.005, 0.06)
#: Jobs that wait in one database, at the most.
BACKLOG = 6
#: Of the jobs, how many are for each channel: no channel shall be short of jobs.
_MIX = (6, 2, 1, 1, 1, 1, 1, 1)
#: A turn that took so long was interrupted by a stop.
STOPPED_NS = 9_000_000
#: A heartbeat is due as often.
BEAT_S = 0.5


class Work:
    """A queue of random jobs (grants.Source)."""

    def __init__(self, channels: int, rng: random.Random) -> None:
        self.held: dict[int, int] = {}
        self.failed: dict[int, int] = {}
        self.changed: set[int] = set()
        self.new_heads: set[int] = set()
        self.withdrawn: list[int] = []
        self.waiting: list[list[Key]] = [[] for _ in range(channels)]
        self.tree_generation = 1
        self.taken: list[int] = []
        self._rng = rng
        self._numbers = 0

    @property
    def wanted_channels(self) -> int:
        return sum(1 << channel for channel, keys in enumerate(self.waiting) if keys)

    def best(self, candidates: int) -> int:
        return min(bits(candidates & self.wanted_channels), key=self.key)

    def key(self, channel: int) -> Key:
        return self.waiting[channel][0]

    def order(self) -> Sequence[int]:
        return sorted(bits(self.wanted_channels), key=self.key)

    def take(self, channel: int) -> None:
        self.waiting[channel].pop(0)
        self.held[channel] = self.held.get(channel, 0) + 1
        self.new_heads.add(channel)
        self.taken.append(channel)

    def arrive(self) -> None:
        channel = self._rng.choices(range(len(self.waiting)), _MIX[: len(self.waiting)])[0]
        self._numbers += 1
        insort(self.waiting[channel], (self._rng.randrange(3), self._numbers, self._numbers))
        self.new_heads.add(channel)

    def empty(self) -> None:
        for channel, keys in enumerate(self.waiting):
            if keys:
                keys.clear()
                self.new_heads.add(channel)

    def give_back(self, channel: int) -> None:
        self.held[channel] -= 1
        self.changed.add(channel)


class Hand:
    """One database's worker."""

    def __init__(self, table: SemaphoreTable, ledger: Ledger, slot: int, seed: int) -> None:
        self._ledger = ledger
        self._table = table
        self._slot = slot
        self._rng = random.Random(seed)
        self._worker_slot: WorkerSlot = table.worker_slot(slot)
        self._work = Work(len(table.core.tree().names), self._rng)
        self._head = ledger.head(slot)
        self._running: list[Job] = []
        self._quiet_until_ns = 0
        self._was_stopped = False

    def run(self) -> None:
        """For ever; the storm ends it."""
        poll = select.poll()
        poll.register(self._worker_slot.wakeup, select.POLLIN)
        self._worker_slot.attach()
        self._adopt()
        while True:
            now_ns = time.monotonic_ns()
            if poll.poll(max(0.0, (self._next_deadline_ns(now_ns) - now_ns) / 1e6)):
                self._worker_slot.drain_wakeup()
            self._turn(time.monotonic_ns())

    def _adopt(self) -> None:
        """What our database says runs, whoever began it."""
        self._running = sorted(self._ledger.running(self._slot, time.monotonic_ns()), key=lambda job: job.end_ns)
        for job in self._running:
            self._work.held[job.channel] = self._work.held.get(job.channel, 0) + 1

    def _turn(self, now_ns: int) -> None:
        self._worker_slot.heartbeat(now_ns)
        self._demand(now_ns)
        while self._running and self._running[0].end_ns <= now_ns:
            self._end(self._running.pop(0))
        if self._worker_slot.is_due(self._work):
            granted_ns = self._granted_ns()
            self._worker_slot.exchange(self._work)
            self._begin_taken(granted_ns)
        for channel, keys in enumerate(self._work.waiting):
            self._ledger.words[self._head + WAITING + channel] = len(keys)
        ends_ns = time.monotonic_ns()
        self._ledger.words[self._head + ALIVE_NS] = ends_ns
        self._was_stopped = ends_ns - now_ns > STOPPED_NS

    def _end(self, job: Job) -> None:
        """A job is over: the next one takes over its permit, or it goes back."""
        work = self._work
        if work.wanted_channels and work.best(-1) == job.channel and self._worker_slot.may_reuse_permit(job.channel):
            work.held[job.channel] -= 1
            work.take(job.channel)
            self._begin_taken(0)
        else:
            work.give_back(job.channel)

    def _granted_ns(self) -> int:
        base = self._table.core.slot_base(self._slot)
        return self._table.core.words[base + Slot.GRANTED_NS] if self._table.core.words[base + Slot.GRANT] else 0

    def _begin_taken(self, granted_ns: int) -> None:
        before_ns = time.monotonic_ns()
        self._worker_slot.note_sent(self._work.taken)
        now_ns = time.monotonic_ns()
        if now_ns - before_ns > STOPPED_NS:  # too late for what a rate counted: then it is not sent
            for channel in self._work.taken:
                self._work.give_back(channel)
            self._work.taken.clear()
        words, head = self._ledger.words, self._head
        # Not where we were stopped ourselves.
        stopped = self._was_stopped or words[head + STRUCK_NS] >= words[head + ALIVE_NS]
        if granted_ns and self._work.taken and not stopped:
            self._ledger.note_latency(self._slot, now_ns - granted_ns)
        for channel in self._work.taken:
            job = Job(channel, now_ns, now_ns + int(self._rng.uniform(*JOB_S) * 1e9))
            if self._ledger.begin(self._slot, job):
                insort(self._running, job, key=lambda each: each.end_ns)
            else:
                self._work.give_back(channel)
        self._work.taken.clear()

    def _demand(self, now_ns: int) -> None:
        """Mostly more than there is room for; now and then nothing."""
        if self._ledger.draining:
            self._work.empty()
            return
        if now_ns < self._quiet_until_ns:
            return
        while sum(map(len, self._work.waiting)) < BACKLOG:
            self._work.arrive()
        if self._rng.random() < 0.01:
            self._work.empty()
            self._quiet_until_ns = now_ns + int(self._rng.uniform(0.01, 0.2) * 1e9)

    def _next_deadline_ns(self, now_ns: int) -> int:
        moments = [now_ns + int(BEAT_S * 1e9)]
        if self._running:
            moments.append(self._running[0].end_ns)
        if self._quiet_until_ns > now_ns:
            moments.append(self._quiet_until_ns)
        look_again_s = self._worker_slot.look_again_s(self._work.wanted_channels)
        if look_again_s < math.inf:
            moments.append(int(look_again_s * 1e9))
        return min(moments)
