"""A worker that cannot serve its database any more, or is to keep away from it: what ends, and what goes on."""

from __future__ import annotations

from contextlib import closing

import pytest

from qjsupervisor.states import EXIT_GONE, EXIT_STOPPED, Phase
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.worker import losing

from ..helpers import wait_until
from .served import Rig


def test_a_lock_is_waited_for_with_the_connection_and_its_holder_is_named(
    rig: Rig, postgres: ThrowawayPostgres
) -> None:
    with closing(postgres.connect(rig.one.name)) as other:
        other.autocommit = False
        cursor = other.cursor()
        cursor.execute("SET application_name = 'upgrade'; LOCK TABLE queue_job IN ACCESS EXCLUSIVE MODE")
        rig.order(do="channels")
        rig.until(lambda: rig.phase is Phase.BLOCKED, "it is blocked")
        assert rig.worker.parts.database.connected, "nobody else can lead meanwhile"
        assert "upgrade" in rig.message
        assert "its running jobs keep their permits" in rig.message
        other.rollback()
        rig.until(lambda: rig.phase is Phase.SERVING, "it serves again")


def test_a_released_database_has_no_session_of_ours_and_its_requests_go_on(rig: Rig) -> None:
    rig.send(2)
    rig.order(do="pauses", pauses={"": None})
    rig.until(lambda: rig.phase is Phase.BLOCKED, "it is released")
    assert "released by order" in rig.message
    assert not rig.worker.parts.database.connected
    ours = (
        "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'qjsupervisor%%' AND datname = current_database()"
    )
    wait_until(lambda: rig.one.execute(ours) == [], "the server has ended the session that was closed")
    rig.go_on(0.2)
    assert (rig.running, rig.phase) == (2, Phase.BLOCKED)
    rig.order(do="pauses", pauses={})
    rig.until(lambda: rig.phase is Phase.SERVING, "it serves again")
    assert rig.running == 2


def test_without_its_database_it_ends_when_its_requests_have_ended(rig: Rig) -> None:
    rig.send(1)
    rig.order(do="stop", gone=True)
    rig.go_on(0.2)
    assert (rig.running, rig.worker.progress.exit_code) == (1, None)
    rig.answer()
    rig.until(lambda: rig.worker.progress.exit_code is not None, "it ends")
    assert rig.worker.progress.exit_code == EXIT_STOPPED


def test_without_its_database_it_waits_for_an_answer_for_a_moment_only(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losing, "OVER_S", 0.3)
    rig.send(1)
    rig.order(do="stop", gone=True)
    rig.until(lambda: rig.worker.progress.exit_code is not None, "it ends")
    assert len(rig.odoo.requests) == 1


def test_a_database_that_lost_its_module_is_left(rig: Rig) -> None:
    rig.one.execute("DROP TABLE queue_job CASCADE")
    rig.order(do="look")
    rig.until(lambda: rig.worker.progress.exit_code is not None, "it ends")
    assert rig.worker.progress.exit_code == EXIT_GONE
    assert "queue_job" in rig.heard("error")[-1]["reason"]


def test_a_missing_privilege_is_named_with_what_to_do_whatever_met_it_first(
    rig: Rig, postgres: ThrowawayPostgres
) -> None:
    postgres.execute(rig.one.name, "REVOKE SELECT ON queue_job FROM odoo", superuser=True)
    rig.order(do="channels")  # which reads the rows, before any look
    rig.until(lambda: rig.phase is Phase.BLOCKED, "it is blocked")
    assert "no SELECT privilege on queue_job for role odoo: GRANT SELECT ON queue_job TO odoo" in rig.message
    postgres.execute(rig.one.name, "GRANT SELECT ON queue_job TO odoo", superuser=True)
