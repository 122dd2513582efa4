"""The faults: each one strikes, and returns how it is undone and after how many seconds, if that is needed.

One that cannot be done at the moment (there is no PostgreSQL, say) raises one of CANNOT.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg2

from qjsupervisor.testing import jobs
from qjsupervisor.testing.odoo_http import EVERYBODY, Mode
from qjsupervisor.testing.processes import DemoError

from .record import ODD
from .world import CAPACITIES, Heal, Interruption, World


class CannotError(Exception):
    """There is nothing to strike."""


CANNOT = (CannotError, psycopg2.Error, OSError, DemoError, subprocess.TimeoutExpired)
Fault = Callable[[World], "tuple[float, Heal] | None"]
#: A job that is killed with its worker is over that much later at the latest.
_LONGEST_JOB_S = 4.0
_HOSTILE = (
    "",
    "reload",
    "' OR 1=1; --",
    "../../web/session/logout",
    "\x1b[31mred\x1b[0m",
    "a\nb\r\nHost: evil",
    "%00%ff",
    "ü" * 3000,
    "00000000-0000-0000-0000-000000000000",
)


def _worker(world: World) -> int:
    children = [child.pid for child in world.supervisor.children() if child.ppid() == world.supervisor.pid]
    if not children:
        raise CannotError("no worker")
    return world.chance.choice(children)


def kill_worker(world: World) -> None:
    os.kill(_worker(world), signal.SIGKILL)


def stop_worker(world: World) -> tuple[float, Heal]:
    """The master has to find it: nobody continues it until its master is dead, too, or much later."""
    pid = _worker(world)
    os.kill(pid, signal.SIGSTOP)
    return 15.0, lambda: _continue(pid)


def _continue(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def kill_master(world: World) -> None:
    """The loop starts it again, as supervisord does."""
    world.master_killed = True
    world.supervisor.kill()


def change_capacities(world: World) -> tuple[float, Heal]:
    chance = world.chance
    root = chance.randint(2, CAPACITIES["root"] + world.more)
    slow = chance.randint(1, CAPACITIES["root.slow"] + min(world.more, 1))
    _configure(world, {**CAPACITIES, "root": root, "root.slow": slow})
    return chance.uniform(0.5, 3.0), lambda: _configure(world, CAPACITIES)


def _configure(world: World, capacities: dict[str, int]) -> None:
    if not _hears(world.supervisor.pid, signal.SIGHUP):
        raise CannotError("the master is not there yet")
    world.supervisor.write_conf(world.conf(capacities))
    world.supervisor.send_signal(signal.SIGHUP)


def _hears(pid: int, signum: int) -> bool:
    """Whether it handles a signal: an interpreter that only just starts is ended by one."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signum - 1) & 1)


def kill_postgres(world: World) -> tuple[float, Heal]:
    from_s = time.time()
    world.postgres.kill()
    return world.chance.uniform(0.0, 1.5), lambda: _start_postgres(world, from_s)


def _start_postgres(world: World, from_s: float) -> None:
    world.postgres.start()
    world.interruptions.append(Interruption(from_s, time.time()))


def restart_postgres(world: World) -> None:
    with world.interrupting():
        world.postgres.restart(world.chance.choice(("fast", "immediate")))


def end_backend(world: World) -> None:
    found = world.postgres.execute(
        "postgres",
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'qjsupervisor' ORDER BY datname",
        superuser=True,
    )
    if not found:
        raise CannotError("no session")
    (pid,) = world.chance.choice(found)
    world.postgres.execute("postgres", "SELECT pg_terminate_backend(%s)", (pid,), superuser=True)


def end_sessions(world: World) -> tuple[float, Heal]:
    """All of them, and once more when they have just been made again."""
    _end_sessions(world)
    return world.chance.uniform(0.3, 1.5), lambda: _end_sessions(world)


def _end_sessions(world: World) -> None:
    world.postgres.execute(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'qjsupervisor'",
        superuser=True,
    )


def kill_behind_stopped_sessions(world: World) -> None:
    """A worker or the master dies while the server cannot notice: its sessions outlive it by seconds."""
    seconds = world.chance.uniform(1.0, 3.0)
    kill = world.chance.choice((kill_worker, kill_master))
    found = world.postgres.execute(
        "postgres", "SELECT pid FROM pg_stat_activity WHERE application_name = 'qjsupervisor'", superuser=True
    )
    for (pid,) in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    _thaw_after(world, seconds)
    kill(world)


def hang_postgres(world: World) -> None:
    """For less than the 2 s after which a claim's permits go back: the rows of a late claim would count above them."""
    world.postgres.freeze()
    _thaw_after(world, world.chance.uniform(0.5, 1.5))


def _thaw_after(world: World, seconds: float) -> None:
    """From a thread: that of the faults may itself wait for the server."""
    timer = threading.Timer(seconds, world.postgres.thaw)
    timer.daemon = True
    timer.start()


def unreachable_at_start(world: World) -> tuple[float, Heal]:
    """A database takes no connection just when the supervisor starts; sessions that there are stay."""
    name = world.chance.choice(world.names)
    _limit(world, name, 0)
    kill_master(world)
    return world.chance.uniform(0.5, 4.0), lambda: _limit(world, name, -1)


def _limit(world: World, name: str, connections: int) -> None:
    with suppress(psycopg2.errors.InvalidCatalogName):  # dropped meanwhile, and its limit with it
        world.postgres.execute("postgres", f"ALTER DATABASE {name} CONNECTION LIMIT {connections}", superuser=True)


def restart_odoo(world: World) -> tuple[float, Heal]:
    world.keep_runs()
    with world.interrupting():
        world.odoo.stop()
    return world.chance.uniform(0.1, 2.0), lambda: _start_odoo(world)


def _start_odoo(world: World) -> None:
    try:
        _ = world.odoo.pid
    except DemoError:
        world.odoo.start()


def kill_odoo_worker(world: World) -> None:
    at_s = time.time()
    uuid = world.odoo.kill_worker()
    if uuid is None:
        raise CannotError("no job runs")
    world.interruptions.append(Interruption(at_s, time.time() + _LONGEST_JOB_S, uuid=uuid))


def _ill(mode: Mode, *, interrupts: bool = False) -> Fault:
    def fault(world: World) -> tuple[float, Heal]:
        who = world.chance.choice((EVERYBODY, *world.names))
        from_s = time.time()

        def heal() -> None:
            world.odoo.set_mode(who, Mode.OK)
            if interrupts:
                database = None if who == EVERYBODY else who
                world.interruptions.append(Interruption(from_s, time.time() + _LONGEST_JOB_S, database))

        world.odoo.set_mode(who, mode, 1)
        return world.chance.uniform(0.3, 2.0), heal

    return fault


def hostile_payloads(world: World) -> None:
    with world.session(world.chance.choice(world.names)) as connection, connection.cursor() as cursor:
        for payload in world.chance.sample(_HOSTILE, 4):
            cursor.execute("SELECT pg_notify('queue_job', %s)", (payload,))


def odd_rows(world: World) -> None:
    """Rows of the strangest kinds; whether they run is no matter here."""
    rows: list[dict[str, object]] = [
        {"channel": None, "priority": None, "date_created": None},
        {"channel": "", "date_created": "infinity", "eta": "-infinity"},
        {"channel": "no.such\n channel", "priority": -2147483648},
        {"channel": "root." + "x" * 300, "kwargs": '"nonsense"'},
        {"uuid": ""},
        {"uuid": "x" * 5000},
        {"uuid": "twice & twice\n#"},
        {"state": "unheard of"},
        {"eta": "infinity", "retry": 2147483647, "max_retries": None},
    ]
    with world.session(world.chance.choice(world.names)) as connection:
        for row in world.chance.sample(rows, 4):
            jobs.insert_row(connection, **{"name": ODD, "retry": 0, "max_retries": 0, **row})


def missed_notification(world: World) -> tuple[float, Heal]:
    name = world.chance.choice(world.names)
    if name in world.deaf:
        raise CannotError("already")
    world.deaf.add(name)
    try:
        _set_trigger(world, name, "DISABLE")
    except psycopg2.Error:
        world.deaf.discard(name)
        raise
    with suppress(psycopg2.Error), world.session(name) as connection:
        jobs.insert_jobs(connection, 3, max_retries=0)
    return world.chance.uniform(0.1, 1.5), lambda: _set_trigger(world, name, "ENABLE")


def _set_trigger(world: World, name: str, verb: str) -> None:
    with world.session(name) as connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE queue_job {verb} TRIGGER queue_job_notify")
    if verb == "ENABLE":
        world.deaf.discard(name)


def drop_database(world: World) -> tuple[float, Heal]:
    world.forget_session(world.scratch)
    world.postgres.drop_database(world.scratch)
    return world.chance.uniform(0.0, 4.0), lambda: _make_again(world)


def _make_again(world: World) -> None:
    with suppress(psycopg2.errors.DuplicateDatabase):
        world.make_database(world.scratch)


def pause(world: World) -> tuple[float, Heal]:
    scope = world.chance.choice((world.names[0], world.names[1], ":root.slow", f"{world.names[0]}:root.seq"))
    limit = world.chance.choice(((), ("--for", "2s")))
    world.supervisor.run("pause", scope, *limit)
    return world.chance.uniform(0.2, 2.0), lambda: _resume(world, scope)


def _resume(world: World, scope: str) -> None:
    world.supervisor.run("resume", scope)


FAULTS: dict[str, tuple[int, Fault]] = {
    "worker killed": (10, kill_worker),
    "worker stopped": (4, stop_worker),
    "master killed": (3, kill_master),
    "capacities changed": (6, change_capacities),
    "PostgreSQL killed": (2, kill_postgres),
    "PostgreSQL restarted": (2, restart_postgres),
    "backend ended": (8, end_backend),
    "all sessions ended twice": (3, end_sessions),
    "killed behind stopped sessions": (3, kill_behind_stopped_sessions),
    "PostgreSQL hangs": (3, hang_postgres),
    "unreachable at start": (2, unreachable_at_start),
    "Odoo restarted": (4, restart_odoo),
    "Odoo worker killed": (6, kill_odoo_worker),
    "Odoo: 404": (3, _ill(Mode.NOT_FOUND)),
    "Odoo: 303": (3, _ill(Mode.REDIRECT)),
    "Odoo: 500": (3, _ill(Mode.ERROR)),
    "Odoo: 200, not run": (3, _ill(Mode.NOT_RUN)),
    "Odoo: 502": (2, _ill(Mode.BAD_GATEWAY)),
    "Odoo: 504, runs on": (3, _ill(Mode.GATEWAY_TIMEOUT)),
    "Odoo: refuses": (2, _ill(Mode.REFUSE)),
    "Odoo: slow": (4, _ill(Mode.SLOW)),
    "Odoo: all workers die": (1, _ill(Mode.DIE, interrupts=True)),
    "hostile payloads": (6, hostile_payloads),
    "odd rows": (4, odd_rows),
    "notifications missed": (5, missed_notification),
    "database dropped": (3, drop_database),
    "paused": (5, pause),
}
