"""What counts as running: a job counts until its row is over and its request has ended.

A worker's turns against a real PostgreSQL, and an Odoo that answers when the test says so and runs nothing: rows change
as the test changes them.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from qjsupervisor.testing.jobs import insert_row
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.worker import jobs, progress

from ..conftest import DatabaseFactory
from ..scripted import serving
from .served import Rig


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
