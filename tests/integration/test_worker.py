"""A worker's turns against a real PostgreSQL, one at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.control import Pipe
from qjsupervisor.postgres.session import Session
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.worker import read_times, reading
from qjsupervisor.worker.worker import Worker

from ..conftest import DatabaseFactory
from ..helpers import Database, odoo_conf
from ..scripted import unused_port


@pytest.fixture
def one(database: DatabaseFactory) -> Database:
    return database()


#: Between an idle worker's heartbeats; it reconciles with every second one.
BEAT_S = 0.5


@pytest.fixture
def worker(
    one: Database, postgres: ThrowawayPostgres, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Worker]:
    """It serves, and knows of no job yet. A parameter: other settings."""
    conf = tmp_path / "odoo.conf"
    conf.write_text(odoo_conf(postgres, unused_port(), db_name=one.name))
    config = load({"config": str(conf)}, {})
    table = SemaphoreTable(config.channels, slots=1, fairness=config.fairness)
    table.assign(0, one.name, 1)
    table.open_start_barrier()
    master, pipe = Pipe.pair()
    worker_slot = table.worker_slot(0)
    worker_slot.attach()
    settings = replace(config.worker_settings(one.name), **getattr(request, "param", {}))
    made = Worker(settings, worker_slot, pipe)
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


@pytest.mark.parametrize("worker", [{"heartbeat_s": BEAT_S, "reconcile_interval_s": 2 * BEAT_S}], indirect=True)
def test_an_idle_worker_wakes_once_for_all_its_routine_work(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    # A slow machine is no reason for a second connection, nor for rare reads: the tree is read again by these rules.
    monkeypatch.setattr(read_times, "QUICK_READ_S", 60)
    monkeypatch.setattr(read_times, "RECONCILE_SHARE", 1)
    worker.instructions.rebuild = True
    statements: list[str] = []
    run = Session.rows

    def count(session: Session, statement: str, *args: Any, **kwargs: Any) -> Any:
        statements.append(statement)
        return run(session, statement, *args, **kwargs)

    began_s = time.monotonic()
    worker.beat(began_s)
    more = True
    while more or time.monotonic() < began_s + 2 * BEAT_S:  # until it rests, and knows its times
        more = worker.turn(more=more)
    monkeypatch.setattr(Session, "rows", count)
    turns, began_s = 0, time.monotonic()
    while time.monotonic() < began_s + 8 * BEAT_S:
        more = worker.turn(more=more)
        turns += 1
    assert turns <= 9, "one for each heartbeat"
    reads = sum("SELECT 'held'" in statement for statement in statements)
    assert 1 <= reads <= 5, "with every second one"
    assert len(statements) <= 8 * reads
