"""Faults of Odoo."""

from __future__ import annotations

import time

from qjsupervisor.testing.odoo_http import EVERYBODY, OdooMode
from qjsupervisor.testing.processes import DemoError

from .fault import CannotError, Fault
from .of_postgres import LONGEST_JOB_S
from .world import Heal, Interruption, World


def restart_odoo(world: World) -> tuple[float, Heal]:
    world.keep_runs()
    world.lapse()
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
    world.interruptions.append(Interruption(at_s, time.time() + LONGEST_JOB_S, uuid=uuid))


def ill(mode: OdooMode, *, interrupts: bool = False, lets_go: bool = False) -> Fault:
    """Requests of a database, or of all, are treated like that. `lets_go`: they end while their jobs go on."""

    def fault(world: World) -> tuple[float, Heal]:
        who = world.chance.choice((EVERYBODY, *world.names))
        database = None if who == EVERYBODY else who
        from_s = time.time()

        def heal() -> None:
            world.odoo.set_mode(who, OdooMode.OK)
            if interrupts:
                world.interruptions.append(Interruption(from_s, time.time() + LONGEST_JOB_S, database))
            if lets_go:
                world.lapses.append(Interruption(from_s, time.time(), database))

        world.odoo.set_mode(who, mode, 1)
        return world.chance.uniform(0.3, 2.0), heal

    return fault
