"""The workers that the master starts and stops before the first fork."""

from __future__ import annotations

import os
import signal

import pytest

from qjsupervisor import logs
from qjsupervisor.config.load import load
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.worker.warmup_start import run_starts

SERVER_WIDE = {"ODOO_QUEUE_JOB_CHANNELS": "root:4,root.sub:2"}


@pytest.mark.parametrize("environment", [SERVER_WIDE, {}], ids=["server-wide", "per database"])
def test_each_of_them_serves_and_leaves_nothing_behind(environment: dict[str, str]) -> None:
    config = load({}, {"ODOO_RC": "/dev/null", **environment})
    table = SemaphoreTable(config.channels, slots=1, fairness=config.fairness)
    table.assign(0, "x", 1)
    table.open_start_barrier()
    worker_slot, log = table.worker_slot(0), logs.silent_logger()
    worker_slot.attach()
    descriptors, handler = os.listdir("/proc/self/fd"), signal.getsignal(signal.SIGTERM)
    assert run_starts(config.worker_settings("x"), worker_slot, log, 2) == 2
    assert os.listdir("/proc/self/fd") == descriptors
    assert signal.getsignal(signal.SIGTERM) is handler
