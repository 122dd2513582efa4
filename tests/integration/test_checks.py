"""Whether a worker's database may be served, and its jobs may run: looked at when it is told to, or has to."""

from __future__ import annotations

from qjsupervisor.states import EXIT_GONE, Phase

from .served import Rig

UPGRADE = "UPDATE ir_module_module SET state = 'to upgrade' WHERE name = 'queue_job'"
INSTALLED = "UPDATE ir_module_module SET state = 'installed' WHERE name = 'queue_job'"


def test_another_database_of_its_name_is_not_served(rig: Rig) -> None:
    about = rig.worker.parts.database.about
    assert about is not None
    rig.order(do="only", oid=about.oid)
    rig.turns()
    assert rig.phase is Phase.SERVING
    rig.order(do="only", oid=about.oid + 1)
    rig.until(lambda: rig.worker.progress.exit_code is not None, "it ends")
    assert rig.worker.progress.exit_code == EXIT_GONE
    assert "another database has its name" in rig.heard("error")[-1]["reason"]


def test_new_connections_that_lead_to_another_server_are_followed(rig: Rig) -> None:
    database = rig.worker.parts.database
    assert database.about is not None
    rig.order(do="server", started=database.about.started)
    rig.turns()
    pid = database.about.backend_pid
    assert rig.phase is Phase.SERVING, "it is that one"
    rig.order(do="server", started="2001-01-01 00:00:00+00")
    rig.until(lambda: rig.phase is Phase.DISCONNECTED, "it leaves")
    assert "another server" in rig.message
    rig.until(lambda: rig.phase is Phase.SERVING, "it serves again")
    assert database.about.backend_pid != pid


def test_jobs_wait_for_a_module_unless_they_are_let_through(rig: Rig) -> None:
    rig.one.execute(UPGRADE)
    rig.order(do="look")
    rig.until(lambda: rig.message != "", "the module is told of")
    assert "queue_job is 'to upgrade'" in rig.message
    uuids = rig.one.insert_jobs(1)
    rig.go_on(0.2)
    assert rig.one.state(uuids[0]) == "pending"
    rig.order(do="modules", anyway=True)
    rig.until(lambda: len(rig.odoo.requests) == 1, "its job is sent")
    rig.one.execute(INSTALLED)
    rig.order(do="look")
    rig.until(lambda: rig.heard("modules")[-1]["modules"] == {}, "it is over")
    assert not rig.worker.instructions.anyway, "the next one has to be let through anew"


def test_a_copy_that_was_neutralised_is_not_served_unless_that_is_wanted(rig: Rig) -> None:
    rig.one.execute("INSERT INTO ir_config_parameter (key, value) VALUES ('database.is_neutralized', 'true')")
    rig.order(do="look")
    rig.until(lambda: rig.phase is Phase.BLOCKED, "it is not served")
    assert "neutrali" in rig.message
