"""The warm-up plays a worker's life, and leaves nothing behind. What it saves: tests/acceptance/test_idle_cost.py."""

from __future__ import annotations

import os

from structlog.typing import EventDict

from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.worker import warmup


def config() -> Config:
    return load({}, {"ODOO_QUEUE_JOB_CHANNELS": "root:2,root.sub:1", "ODOO_RC": "/dev/null"})


def test_all_its_jobs_run_and_nothing_is_left(log_events: list[EventDict]) -> None:
    warmup.run_jobs(config())
    before = sorted(os.listdir("/proc/self/fd"))
    warmup.run_jobs(config())
    assert sorted(os.listdir("/proc/self/fd")) == before
    events = [event["event"] for event in log_events]
    assert events.count("job_dispatched") == 2 * warmup.JOBS
    assert {event["state"] for event in log_events if event["event"] != "job_dispatched"} == {"done"}


def test_each_job_is_claimed_sent_and_found_to_be_over() -> None:
    """The play is one of a worker that works: its database hands out each job once, as `done` after it was sent."""
    database = warmup.FakeDatabase()
    claimed, _ = database.turn({3: 0, 4: 0}, [])
    assert [job.state for job in claimed] == ["enqueued"] * 2
    _, read = database.turn({}, ["3", "5"])
    assert [(job.uuid, job.state) for job in read] == [("3", "done"), ("5", "pending")]
    claimed, _ = database.turn({}, ["7"], unseen_in="root")
    assert [job.uuid for job in claimed] == ["7"]


def test_it_takes_no_connection_to_anybody() -> None:
    warmup.warm_up(config())
    sockets = [fd for fd in os.listdir("/proc/self/fd") if _is_connected(fd)]
    assert sockets == []


def _is_connected(fd: str) -> bool:
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return False
    inode = target.removeprefix("socket:[").removesuffix("]")
    with open("/proc/self/net/tcp", encoding="ascii") as table:
        return target.startswith("socket:") and any(line.split()[9] == inode for line in table.readlines()[1:])
