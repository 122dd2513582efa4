"""A worker that has nothing to do, and the porter's session that takes its lock, against a real PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.control import Message, Pipe
from qjsupervisor.loop import Loop
from qjsupervisor.porter.dozer import Dozer
from qjsupervisor.porter.settings import PorterSettings
from qjsupervisor.porter.sleepers import Sleepers
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.worker.worker import Worker

from ..conftest import DatabaseFactory
from ..helpers import Database, odoo_conf, wait_until
from ..scripted import unused_port

MARK = 4711
PORTER = PorterSettings(session_mark=MARK, connect_timeout_s=5)


def pump(loop: Loop) -> None:
    """One turn."""
    loop.turn(0.01)


class Stand:
    """A worker and a dozer of one database, each turned by hand."""

    def __init__(self, one: Database, postgres: ThrowawayPostgres, conf: Path) -> None:
        options = {"qjsupervisor": {"idle_timeout": 1}}
        conf.write_text(odoo_conf(postgres, unused_port(), db_name=one.name, sections=options))
        config = load({"config": str(conf)}, {})
        table = SemaphoreTable(config.channels, slots=1, fairness=config.fairness)
        table.assign(0, one.name, 1)
        table.open_start_barrier()
        self.master, self.pipe = Pipe.pair()
        slot = table.worker_slot(0)
        slot.attach()
        settings = config.worker_settings(one.name)
        object.__setattr__(settings, "session_mark", MARK)
        self.worker = Worker(settings, slot, self.pipe)
        self.heard: list[Message] = []
        self.loop = Loop()
        self.told: list[Any] = []
        self.dozer = Dozer(
            one.name,
            "here",
            settings.connect_kwargs,
            "0/0",
            PORTER,
            self.loop,
            self.told.append,
            lambda _dozer: None,
            lambda _dozer, _error, _now_s: None,
            Sleepers("here", settings.connect_kwargs, PORTER, self.loop, lambda _dozer, _now_s: None),
        )

    def turn(self) -> None:
        self.worker.turn(more=False, limit_s=0.01)
        self.loop.turn(0.01)
        self.heard += self.master.receive_all()

    def until(self, said: str) -> None:
        def found() -> bool:
            self.turn()
            return any(each["is"] == said for each in [*self.heard, *self.told])

        wait_until(found, lambda: f"{said}: {self.heard} {self.told}")

    def close(self) -> None:
        self.dozer.end()
        self.worker.close()
        self.loop.close()
        self.master.close()
        self.pipe.close()


@pytest.fixture
def one(database: DatabaseFactory) -> Database:
    return database()


@pytest.fixture
def stand(one: Database, postgres: ThrowawayPostgres, tmp_path: Path) -> Iterator[Stand]:
    made = Stand(one, postgres, tmp_path / "odoo.conf")
    assert made.worker.step(time.monotonic())
    made.until("ready")
    yield made
    made.close()


def test_hands_over_and_exits(stand: Stand) -> None:
    stand.until("idle")
    stand.dozer.connect(time.monotonic(), waits=True)
    stand.until("waits")
    stand.master.send({"do": "doze"})
    stand.until("dozes")
    assert stand.worker.progress.exit_code == 0
    wait_until(lambda: pump(stand.loop) or stand.told[-1]["is"] == "holds", "the porter has the lock")


@pytest.mark.parametrize("eta_s", [None, 600.0])
def test_stays_where_a_job_came_meanwhile(eta_s: float | None, one: Database, stand: Stand) -> None:
    stand.until("idle")
    stand.dozer.connect(time.monotonic(), waits=True)
    stand.until("waits")
    one.insert_jobs(1, eta_s=eta_s)
    stand.master.send({"do": "doze"})
    stand.until("stays")
    assert stand.worker.progress.exit_code is None


def test_stays_where_nobody_waits(stand: Stand) -> None:
    stand.until("idle")
    stand.master.send({"do": "doze"})
    stand.until("stays")
    assert stand.worker.progress.exit_code is None


def test_a_job_of_tomorrow_does_not_keep_it(one: Database, stand: Stand) -> None:
    one.insert_jobs(1, eta_s=86400)
    stand.until("idle")


def test_comes_from_the_porter(one: Database, postgres: ThrowawayPostgres, tmp_path: Path) -> None:
    """It waits at the door, and has the database read when it has the lock. Without the porter it is as ever."""
    made = Stand(one, postgres, tmp_path / "odoo.conf")
    made.dozer.connect(time.monotonic(), waits=False)
    wait_until(lambda: pump(made.loop) or any(each["is"] == "holds" for each in made.told), "the porter has it")
    one.insert_jobs(1)
    wait_until(lambda: pump(made.loop) or made.told[-1]["is"] == "wake", "it calls")
    made.dozer.hand_over()
    made.master.send({"do": "take_over"})
    made.worker.instructions.from_porter = True

    porter = threading.Thread(target=lambda: wait_until(lambda: pump(made.loop) or made.dozer.is_over, "over"))
    porter.start()
    made.worker.step(time.monotonic())
    porter.join()
    made.until("ready")
    said = [each["is"] for each in made.heard]
    assert said.index("door") < said.index("read")
    assert made.told[-1]["is"] == "left"
    made.close()
