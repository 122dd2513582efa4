"""Long random histories of one database, decided by OCA's channel manager and by ours, step by step."""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest import mock

from qjsupervisor.backlog.backlog import Backlog
from qjsupervisor.backlog.names import only_root
from qjsupervisor.channelspec import ROOT, ChannelSpec, complete_name, parent_name
from qjsupervisor.config.channel_string import parse_channels
from qjsupervisor.job import Pending
from qjsupervisor.states import Fairness
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.worker.trees import shared_tree

from .channel_histories import CHANNELS, JOB_CHANNELS
from .channel_model import HOLDS
from .oca import Oca

SECOND_US = 1_000_000
#: Operations on one random tree.
HISTORY = 250
PROGRESS_S = 5.0
#: Nobody reads a table here, so all jobs have to be in the windows.
_ALL = 1_000_000


class Ours:
    """Our channel tree alone: a tree per database, where it keeps all limits."""

    def __init__(self, specs: Sequence[ChannelSpec]) -> None:
        self.tree = self._made(specs)
        #: What was told of each job, for another tree.
        self._told: dict[int, tuple[int, str | None, int, int, int | None, str]] = {}

    def _made(self, specs: Sequence[ChannelSpec]) -> Backlog:
        return Backlog(specs, only_root(), _ALL)

    def configure(self, channels: str) -> None:
        """Other channels from here on, as the channel string says."""
        old, self.tree = self.tree, self._made(parse_channels(channels))
        self.tree.inherit(old)
        for told in list(self._told.values()):
            self.notify(*told)

    def notify(
        self, job_id: int, channel: str | None, priority: int, created: int, eta: int | None, state: str
    ) -> None:
        """As Serving.apply."""
        self._told[job_id] = (job_id, channel, priority, created, eta, state)
        if state == "pending":
            # As in OCA's, an eta of 0 is none.
            self.tree.put(Pending((priority, created, job_id), channel, eta * SECOND_US if eta else None))
        elif state in HOLDS:
            self.tree.hold(job_id, channel)
        elif state == "failed":
            self.tree.fail(job_id, channel)
        else:
            self.tree.forget(job_id)

    def remove(self, job_id: int) -> None:
        self._told.pop(job_id, None)
        self.tree.forget(job_id)

    def decide(self, now: int) -> list[int]:
        self.tree.prepare(now * SECOND_US, _ALL)
        self._exchange(now)
        taken, self.tree.taken = self.tree.taken, []
        for job_id in taken:
            self._told[job_id] = (*self._told[job_id][:-1], "enqueued")
        return taken

    def wakes_at(self) -> float | None:
        moment_us = self.tree.next_deadline_us()
        return None if moment_us is None else moment_us / SECOND_US

    def _exchange(self, now: int) -> None:
        self.tree.changed.clear()
        self.tree.new_heads.clear()
        while self.tree.wanted_channels:
            self.tree.take(self.tree.best(self.tree.wanted_channels))

    def close(self) -> None:
        """Nothing to give back."""


class OursShared(Ours):
    """Our channel tree with a slot in a shared table, which keeps the limits: the server-wide mode."""

    def __init__(self, specs: Sequence[ChannelSpec]) -> None:
        self._clock_ns = 10**9
        with self._clock():
            self._table = SemaphoreTable(specs, slots=1, fairness=Fairness.ROUND_ROBIN)
            self._table.assign(0, "db", 1)
            self._table.open_start_barrier()
            self._worker_slot = self._table.worker_slot(0)
            self._worker_slot.attach()
        super().__init__(specs)

    def _made(self, specs: Sequence[ChannelSpec]) -> Backlog:
        with self._clock():
            assert self._table.try_configure(specs)
        self._worker_slot.begin_again()
        return shared_tree(self._worker_slot, window=_ALL)

    @contextmanager
    def _clock(self) -> Iterator[None]:
        clock = types.SimpleNamespace(monotonic_ns=lambda: self._clock_ns)
        with mock.patch("qjsupervisor.table.core.time", clock), mock.patch("qjsupervisor.table.semaphore.time", clock):
            yield

    def _exchange(self, now: int) -> None:
        self._clock_ns = (now + 1) * 10**9
        with self._clock():
            self._worker_slot.exchange(self.tree)

    def wakes_at(self) -> float | None:
        look_again_s = self._worker_slot.look_again_s(self.tree.wanted_channels)
        moments = [super().wakes_at(), None if math.isinf(look_again_s) else look_again_s - 1]
        return min((moment for moment in moments if moment is not None), default=None)

    def close(self) -> None:
        for wakeup in self._table.core.wakeups:
            os.close(wakeup)


# -- histories -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    job_id: int
    channel: str | None
    priority: int
    created: int
    eta: int | None
    state: str


class Difference(AssertionError):
    """OCA's and ours decided otherwise."""


class History:
    """One database, told to several channel managers."""

    def __init__(self, rng: random.Random, channels: Sequence[str | None], sides: dict[str, Oca | Ours]) -> None:
        self._rng = rng
        self._channels = channels
        self._sides = sides
        self._now = 1000
        self._last_id = 0
        self._rows: dict[int, Row] = {}
        #: The last things that happened, for a report.
        self._log: list[str] = []
        self.operations = 0
        self.started = 0

    def step(self) -> None:
        """One thing happens, and sometimes a look at what is to run."""
        self.operations += 1
        self._rng.choices(_HAPPENINGS, _WEIGHTS)[0](self)

    # -- what happens --------------------------------------------------------------------------------------

    def _tell(self, row: Row) -> None:
        self._rows[row.job_id] = row
        self._log.append(str(row))
        for side in self._sides.values():
            side.notify(row.job_id, row.channel, row.priority, row.created, row.eta, row.state)

    def _some(self, *states: str) -> Row | None:
        rows = [row for row in self._rows.values() if row.state in states]
        return self._rng.choice(rows) if rows else None

    def _eta(self) -> int | None:
        return self._now + self._rng.randint(-1, 12) if self._rng.random() < 0.35 else None

    def new(self) -> None:
        rng = self._rng
        self._last_id += 1
        state = rng.choices(["pending", "wait_dependencies", "started", "enqueued", "failed"], [30, 2, 1, 1, 1])[0]
        channel = rng.choice(self._channels)
        self._tell(Row(self._last_id, channel, rng.randint(0, 3), rng.randint(0, 9), self._eta(), state))

    def start(self) -> None:
        row = self._some("enqueued")
        if row:
            self._tell(replace(row, state="started"))

    def finish(self) -> None:
        row = self._some("started", "enqueued")
        if row:
            state = self._rng.choices(["done", "failed", "pending", "cancelled"], [10, 3, 2, 1])[0]
            eta = self._now + self._rng.randint(1, 8) if state == "pending" else row.eta
            self._tell(replace(row, state=state, eta=eta))

    def transit(self) -> None:
        """A user does something."""
        row = self._some("pending", "failed", "done", "cancelled", "wait_dependencies")
        if row:
            states = ["pending", "pending", "done", "cancelled", "failed", "started"]
            # A job that OCA has in a queue stays there when it is told that it waits for another one: see
            # test_oca_channels.
            if row.state in ("done", "cancelled"):
                states.append("wait_dependencies")
            self._tell(replace(row, state=self._rng.choice(states)))

    def put_right(self) -> None:
        row = self._some("failed")
        if row:
            self._tell(replace(row, state=self._rng.choice(["pending", "done", "cancelled"])))

    def alter(self) -> None:
        row = self._some(*HOLDS, "pending", "pending", "failed")
        if row:
            rng = self._rng
            what = rng.choice(["priority", "eta", "channel", "nothing"])
            if what == "priority":
                row = replace(row, priority=rng.randint(0, 3))
            elif what == "eta":
                row = replace(row, eta=self._eta())
            elif what == "channel":
                row = replace(row, channel=rng.choice(self._channels))
            self._tell(row)

    def delete(self) -> None:
        if self._rows:
            job_id = self._rng.choice(list(self._rows))
            del self._rows[job_id]
            self._log.append(f"delete {job_id}")
            for side in self._sides.values():
                side.remove(job_id)

    def pass_time(self) -> None:
        self._now += self._rng.choice([1, 1, 2, 5])
        self._log.append(f"now {self._now}")

    def tidy(self) -> None:
        """Rows that are over do not stay for ever."""
        for row in [row for row in self._rows.values() if row.state in ("done", "cancelled")]:
            del self._rows[row.job_id]
        while len(self._rows) > 60:
            self.delete()

    def decide(self) -> None:
        """Everybody says what is to run, and the rows say afterwards that it does."""
        decisions = {name: side.decide(self._now) for name, side in self._sides.items()}
        self._log.append(f"at {self._now}: {decisions}")
        first = next(iter(decisions.values()))
        if any(decision != first for decision in decisions.values()):
            raise Difference("\n".join(self._log[-60:]))
        del self._log[:-200]
        self.started += len(first)
        for job_id in first:
            self._tell(replace(self._rows[job_id], state="enqueued"))


_HAPPENINGS: list[Callable[[History], None]] = [
    *(History.new, History.start, History.finish, History.transit, History.put_right, History.alter),
    *(History.delete, History.pass_time, History.tidy, History.decide),
]
_WEIGHTS = [10, 2, 8, 2, 2, 3, 1, 4, 1, 8]


def _random_spec(rng: random.Random, name: str) -> ChannelSpec:
    if rng.random() < 0.3:
        return ChannelSpec(name=name, capacity=1, sequential=True, throttle_s=rng.choice([0, 0, 0, 3]))
    return ChannelSpec(
        name=name,
        capacity=rng.choice([None, 1, 1, 2, 3, 6]),
        throttle_s=rng.choice([0, 0, 0, 0, 1, 4]),
        paused=rng.random() < 0.04,
    )


def nested_specs(rng: random.Random) -> list[ChannelSpec]:
    """Limits at every level."""
    specs, names = [], {ROOT}
    for name in (ROOT, *(f"{ROOT}.{name}" for name in CHANNELS if rng.random() < 0.75)):
        if name == ROOT or parent_name(name) in names:
            names.add(name)
            specs.append(_random_spec(rng, name))
    return specs


def flat_specs(rng: random.Random) -> list[ChannelSpec]:
    """Limits only where there are no channels below: what OCA hands on starts at once."""
    specs = nested_specs(rng)
    inner = {parent_name(spec.name) for spec in specs}
    return [ChannelSpec(name=spec.name, capacity=None) if spec.name in inner else spec for spec in specs]


def flat_channels(specs: Sequence[ChannelSpec]) -> list[str | None]:
    """Channels of jobs that are handed on only where nothing limits them."""
    limits = {spec.name: spec for spec in specs}
    inner = {parent_name(spec.name) for spec in specs}

    def is_flat(channel: str | None) -> bool:
        name = complete_name(channel)
        above = parent_name(name)
        while above is not None and above not in limits:
            above = parent_name(above)
        return name in limits or above in inner

    return [channel for channel in JOB_CHANNELS if is_flat(channel)]


def compare(seed: int, operations: int, *, nested: bool) -> tuple[int, int]:
    """One random tree, one random history. Returns how many jobs started, and how often OCA took something back.

    Raises Difference. `nested` False: OCA's manager is as it is.
    """
    rng = random.Random(seed)
    specs = nested_specs(rng) if nested else flat_specs(rng)
    channels = JOB_CHANNELS if nested else flat_channels(specs)
    oca = Oca(specs, takes_back=nested)
    ours = {"a tree per database": Ours(specs), "server-wide": OursShared(specs)}
    history = History(rng, channels, {"OCA": oca, **ours})
    try:
        for _ in range(operations):
            history.step()
    except Difference as difference:
        tree = "\n".join(map(str, specs))
        raise Difference(f"seed {seed}, after {history.operations} operations\n{tree}\n{difference}") from None
    finally:
        for side in ours.values():
            side.close()
    return history.started, oca.taken_back


def main() -> int:
    options = _options()
    began_s = shown_s = time.monotonic()
    done = started = taken_back = 0
    seed = options.seed
    while done < options.operations:
        operations = min(HISTORY, options.operations - done)
        try:
            # Every other tree has limits where nothing is below them only, and OCA's manager is left as it is.
            jobs, back = compare(seed, operations, nested=bool(seed % 2))
        except Difference as difference:
            print(difference)
            print(f"{done} operations: a difference, seed {seed}")
            return 1
        done, started, taken_back, seed = done + operations, started + jobs, taken_back + back, seed + 1
        if time.monotonic() - shown_s >= PROGRESS_S:
            shown_s = time.monotonic()
            print(f"{done} of {options.operations} operations, seed {seed}, no difference yet", flush=True)
    took_s = time.monotonic() - began_s
    print(f"{done} operations, {started} jobs started, {taken_back} taken back: no difference ({took_s:.0f} s)")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--operations", type=int, default=1_000_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first history (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
