"""Sessions of commands: with limits, and errors that name the database, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from qjsupervisor.commands.session import session
from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.errors import DatabaseError, DatabaseGone, QJSupervisorError
from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory
from ..helpers import odoo_conf


@pytest.fixture
def config(postgres: ThrowawayPostgres, tmp_path: Path) -> Config:
    path = tmp_path / "odoo.conf"
    path.write_text(odoo_conf(postgres, 1))
    return load({"config": str(path)}, {})


def test_it_says_which_command_it_is_and_has_limits(config: Config, database: DatabaseFactory) -> None:
    one = database()
    with session(config, one.name, "jobs") as found:
        shown = {name: found.rows(f"SHOW {name}")[0][0] for name in ("statement_timeout", "lock_timeout")}
        assert found.rows("SHOW application_name") == [("qjsupervisor jobs",)]
    assert shown == {"statement_timeout": "2min", "lock_timeout": "5s"}
    assert not found.connected


def test_an_error_names_its_database_once(config: Config, database: DatabaseFactory) -> None:
    one = database()
    with pytest.raises(DatabaseError) as raised, session(config, one.name, "jobs") as found:
        found.rows("SELECT 1/0")
    assert str(raised.value).startswith(f"{one.name}: ")
    assert str(raised.value).count(one.name) == 1
    assert not found.connected
    with pytest.raises(DatabaseGone) as gone, session(config, "nowhere", "jobs"):
        pass
    assert str(gone.value).startswith("nowhere: ")


def test_an_error_of_the_body_is_its_own(config: Config, database: DatabaseFactory) -> None:
    one = database()
    with pytest.raises(QJSupervisorError, match="mine"), session(config, one.name, "jobs") as found:
        raise QJSupervisorError("mine")
    assert not found.connected
