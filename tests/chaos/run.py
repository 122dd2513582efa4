"""One run: faults among a stream of jobs; then everything is healed, drained, and judged."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2

from .fault import CANNOT, Fault
from .faults import FAULTS
from .rules import Rules
from .verdict import judge
from .work import clear, insert
from .world import CAPACITIES, Heal, Kind, Place, World

_PROGRESS_S = 5.0
_TRY_AGAIN_S = 0.5
_CLEAR_S = 2.0
#: Until all faults are undone; servers that recover take long on a machine that does much else.
_HEAL_S = 300.0
#: For a command, on a machine that does much else.
_BUSY_S = 60.0
_TRIES = 5


def _tidy(world: World) -> None:
    clear(world)
    world.keep_ledger()


def _scopes(world: World) -> Sequence[str]:
    return (*world.names, ":root.slow", f"{world.names[0]}:root.seq")


Say = Callable[[str], None]
Pauses = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens in a world, and how often; pauses from the shortest to the longest, in seconds."""

    #: By name, each with its weight.
    faults: Mapping[str, tuple[int, Fault]] = field(default_factory=lambda: FAULTS)
    between_faults_s: Pauses = (0.1, 0.7)
    #: Inserts some jobs; how many. psycopg2.Error where that cannot be done at the moment.
    insert: Callable[[World], int] = insert
    between_jobs_s: Pauses = (0.02, 0.2)
    #: Called every few seconds, and so may raise that too.
    tidy: Callable[[World], None] = _tidy
    #: What may still be paused.
    scopes: Callable[[World], Sequence[str]] = _scopes


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    seconds: float = 60.0
    seed: int = 1
    databases: int = 4
    #: From the last fault until all is done; at least half of the time in which jobs came.
    drain_s: float = 150.0
    #: None: drawn from the seed.
    kind: Kind | None = None
    #: None: as in `kind`.
    supervisors: int | None = None
    rules: Rules | None = None


class Chaos:
    """Faults, jobs and what undoes the faults, each at its time; one thread."""

    def __init__(self, world: World, say: Say, plan: Plan | None = None) -> None:
        self._world = world
        self._say = say
        self._plan = plan or Plan()
        self._pause = threading.Event()
        self._heals: list[tuple[float, Heal]] = []
        self.struck: Counter[str] = Counter()
        self.jobs = 0
        self._clear_s = 0.0

    def strike(self, seconds: float) -> None:
        """For so long."""
        chance, began_s = self._world.chance, time.monotonic()
        next_fault_s = next_jobs_s = began_s
        shown_s = began_s
        while (now_s := time.monotonic()) < began_s + seconds:
            if now_s >= next_fault_s:
                self._fault()
                next_fault_s = time.monotonic() + chance.uniform(*self._plan.between_faults_s)
            if now_s >= next_jobs_s:
                self._insert()
                next_jobs_s = now_s + chance.uniform(*self._plan.between_jobs_s)
            if now_s >= shown_s + _PROGRESS_S:
                shown_s = now_s
                self._say(f"{now_s - began_s:4.0f} s: {self.jobs} jobs, {self.struck.total()} faults")
            self._attend()
            self._pause.wait(0.03)

    def heal(self) -> None:
        """Undo what is still broken, whatever its time. What cannot be undone is a violation; the run is judged."""
        deadline_s = time.monotonic() + _HEAL_S
        while self._heals or any(place.restart_s is not None for place in self._world.places):
            if time.monotonic() >= deadline_s:
                names = ", ".join(heal.__qualname__ for _at_s, heal in self._heals)
                self._world.violations.append(f"the run's own fault: cannot heal within {_HEAL_S:g} s: {names}")
                break
            now_s = time.monotonic()
            self._heals = [(min(at_s, now_s + _TRY_AGAIN_S), heal) for at_s, heal in self._heals]
            self._attend()
            self._pause.wait(0.05)
        for scope in self._plan.scopes(self._world):
            for place in self._world.places:
                self._resume(place, scope)

    def _resume(self, place: Place, scope: str) -> None:
        for _ in range(_TRIES):
            with suppress(subprocess.TimeoutExpired):
                place.supervisor.run("resume", scope, timeout_s=_BUSY_S)
                return

    def report(self, seed: int, violations: Sequence[str]) -> None:
        """Say what was done, and what was violated."""
        for name in self._plan.faults:
            self._say(f"{self.struck[name]:5d}  {name}")
        for violation in violations:
            self._say(f"VIOLATION: {violation}")
        self._say(f"seed {seed}: {self.jobs} jobs, {self.struck.total()} faults, {len(violations)} violations")

    def attend_only(self) -> None:
        """A turn without faults: the master is watched."""
        self._attend()

    def _fault(self) -> None:
        """One that can be done at the moment."""
        for _ in range(_TRIES):
            faults = self._plan.faults
            (name,) = self._world.chance.choices(list(faults), [weight for weight, _ in faults.values()])
            self._world.place = self._world.chance.choice(self._world.places)
            try:
                healing = faults[name][1](self._world)
            except CANNOT:
                continue
            self._note(name, healing)
            return

    def _note(self, name: str, healing: tuple[float, Heal] | None) -> None:
        self.struck[name] += 1
        self._world.note(name)
        if healing is not None:
            self._heals.append((time.monotonic() + healing[0], healing[1]))

    def _insert(self) -> None:
        try:
            self.jobs += self._plan.insert(self._world)
        except psycopg2.Error:
            return

    def _attend(self) -> None:
        """Heal what is due; start the master where it has ended."""
        now_s = time.monotonic()
        due = [heal for at_s, heal in self._heals if at_s <= now_s]
        self._heals = [each for each in self._heals if each[0] > now_s]
        for heal in due:
            self._try_to(heal)
        if now_s >= self._clear_s:
            self._clear_s = now_s + _CLEAR_S
            with suppress(psycopg2.Error):
                self._plan.tidy(self._world)
        for place in self._world.places:
            self._watch_master(place, time.monotonic())

    def _try_to(self, heal: Heal) -> None:
        try:
            step = heal()
        except CANNOT:
            self._heals.append((time.monotonic() + _TRY_AGAIN_S, heal))
            return
        self._world.note(f"healed: {heal.__qualname__}")
        if step is not None:
            self._heals.append((time.monotonic() + step[0], step[1]))

    def _watch_master(self, place: Place, now_s: float) -> None:
        status = place.supervisor.process.poll()
        if status is None:
            return
        if place.restart_s is None:
            if not place.master_killed:
                self._world.violations.append(f"a master ended by itself, status {status}")
            place.restart_s = now_s + self._world.chance.uniform(0.0, 1.0)
        if now_s >= place.restart_s:
            place.restart_s, place.master_killed = None, False
            place.supervisor.start()


def run(options: Options, say: Say) -> list[str]:
    """What was violated, also said."""
    folder = Path(tempfile.mkdtemp(prefix="qjs-chaos-"))
    kind = options.kind or Kind.drawn(random.Random(options.seed))
    if options.supervisors is not None:
        kind = kind._replace(supervisors=options.supervisors)
    if options.rules is not None:
        kind = kind._replace(rules=options.rules)
    world = World(options.seed, options.databases, folder, kind)
    say(f"seed {options.seed}, {options.databases} databases, {CAPACITIES}, {world.kind}, logs in {folder}")
    chaos = Chaos(world, say)
    try:
        chaos.strike(options.seconds)
        chaos.heal()
        violations = judge(world, max(options.drain_s, options.seconds / 2), chaos.attend_only, say)
    finally:
        world.close()
    if not violations:
        shutil.rmtree(folder)
    chaos.report(options.seed, violations)
    return violations
