"""What the monitor may read and do in a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qjsupervisor.commands import for_monitor
from qjsupervisor.commands.for_monitor import list_jobs, requeue_failed
from qjsupervisor.commands.job_rows import fetch
from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.errors import DatabaseError
from qjsupervisor.postgres.session import Session
from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory
from ..helpers import Database, odoo_conf

STATUS = {"mode": "server-wide", "databases": [], "channels": []}


@pytest.fixture
def config(postgres: ThrowawayPostgres, tmp_path: Path) -> Config:
    path = tmp_path / "odoo.conf"
    path.write_text(odoo_conf(postgres, 1))
    return load({"config": str(path)}, {})


@pytest.fixture
def one(database: DatabaseFactory) -> Database:
    made = database()
    made.insert_jobs(3)
    made.insert_jobs(2, state="failed")
    made.insert_jobs(4, state="done")
    return made


def test_the_first_of_each_kind(config: Config, one: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list_jobs(config, one.name, STATUS)
    assert (len(found["waiting"]), len(found["failed"]), found["error"]) == (3, 2, "")
    assert {job["state"] for job in found["waiting"]} == {"pending"}
    monkeypatch.setattr(for_monitor, "SHOWN", 1)
    assert len(list_jobs(config, one.name, STATUS)["failed"]) == 1


def test_its_session_only_reads(config: Config, one: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []

    def also_write(connection: Session, statement: str) -> list[Any]:
        statements.append(statement)
        found = fetch(connection, statement)
        if "read_only" in statement:
            fetch(connection, "DELETE FROM queue_job")
        return found

    monkeypatch.setattr(for_monitor, "fetch", also_write)
    with pytest.raises(DatabaseError, match="read-only"):
        list_jobs(config, one.name, STATUS)
    assert any("statement_timeout" in statement for statement in statements)


def test_failed_jobs_are_put_back_and_no_others(config: Config, one: Database) -> None:
    pending = [uuid for (uuid,) in one.execute("SELECT uuid FROM queue_job WHERE state = 'pending'")]
    failed = [uuid for (uuid,) in one.execute("SELECT uuid FROM queue_job WHERE state = 'failed' ORDER BY id")]
    assert requeue_failed(config, one.name, [failed[0], pending[0], "nobody"]) == (1, 2)
    assert one.states() == {"pending": 4, "failed": 1, "done": 4}
    assert requeue_failed(config, one.name, None) == (1, 0)
    assert one.states() == {"pending": 5, "done": 4}


def test_a_database_that_is_not_there_is_named(config: Config) -> None:
    with pytest.raises(DatabaseError, match="nowhere"):
        list_jobs(config, "nowhere", STATUS)
