"""What counts as running: a job counts until its row is over and its request has ended.

A worker's turns against a real PostgreSQL, and an Odoo that answers when the test says so and runs nothing: rows change
as the test changes them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.control import Pipe
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.testing.jobs import insert_row
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.worker import jobs, progress
from qjsupervisor.worker.worker import Worker

from ..conftest import DatabaseFactory
from ..helpers import Database, odoo_conf
from ..scripted import ScriptedServer, serving


class Rig:
    """One worker with four permits, and the Odoo that it asks."""

    def __init__(
        self, one: Database, odoo: ScriptedServer, answers: threading.Event, folder: Path, channels: str = "root:4"
    ) -> None:
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
        self.worker = Worker(config.worker_settings(one.name), worker_slot, self.pipe)
        self.more = True
        self.until(lambda: self.message == "", "it serves")

    def turns(self) -> None:
        """One round of its loop; it would sleep no longer than this."""
        self.more = self.worker.turn(more=self.more, limit_s=0.05)

    def until(self, predicate: Callable[[], bool], message: str, timeout_s: float = 10.0) -> None:
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
    def message(self) -> str:
        return self.table.slot_view(0).message

    def close(self) -> None:
        self._answers.set()
        self.worker.close()
        self.master.close()
        self.pipe.close()


@pytest.fixture
def rig(database: DatabaseFactory, tmp_path: Path) -> Iterator[Rig]:
    answers = threading.Event()

    def script(connection: object) -> None:
        answers.wait(30)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")  # type: ignore[attr-defined]

    with serving(script) as odoo:
        made = Rig(database(), odoo, answers, tmp_path)
        yield made
        made.close()


def test_open_requests_count_for_as_long_as_the_rows_cannot_be_read(
    rig: Rig, postgres: ThrowawayPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute without the database 8 jobs ran for 4. What only a row speaks for is given up, and said so."""
    monkeypatch.setattr(progress, "GIVE_UP_S", 0.5)
    rig.send(2)
    insert_row(rig.one.connection, state="started")
    rig.until(lambda: rig.running == 3, "three are counted")
    postgres.execute("postgres", f'ALTER DATABASE "{rig.one.name}" ALLOW_CONNECTIONS false', superuser=True)
    try:
        rig.cut()
        rig.until(lambda: rig.running == 2, "the one without a request is given up")
        rig.go_on(0.5)
        assert rig.running == 2
        assert "1 permits were given up" in rig.message
    finally:
        postgres.execute("postgres", f'ALTER DATABASE "{rig.one.name}" ALLOW_CONNECTIONS true', superuser=True)
    rig.until(lambda: rig.running == 3, "its row speaks for it again")
    assert rig.message == ""
    assert len(rig.odoo.requests) == 2


def test_rows_that_know_nothing_of_their_claims(rig: Rig, postgres: ThrowawayPostgres) -> None:
    """After a failover to a standby that lagged they say `pending`, and the requests are open: 8 ran for 4."""
    rig.send(4)
    lagging = "SET session_replication_role = replica; UPDATE queue_job SET state = 'pending', date_enqueued = NULL"
    postgres.execute(rig.one.name, lagging, superuser=True)
    rig.cut()
    rig.until(lambda: rig.message == "", "it serves again")
    rig.go_on(0.5)
    assert rig.running == 4
    assert len(rig.odoo.requests) == 4, "none was asked for twice"
    rig.answer()
    rig.until(lambda: len(rig.odoo.requests) == 8, "they run again when their requests are over, without a pause", 2)


def test_a_database_that_is_made_again_under_open_requests(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ids begin at 1 once more: 7 ran for 4, and the end of an old request gave back the permit of a new job."""
    monkeypatch.setattr(jobs, "OVER_S", 2.0)
    rig.send(3)
    rig.one.connection.close()
    postgres, name = rig.one.postgres, rig.one.name
    postgres.drop_database(name)
    postgres.create_database(name, "qjs_template")
    rig.one.reconnect()
    rig.one.insert_jobs(4)
    rig.until(lambda: len(rig.odoo.requests) == 4, "one of the new jobs has a permit")
    rig.go_on(0.5)
    assert rig.running == 4
    assert rig.one.states() == {"enqueued": 1, "pending": 3}
    rig.until(lambda: len(rig.odoo.requests) == 7, "the jobs that are gone count no longer")
    assert rig.one.states() == {"enqueued": 4}
    assert rig.running == 4


@pytest.mark.parametrize("state", ["done", "failed", "gone"])
def test_a_row_that_is_over_ends_its_job_though_no_answer_comes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Odoo's worker hangs after its commit: four such jobs held all permits for ever."""
    monkeypatch.setattr(jobs, "ANSWER_S", 0.2)
    monkeypatch.setattr(jobs, "OVER_S", 0.5)
    (uuid,) = rig.send(1)
    rig.set(uuid, "started")
    if state == "gone":
        rig.one.execute("DELETE FROM queue_job")
    else:
        rig.set(uuid, state)
    began_s = time.monotonic()
    rig.until(lambda: rig.running == 0, "it counts no longer")
    assert time.monotonic() - began_s > 0.5
    rig.until(lambda: rig.unanswered == 1, "it counts against the address")
    rig.answer()
    rig.send(1)
    rig.until(lambda: rig.unanswered == 0, "it answers again")


def test_a_job_that_runs_for_long_is_not_over(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often its row changes meanwhile."""
    monkeypatch.setattr(jobs, "ANSWER_S", 0.1)
    monkeypatch.setattr(jobs, "OVER_S", 0.2)
    (uuid,) = rig.send(1)
    for _ in range(3):
        rig.set(uuid, "started")
    rig.go_on(0.6)
    assert rig.running == 1
    assert rig.worker.parts.dispatcher.open == 1


def test_a_running_job_whose_row_is_deleted_gives_its_permit_back(rig: Rig) -> None:
    """It kept the permit for 38 s, until the reconcile."""
    uuid = insert_row(rig.one.connection, state="started")
    rig.until(lambda: rig.running == 1, "it is counted")
    rig.one.execute("DELETE FROM queue_job WHERE uuid = %s", (uuid,))
    rig.until(lambda: rig.running == 0, "its permit is back", 2)


def test_a_job_that_is_deleted_holds_up_nobody(database: DatabaseFactory, tmp_path: Path) -> None:
    """The next job of a sequential channel started 55 s after the failed one was deleted, with the reconcile."""
    one = database()
    insert_row(one.connection, channel="root.orderly", state="failed")
    waiting = insert_row(one.connection, channel="root.orderly")
    answers = threading.Event()
    answers.set()

    def script(connection: object) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")  # type: ignore[attr-defined]

    with serving(script) as odoo:
        made = Rig(one, odoo, answers, tmp_path, channels="root:4,root.orderly:1:sequential")
        try:
            others = one.insert_jobs(20, channel="root.orderly")
            made.go_on(0.3)
            assert not odoo.requests, "the failed one stops its channel"
            assert made.table.slot_view(0).pending == 21
            one.execute("DELETE FROM queue_job WHERE uuid = ANY(%s)", (others,))
            one.execute("DELETE FROM queue_job WHERE state = 'failed'")
            made.until(lambda: len(odoo.requests) == 1, "the next one starts", 2)
            assert waiting.encode() in odoo.requests[0]
            made.until(lambda: made.table.slot_view(0).pending <= 1, "no phantom is shown", 2)
        finally:
            made.close()
