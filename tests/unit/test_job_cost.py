"""What a job costs a worker, counted and not timed: the worker of the warm-up runs jobs that cost nothing else."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import FrameType

import pytest
import structlog

from qjsupervisor import logs
from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.worker import warmup

#: Of functions written in Python, from a job's notification to the look at its row after it ran. Each is about a
#: microsecond where the processor's caches are warm, and several where they are not. Raise it only with a reason.
MOST_CALLS = 245


@pytest.fixture
def config() -> Iterator[Config]:
    """With lines as a worker makes them, not as structlog does without a configuration."""
    before = structlog.get_config()
    environment = {"ODOO_QUEUE_JOB_CHANNELS": "root:4,root.sub:2", "ODOO_RC": "/dev/null"}
    config = load({"log_format": "json"}, environment)
    logs.configure(config)
    yield config
    structlog.configure(**before)


def calls(config: Config, rounds: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Calls of Python functions while so many jobs are run, and while all is set up for them."""
    counted = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event == "call"

    monkeypatch.setattr(warmup, "JOBS", rounds)
    sys.setprofile(count)
    try:
        warmup.run_jobs(config)
    finally:
        sys.setprofile(None)
    return counted


def test_calls_for_a_job(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = calls(config, 10, monkeypatch), calls(config, 110, monkeypatch)
    assert (many - few) / 100 <= MOST_CALLS


def test_a_job_leaves_nothing_behind(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker lives for months: what it keeps for each job that is over must have an end."""
    monkeypatch.setattr(warmup, "JOBS", 1500)
    left = []
    for _ in range(3):
        warmup.run_jobs(config)
        gc.collect()
        left.append(sys.getallocatedblocks())
    assert left[2] - left[1] <= 150
