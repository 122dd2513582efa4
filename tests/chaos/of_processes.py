"""Faults of the supervisor's own processes, and orders to them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from .fault import CannotError
from .world import CAPACITIES, Heal, World

#: A child that is stopped is killed by its master, or by us.
_STOPPED_S = 15.0


def _children(world: World) -> list[int]:
    """Of the master: workers, scout, monitor and broker."""
    supervisor = world.place.supervisor
    found = [child.pid for child in supervisor.children() if child.ppid() == supervisor.pid]
    if not found:
        raise CannotError("no child")
    return found


def kill_child(world: World) -> None:
    world.lapse()
    os.kill(world.chance.choice(_children(world)), signal.SIGKILL)


def kill_some(world: World) -> None:
    """Any of them at once, the master too perhaps, which the loop starts again as supervisord does."""
    victims = [pid for pid in _children(world) if world.chance.random() < 0.5]
    world.lapse()
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if world.chance.random() < 0.3:
        kill_master(world)


def stop_child(world: World) -> tuple[float, Heal]:
    """The master has to find it: nobody continues it until its master is dead, too, or much later."""
    pid = world.chance.choice(_children(world))
    world.lapse(_STOPPED_S)
    os.kill(pid, signal.SIGSTOP)
    return _STOPPED_S, lambda: _continue(pid)


def _continue(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def kill_master(world: World) -> None:
    """The loop starts it again, as supervisord does."""
    world.place.master_killed = True
    world.lapse()
    world.place.supervisor.kill()


def stop_master(world: World) -> tuple[float, Heal]:
    """It stands still; its workers go on."""
    place, pid = world.place, world.place.supervisor.pid
    os.kill(pid, signal.SIGSTOP)
    place.master_stopped = True

    def heal() -> None:
        _continue(pid)
        place.master_stopped = False

    return world.chance.uniform(0.5, 6.0), heal


def _expect_master(world: World) -> None:
    if any(place.master_stopped for place in world.places):
        raise CannotError("a master stands still")


def change_capacities(world: World) -> tuple[float, Heal]:
    chance = world.chance
    root = chance.randint(2, CAPACITIES["root"] + world.kind.more)
    slow = chance.randint(1, CAPACITIES["root.slow"] + min(world.kind.more, 1))
    _configure(world, {**CAPACITIES, "root": root, "root.slow": slow})
    return chance.uniform(0.5, 3.0), lambda: _configure(world, CAPACITIES)


def _configure(world: World, capacities: dict[str, int]) -> None:
    _expect_master(world)
    if not all(_hears(place.supervisor.pid, signal.SIGHUP) for place in world.places):
        raise CannotError("a master is not there yet")
    world.configure(capacities)
    for place in world.places:
        place.supervisor.send_signal(signal.SIGHUP)


def _hears(pid: int, signum: int) -> bool:
    """Whether it handles a signal: an interpreter that only just starts is ended by one."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signum - 1) & 1)


def pause(world: World) -> tuple[float, Heal]:
    _expect_master(world)
    scope = world.chance.choice((world.names[0], world.names[1], ":root.slow", f"{world.names[0]}:root.seq"))
    limit = world.chance.choice(((), ("--for", "2s")))
    for place in world.places:
        place.supervisor.run("pause", scope, *limit)
    return world.chance.uniform(0.2, 2.0), lambda: _resume(world, scope)


def _resume(world: World, scope: str) -> None:
    _expect_master(world)
    for place in world.places:
        place.supervisor.run("resume", scope)
