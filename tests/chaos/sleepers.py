"""A world of very many databases that sleep: single jobs here and there, and faults of those who watch them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from psycopg2 import extensions

from qjsupervisor.control_client import NotRunning, ask
from qjsupervisor.errors import ProtocolError
from qjsupervisor.testing import jobs

from ..helpers import is_alive, wait_until
from .fault import CannotError, Fault
from .of_processes import kill_master, stop_master
from .run import Chaos, Pauses, Plan, Say
from .verdict import judge_runs, unless
from .work import SEQUENTIAL
from .world import SQL_TIMEOUT, Heal, Kind, World

#: Sessions that stay open after they inserted a job: what they wrote is reported late.
_KEPT = 20
_LEFT = "SELECT 1 FROM queue_job WHERE state IN ('pending', 'enqueued', 'started')"
_UUIDS = "SELECT uuid FROM queue_job"
#: Rows: (seconds from when a job was due until it started); of those that ran once.
_WAITS = """
SELECT extract(epoch FROM date_started - greatest(date_created, eta))::float8 FROM queue_job
 WHERE state = 'done'
   AND uuid NOT IN (SELECT uuid FROM chaos_record WHERE state = 'started' GROUP BY 1 HAVING count(*) > 1)
"""


class SleepersWorld(World):
    """Owned and used by one thread, like any world."""

    def __init__(self, seed: int, databases: int, folder: Path, later_s: float) -> None:
        """`later_s`: how much later than now jobs may be due."""
        self.server = {"max_connections": min(databases, 800) + 100, "autovacuum_naptime": "60s"}
        self.start_s = 60.0 + databases / 8
        self._most = databases + 50
        self.later_s = later_s
        #: uuids of the jobs of each database that was given any.
        self.inserted: dict[str, set[str]] = defaultdict(set)
        self.dropped: list[str] = []
        #: Jobs that were dropped with their database.
        self.lost: set[str] = set()
        self._kept: deque[extensions.connection] = deque()
        super().__init__(seed, databases, folder, Kind(more=0, link=False, long=False, sleeps=True))

    def options(self) -> dict[str, object]:
        many = self._most > 200
        return {
            "idle_timeout": 2,
            "sleep_timeout": 1,
            "rescan_interval": 20 if many else 2,
            "hang_timeout": 10 if many else 3,
            "boot_timeout": 60,
            "connect_timeout": 10,
            "max_databases": self._most,
        }

    def ready(self) -> set[str]:
        return {view["name"] for view in self.views() if view["state"] == "ready"}

    def views(self) -> list[dict[str, Any]]:
        """All databases as the supervisor shows them; none while it does not answer."""
        try:
            found: list[dict[str, Any]] = ask(self.place.supervisor.socket, {"do": "status"}, 30)["status"]["databases"]
        except (NotRunning, ProtocolError):
            found = []
        return found

    @contextmanager
    def session(self, name: str) -> Iterator[extensions.connection]:
        """A session of its own, closed at the end unless `keep` was told to keep it."""
        connection = psycopg2.connect(**{**self.postgres.dsn(name), "options": SQL_TIMEOUT})
        connection.autocommit = True
        try:
            yield connection
        finally:
            if connection not in self._kept:
                connection.close()

    def keep(self, connection: extensions.connection) -> None:
        self._kept.append(connection)
        if len(self._kept) > _KEPT:
            self._kept.popleft().close()

    def close(self) -> None:
        while self._kept:
            self._kept.pop().close()
        super().close()


def _sleepers(world: World) -> SleepersWorld:
    assert isinstance(world, SleepersWorld)
    return world


# -- jobs ------------------------------------------------------------------------------------------------------------


def insert(world: World) -> int:
    """One or two jobs in any database."""
    own, chance = _sleepers(world), world.chance
    name = chance.choice(own.names)
    batch: dict[str, Any] = {"kwargs": {"sleep": chance.uniform(0.0, 0.3)}}
    kind = chance.random()
    if kind < 0.05:
        batch = {"kwargs": {"fail": True}}
    elif kind < 0.10:
        batch = {"kwargs": {"retry": 1, "retry_s": chance.uniform(0.1, own.later_s)}}
    elif kind < 0.15:
        batch["eta_s"] = chance.uniform(0.1, own.later_s)
    elif kind < 0.25:
        batch["channel"] = chance.choice(("root.slow", SEQUENTIAL))
    with own.session(name) as connection:
        if chance.random() < 0.1:
            connection.cursor().execute("SELECT count(*) FROM queue_job")
            own.keep(connection)
        uuids = jobs.insert_jobs(connection, chance.choice((1, 1, 1, 2)), max_retries=0, **batch)
    own.inserted[name].update(uuids)
    return len(uuids)


# -- faults ----------------------------------------------------------------------------------------------------------


def _children(world: World, title: str) -> list[psutil.Process]:
    """The master's, with such a title; the youngest first."""
    supervisor = world.place.supervisor
    found = [each for each, words in supervisor.titles().items() if title in words and each.ppid() == supervisor.pid]
    if not found:
        raise CannotError(f"no {title}")
    return sorted(found, key=lambda each: -each.create_time())


def kill_porter(world: World) -> None:
    world.lapse()
    world.chance.choice(_children(world, "porter")).kill()


def kill_porter_again(world: World) -> None:
    """As soon as it is back, until its master gives up on it."""
    world.lapse(10.0)
    for _ in range(5):
        found = wait_until(lambda: [each for each in _porters(world) if is_alive(each)], "a porter", 10)
        found[-1].kill()
        wait_until(lambda found=found: not is_alive(found[-1]), "it is dead")


def _porters(world: World) -> list[psutil.Process]:
    return [each for each, title in world.place.supervisor.titles().items() if "porter" in title]


def stop_porter(world: World) -> tuple[float, Heal]:
    porter = world.chance.choice(_children(world, "porter"))
    seconds = world.chance.uniform(0.5, 12.0)
    world.lapse(seconds)
    porter.suspend()
    return seconds, lambda: _continue(porter)


def _continue(process: psutil.Process) -> None:
    if process.is_running():
        process.resume()


def kill_waking(world: World) -> None:
    """The youngest worker: it takes a database over, or has just begun."""
    world.lapse()
    _children(world, "worker")[0].kill()


def kill_scout(world: World) -> None:
    _children(world, "scout")[0].kill()


def reset_counters(world: World) -> None:
    names = world.chance.sample(world.names, min(len(world.names), world.chance.randint(1, 20)))
    for name in names:
        world.postgres.execute(name, "SELECT pg_stat_reset()", superuser=True)


def restart_postgres(world: World) -> tuple[float, Heal]:
    """After a crash ("immediate") all counters begin anew."""
    from_s = time.time()
    world.postgres.stop(world.chance.choice(("fast", "immediate")))

    def start() -> None:
        world.postgres.start()
        world.note_interruption(from_s)

    return world.chance.uniform(0.0, 3.0), start


def end_session(world: World) -> None:
    """As an administrator does who wants a database for himself."""
    pids = world.sessions()
    if not pids:
        raise CannotError("no session")
    world.lapse()
    world.ask("SELECT pg_terminate_backend(%s)", (world.chance.choice(pids),))


def drop_database(world: World) -> None:
    own = _sleepers(world)
    if len(own.names) < 4:
        raise CannotError("too few")
    name = world.chance.choice(own.names)
    own.names.remove(name)
    own.lost |= own.inserted.pop(name, set())
    own.dropped.append(name)
    world.lapse()
    world.postgres.drop_database(name)


def make_database(world: World) -> None:
    """One that was dropped, or a new one."""
    own = _sleepers(world)
    name = own.dropped.pop(0) if own.dropped and world.chance.random() < 0.5 else f"chaos_new_{int(time.time() * 1000)}"
    world.make_database(name)
    own.names.append(name)


FAULTS: Mapping[str, tuple[int, Fault]] = {
    "porter killed": (6, kill_porter),
    "porter stopped": (3, stop_porter),
    "porter killed again and again": (2, kill_porter_again),
    "waking worker killed": (6, kill_waking),
    "scout killed": (2, kill_scout),
    "master killed": (2, kill_master),
    "master stopped": (2, stop_master),
    "counters reset": (5, reset_counters),
    "PostgreSQL restarted": (2, restart_postgres),
    "session ended": (3, end_session),
    "database dropped": (2, drop_database),
    "database made": (3, make_database),
}

#: Not in a short run.
LONG = ("porter stopped", "porter killed again and again", "master stopped", "session ended")

# -- the verdict -----------------------------------------------------------------------------------------------------


def _look_for_left(unsettled: set[str]) -> Callable[[World], list[str]]:
    """Databases with jobs that are not over; `unsettled` shrinks to them."""

    def left(world: World) -> list[str]:
        for name in sorted(unsettled):
            with world.session(name) as connection, connection.cursor() as cursor:
                cursor.execute(_LEFT)
                if not cursor.fetchall():
                    unsettled.discard(name)
        return [f"jobs of {name}" for name in sorted(unsettled)]

    return left


def _not_asleep(world: World) -> list[str]:
    views = {view["name"]: view for view in _sleepers(world).views()}
    return [
        f"{name} is {views[name]['phase']}, {views[name]['state']}" if name in views else f"{name} is not known"
        for name in world.names
        if name not in views or (views[name]["phase"], views[name]["state"]) != ("asleep", "ready")
    ]


def _no_porter(world: World) -> list[str]:
    views = _sleepers(world).views()
    return [f"{view['name']} has a worker" for view in views if view["phase"] == "awake"] or [] if views else ["?"]


def judge(
    own: SleepersWorld, limit_s: float, turn: Callable[[], None], say: Say, *, until_asleep: bool = True
) -> list[str]:
    began_s = time.monotonic()
    found = unless(own, _look_for_left(set(own.inserted)), "still there", limit_s, turn)
    say(f"drained after {time.monotonic() - began_s:.1f} s" if not found else "NOT drained")
    found += unless(own, _not_asleep if until_asleep else _no_porter, "at rest", limit_s, turn)
    say(f"at rest after {time.monotonic() - began_s:.1f} s")
    own.keep_runs()
    own.runs = [run for run in own.runs if run["uuid"] not in own.lost]
    waits: list[float] = []
    for name, uuids in own.inserted.items():
        with own.session(name) as connection, connection.cursor() as cursor:
            cursor.execute(_UUIDS)
            missing = uuids - {uuid for (uuid,) in cursor}
            found += [f"{name}: rows that are gone: {sorted(missing)}"] if missing else []
            cursor.execute(_WAITS)
            waits += [wait_s for (wait_s,) in cursor]
    say(_spread("jobs waited", sorted(waits)))
    return found + judge_runs(own, sorted(own.inserted), say)


def _spread(what: str, values: Sequence[float]) -> str:
    if not values:
        return f"{what}: none"
    shown = [f"{part:.0%} {values[int(part * (len(values) - 1))]:.2f} s" for part in (0.5, 0.9, 0.99, 1.0)]
    return f"{what}: {', '.join(shown)}"


def run(
    seed: int,
    databases: int,
    seconds: float,
    many_jobs: int,
    say: Say,
    *,
    between_faults_s: Pauses = (1.0, 6.0),
    short: bool = False,
) -> list[str]:
    """What was violated, also said. `short`: without what takes long, and not until all are asleep."""
    folder = Path(tempfile.mkdtemp(prefix="qjs-chaos-"))
    began_s = time.monotonic()
    world = SleepersWorld(seed, databases, folder, later_s=min(20.0, seconds / 4))
    say(f"seed {seed}, {databases} databases ready after {time.monotonic() - began_s:.0f} s, logs in {folder}")
    pause_s = seconds / max(1, many_jobs) * 2 * 1.25
    plan = Plan(
        faults={name: fault for name, fault in FAULTS.items() if not short or name not in LONG},
        between_faults_s=between_faults_s,
        insert=insert,
        between_jobs_s=(0.0, pause_s),
        tidy=lambda _world: None,
        scopes=lambda _world: (),
    )
    chaos = Chaos(world, say, plan)
    try:
        chaos.strike(seconds)
        chaos.heal()
        violations = judge(world, 45.0 + databases / 15, chaos.attend_only, say, until_asleep=not short)
    finally:
        world.close()
    if not violations:
        shutil.rmtree(folder)
    chaos.report(seed, violations)
    return violations
