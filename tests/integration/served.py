"""A worker whose turns a test takes, against a real PostgreSQL, and an Odoo that answers when the test says so."""

from __future__ import annotations

import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.control import Message, Pipe
from qjsupervisor.states import Phase
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.worker.worker import Worker

from ..conftest import DatabaseFactory
from ..helpers import Database, odoo_conf
from ..scripted import ScriptedServer, serving

MakeRig = Callable[..., "Rig"]


class Rig:
    """One worker with four permits, and the Odoo that it asks."""

    def __init__(
        self,
        one: Database,
        odoo: ScriptedServer,
        answers: threading.Event,
        folder: Path,
        channels: str = "root:4",
        *,
        serves: bool = True,
    ) -> None:
        """`serves`: wait until it does."""
        self.one, self.odoo, self._answers = one, odoo, answers
        conf = folder / "odoo.conf"
        conf.write_text(odoo_conf(one.postgres, odoo.port, db_name=one.name, channels=channels))
        config = load({"config": str(conf)}, {})
        self.table = SemaphoreTable(config.channels, slots=1, fairness=config.fairness)
        self.table.assign(0, one.name, 1)
        self.table.open_start_barrier()
        self.master, self.pipe = Pipe.pair()
        worker_slot = self.table.worker_slot(0)
        worker_slot.attach()
        settings = replace(config.worker_settings(one.name), session_mark=secrets.randbits(63))
        self.worker = Worker(settings, worker_slot, self.pipe)
        self.worker.parts.loop.register(
            worker_slot.wakeup, selectors.EVENT_READ, lambda _now_s: worker_slot.drain_wakeup()
        )
        self.more = True
        #: What it told its master, by `heard`.
        self._told: list[Message] = []
        if serves:
            self.until(lambda: self.phase is Phase.SERVING, "it serves")

    def turns(self) -> None:
        """One round of its loop; it would sleep no longer than this."""
        self.more = self.worker.turn(more=self.more, limit_s=0.05)

    def until(self, predicate: Callable[[], bool], message: str, timeout_s: float = 30.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        self.turns()
        while not predicate():
            assert time.monotonic() < deadline_s, message
            self.turns()

    def go_on(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.turns()

    def send(self, count: int) -> list[str]:
        """Jobs that are claimed, and whose requests are open."""
        before = len(self.odoo.requests)
        uuids = self.one.insert_jobs(count)
        self.until(lambda: len(self.odoo.requests) == before + count, f"{count} requests")
        return uuids

    def set(self, uuid: str, state: str) -> None:
        """As Odoo does, in a transaction of its own."""
        self.one.execute("UPDATE queue_job SET state = %s WHERE uuid = %s", (state, uuid))

    def cut(self) -> None:
        """End the worker's session."""
        self.one.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
        )
        self.until(lambda: self.message != "", "the loss of the connection is noticed")

    def order(self, **order: object) -> None:
        """From its master."""
        self.master.send(order)

    def heard(self, what: str) -> list[Message]:
        """All messages of one kind that it sent to its master."""
        self._told += self.master.receive_all()
        return [message for message in self._told if message.get("is") == what]

    def answer(self) -> None:
        """All requests, with 200."""
        self._answers.set()

    @property
    def running(self) -> int:
        """Permits of the root, as every other worker sees them."""
        return self.table.channel_views()[0].running

    @property
    def unanswered(self) -> int:
        """Requests that were let go since the address answered last."""
        (odoo,) = [each for each in self.table.server_views() if each.name.startswith("http:")]
        return odoo.unanswered

    @property
    def phase(self) -> Phase:
        return self.worker.progress.phase

    @property
    def message(self) -> str:
        return self.table.slot_view(0).message

    def close(self) -> None:
        self._answers.set()
        self.worker.close()
        self.master.close()
        self.pipe.close()


@pytest.fixture
def make_rig(database: DatabaseFactory, tmp_path: Path) -> Iterator[MakeRig]:
    """make_rig(database, channels=..., serves=...); of a new database if none is given."""
    answers = threading.Event()

    def script(connection: socket.socket) -> None:
        answers.wait(30)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")

    made: list[Rig] = []
    with serving(script) as odoo:

        def make(one: Database | None = None, channels: str = "root:4", *, serves: bool = True) -> Rig:
            made.append(Rig(one or database(), odoo, answers, tmp_path, channels, serves=serves))
            return made[-1]

        yield make
        for one in made:
            one.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig()
