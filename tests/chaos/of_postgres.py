"""Faults of PostgreSQL: its server, its sessions, and the link to it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import psycopg2

from qjsupervisor.broker.rules import BARRIER_S, LEASE_S
from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..acceptance.link import Link
from ..replica import Replica
from .fault import CANNOT, CannotError
from .of_processes import kill_child, kill_master, kill_some
from .world import Heal, World

#: A job whose session was ended notices that so much later at the latest, unless its world's jobs are long.
LONGEST_JOB_S = 4.0
#: Where jobs go on for long, their permits are held for `dead_after_restart` after each restart.
_RESTARTS_APART_S = 90.0
_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s"


# -- the server ------------------------------------------------------------------------------------------------------


def kill_postgres(world: World) -> tuple[float, Heal]:
    _expect_restart(world)
    from_s = time.time()
    world.postgres.kill()
    return world.chance.uniform(0.0, 1.5), lambda: _start_postgres(world, from_s)


def _start_postgres(world: World, from_s: float) -> None:
    world.postgres.start()
    world.note_interruption(from_s)


def restart_postgres(world: World) -> tuple[float, Heal]:
    _expect_restart(world)
    from_s = time.time()
    world.postgres.stop(world.chance.choice(("fast", "immediate")))
    return 0.0, lambda: _start_postgres(world, from_s)


def crash_postgres(world: World) -> tuple[float, Heal]:
    """One server process is killed: the postmaster ends all others, and starts anew without being started."""
    _expect_restart(world)
    pid = world.chance.choice(world.sessions(world.chance.choice(("qjsupervisor", "odoo"))) or _no_session())
    from_s = time.time()
    os.kill(pid, signal.SIGKILL)
    return 0.5, lambda: _recovered(world, from_s)


def _recovered(world: World, from_s: float) -> None:
    world.ask("SELECT 1")
    world.note_interruption(from_s)


def _expect_restart(world: World) -> None:
    if world.kind.long:
        if time.time() < world.restarted_s + _RESTARTS_APART_S:
            raise CannotError("jobs of the last restart still hold their permits")
        world.restarted_s = time.time()


def fail_over(world: World) -> tuple[float, Heal]:
    """A synchronous standby becomes the server, under the old one's address."""
    _expect_restart(world)
    old, new = world.postgres, world.standby()
    from_s = time.time()
    old.kill()
    return world.chance.uniform(0.0, 1.5), lambda: _promote(world, old, new, from_s)


def _promote(world: World, old: ThrowawayPostgres, new: Replica, from_s: float) -> None:
    new.stop()
    new.port = old.port
    new.start()
    if new.execute("postgres", "SELECT pg_is_in_recovery()") == [(True,)]:
        new.promote()
    world.postgres = new
    world.note_interruption(from_s)


def lose_ledger(world: World) -> tuple[float, Heal] | None:
    """The coordinator fails over, and its last seconds are lost; the databases have lost nothing."""
    links = [place.link for place in world.places if place.link is not None]
    document = world.ledger_of(time.time() - world.chance.uniform(2.0, 10.0))
    if not links or document is None or time.time() < world.silent_until_s + LEASE_S:
        raise CannotError("no cluster, no link, or somebody may have been cut off for longer than a lease")
    if any(place.link_is_silent or place.master_stopped for place in world.places):
        raise CannotError("somebody is cut off")
    _expect_restart(world)
    for link in links:
        link.silence()
    from_s = time.time()
    try:
        with world.interrupting():
            world.postgres.restart("immediate")
        world.put_ledger(document)
    except CANNOT:
        return 0.5, lambda: _start_postgres(world, from_s)
    finally:
        for link in links:
            link.speak()
        world.barrier_until_s = time.time() + BARRIER_S + LEASE_S
    return None


def hang_postgres(world: World) -> None:
    """Some claim is on its way. For less than the 2 s after which its permits go back, or for longer."""
    world.expect_answers()
    world.hang(world.chance.choice((world.chance.uniform(0.5, 1.5), world.chance.uniform(2.0, 9.0))))


# -- sessions --------------------------------------------------------------------------------------------------------


def end_session(world: World) -> None:
    _terminate(world, world.chance.choice(world.sessions() or _no_session()))


def _terminate(world: World, pid: int) -> None:
    world.ask("SELECT pg_terminate_backend(%s)", (pid,))


def _no_session() -> list[int]:
    raise CannotError("no session")


def end_sessions(world: World) -> tuple[float, Heal]:
    """All of them, and once more when they have just been made again."""
    world.ask(_END, ("qjsupervisor%",))
    return world.chance.uniform(0.3, 1.5), lambda: _end_sessions(world, 0)


def end_sessions_each_second(world: World) -> tuple[float, Heal]:
    return 0.0, lambda: _end_sessions(world, world.chance.randint(5, 15))


def _end_sessions(world: World, more: int) -> tuple[float, Heal] | None:
    world.ask(_END, ("qjsupervisor%",))
    return (1.0, lambda: _end_sessions(world, more - 1)) if more else None


def end_sessions_of_odoo(world: World) -> None:
    """The runs in them are broken, and fail when they are at their end. A long one may be run twice at once then."""
    if world.kind.long:
        raise CannotError("whoever does this to jobs that go on has them run again")
    from_s = time.time()
    world.ask(_END, ("odoo",))
    world.note_interruption(from_s, LONGEST_JOB_S)


def kill_behind_stopped_sessions(world: World) -> None:
    """Workers or the master die while the server cannot notice: their sessions outlive them by seconds."""
    seconds = world.chance.uniform(1.0, 5.0)
    kill = world.chance.choice((kill_child, kill_some, kill_master))
    for pid in world.sessions():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    world.thaw_after(seconds)
    kill(world)


def unreachable_at_start(world: World) -> tuple[float, Heal]:
    """A database takes no connection just when the supervisor starts; sessions that there are stay."""
    name = world.chance.choice(world.names)
    _limit(world, name, 0)
    kill_master(world)
    return world.chance.uniform(0.5, 4.0), lambda: _limit(world, name, -1)


def _limit(world: World, name: str, connections: int) -> None:
    with suppress(psycopg2.errors.InvalidCatalogName):  # dropped meanwhile, and its limit with it
        world.ask(f"ALTER DATABASE {name} CONNECTION LIMIT {connections}")


# -- the link --------------------------------------------------------------------------------------------------------


def swallow_packets(world: World) -> tuple[float, Heal]:
    """Of all connections, new ones too; somebody may be killed behind that."""
    place, link = world.place, _expect_link(world)
    longest_s = 2.0 if time.time() < world.barrier_until_s else 30.0
    seconds = world.chance.choice((world.chance.uniform(0.5, 2.0), world.chance.uniform(2.0, longest_s)))
    from_s = time.time()
    place.link_is_silent = True
    link.silence()
    if world.chance.random() < 0.4:
        with suppress(CannotError):  # the link is silent all the same, and has to be healed
            world.chance.choice((kill_child, kill_some, kill_master))(world)

    def heal() -> None:
        link.speak()
        place.link_is_silent = False
        world.silent_until_s = time.time()
        world.delays.append((from_s, time.time()))

    return seconds, heal


def forget_connections(world: World) -> None:
    """Those that there are fall silent for ever, as where a firewall lost its states. New ones work."""
    link = _expect_link(world)
    # As long as a worker takes to find out.
    world.delays.append((time.time(), time.time() + 30.0))
    link.silence(for_good=True)


def _expect_link(world: World) -> Link:
    link = world.place.link
    if link is None or world.place.link_is_silent:
        raise CannotError("no link, or it is silent")
    return link
