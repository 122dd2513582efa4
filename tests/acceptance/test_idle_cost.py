"""What a database costs while nothing happens in it: memory of its own, and wake-ups."""

from __future__ import annotations

import statistics
import time

import psutil
import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Supervisor, odoo_conf, wait_until

DATABASES = 8
#: Measured: 5.2 to 5.4 with Python 3.11.
MOST_MIB = 5.6


@pytest.fixture
def idle(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> Supervisor:
    """A supervisor that has run one job in each database, and has written down the last number."""
    databases = [database() for _ in range(DATABASES)]
    names = [one.name for one in databases]
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=",".join(names)))
    running.wait_ready(*names, timeout_s=30)
    for one in databases:
        one.insert_jobs(1)
    for one in databases:
        one.wait_for_states(done=1)
    wait_until(
        lambda: all((running.database_status(name) or {}).get("dispatched") == 1 for name in names),
        "all numbers are in the table",
    )
    return running


def workers(running: Supervisor) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in running.pids().values()]


def test_memory_of_its_own(idle: Supervisor) -> None:
    mib = [worker.memory_full_info().uss / 2**20 for worker in workers(idle)]
    assert len(mib) == DATABASES
    assert statistics.median(mib) <= MOST_MIB, mib


def test_nobody_wakes(idle: Supervisor) -> None:
    """Before it is time for a sign of life, which is twenty seconds after the start."""
    here = workers(idle)
    sleeping = wait_until(lambda: settled(here), "they have gone to sleep")
    began_s = time.monotonic()
    wait_until(lambda: time.monotonic() > began_s + 6, "six idle seconds", 8)
    assert switches(here) == sleeping


def switches(processes: list[psutil.Process]) -> list[int]:
    """How often each went to sleep."""
    return [process.num_ctx_switches().voluntary for process in processes]


def settled(processes: list[psutil.Process]) -> list[int]:
    """How often each went to sleep, once that has not changed for a second; else nothing."""
    before, began_s = switches(processes), time.monotonic()
    wait_until(lambda: time.monotonic() > began_s + 1, "a second")
    return before if switches(processes) == before else []
