"""A worker's turns against a real PostgreSQL, one at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.control import Pipe
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.worker import reading
from qjsupervisor.worker.worker import Worker

from ..conftest import DatabaseFactory
from ..helpers import Database, odoo_conf
from ..scripted import unused_port


@pytest.fixture
def one(database: DatabaseFactory) -> Database:
    return database()


@pytest.fixture
def worker(one: Database, postgres: ThrowawayPostgres, tmp_path: Path) -> Iterator[Worker]:
    """It serves, and knows of no job yet."""
    conf = tmp_path / "odoo.conf"
    conf.write_text(odoo_conf(postgres, unused_port(), db_name=one.name))
    config = load({"config": str(conf)}, {})
    table = SemaphoreTable(config.channels, slots=1, fairness=config.fairness)
    table.assign(0, one.name, 1)
    table.open_start_barrier()
    master, pipe = Pipe.pair()
    worker_slot = table.worker_slot(0)
    worker_slot.attach()
    made = Worker(config.worker_settings(one.name), worker_slot, pipe)
    assert made.step(time.monotonic())
    yield made
    made.close()
    master.close()
    pipe.close()


def test_a_tree_that_is_made_anew_begins_with_the_head_of_a_table_that_grew_big(
    one: Database, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worker.parts.serving is not None
    assert worker.parts.database.about is not None
    monkeypatch.setattr(reading, "BIG_BYTES", worker.parts.database.about.jobs_bytes)
    monkeypatch.setattr(reading, "HEAD", 2)
    one.insert_jobs(5)
    worker.instructions.rebuild = True
    worker.step(time.monotonic())
    assert worker.parts.serving.backlog.partial
    assert worker.refresh.reading.busy, "the rest is read in the background"


@pytest.mark.parametrize("partial", [True, False])
def test_what_a_read_that_could_not_be_aside_found_is_started_at_once(
    one: Database, worker: Worker, partial: bool
) -> None:
    """So much changed during a background read, of what the head of a big table left out or of what was not remembered,
    that it was read anew: nothing else would have made the worker look at it for 20 s."""
    assert worker.parts.serving is not None
    one.insert_jobs(3)
    worker.parts.database.notified.forget()
    worker.parts.serving.backlog.partial = partial
    worker.refresh.reading.overtaken = True
    while worker.step(time.monotonic()):
        pass
    assert not worker.parts.serving.backlog.partial
    assert worker.parts.serving.dispatched == 3
