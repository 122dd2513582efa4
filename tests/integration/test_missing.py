"""Rows that are missing: somebody spoke of one, and which of the known jobs it was, nobody says."""

from __future__ import annotations

from qjsupervisor.testing.postgres import ThrowawayPostgres

from .served import Rig


def test_a_waiting_job_whose_row_is_gone_is_forgotten_when_one_is_spoken_of(
    rig: Rig, postgres: ThrowawayPostgres
) -> None:
    rig.send(4)
    gone, stays = rig.one.insert_jobs(2)
    rig.until(lambda: rig.table.slot_view(0).pending == 2, "both wait")
    postgres.execute(
        rig.one.name,
        f"SET session_replication_role = replica; DELETE FROM queue_job WHERE uuid = '{gone}'",
        superuser=True,
    )
    rig.go_on(0.2)
    assert rig.table.slot_view(0).pending == 2, "nobody said anything"
    rig.one.execute("SELECT pg_notify('queue_job', 'a-job-that-nobody-knows')")
    rig.until(lambda: rig.table.slot_view(0).pending == 1, "it is forgotten")
    assert rig.running == 4, "what runs is there"
    assert rig.one.state(stays) == "pending"
