"""Which channels apply to a database: the configuration's, or its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qjsupervisor.commands.session import session
from qjsupervisor.commands.trees import own_specs, specs_without_effect
from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.errors import DatabaseUnfit
from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory
from ..helpers import Database, odoo_conf
from .commands import OLD

Configure = Callable[..., Config]


@pytest.fixture
def configure(postgres: ThrowawayPostgres, tmp_path: Path) -> Configure:
    def make(channels: str | None = None, **own: object) -> Config:
        path = tmp_path / "odoo.conf"
        path.write_text(odoo_conf(postgres, 1, channels=channels, sections={"queue_job": own}))
        return load({"config": str(path)}, {})

    return make


def add(one: Database, name: str, **columns: object) -> None:
    (parent,) = one.execute("SELECT id FROM queue_job_channel WHERE name = 'root'")
    facts = {"name": name, "complete_name": f"root.{name}", "parent_id": parent[0], **columns}
    names = ", ".join(facts)
    one.execute(
        f"INSERT INTO queue_job_channel ({names}) VALUES ({', '.join(['%s'] * len(facts))})", list(facts.values())
    )


def test_its_own_where_the_configuration_has_none(configure: Configure, database: DatabaseFactory) -> None:
    one = database()
    add(one, "mail", capacity=3, sequential=False)
    for config in (configure(), configure(max_capacity=8)):
        with session(config, one.name, "jobs") as connection:
            specs = own_specs(connection, config, one.name)
            assert specs is not None
            assert specs["root.mail"].capacity == 3
            assert "root" in specs
            assert specs_without_effect(connection, config, one.name) == {}


def test_the_configuration_s_and_what_has_no_effect_beside_it(configure: Configure, database: DatabaseFactory) -> None:
    one = database()
    add(one, "mail", capacity=3, sequential=False)
    add(one, "plain")
    config = configure("root:4")
    with session(config, one.name, "jobs") as connection:
        assert own_specs(connection, config, one.name) is None
        assert set(specs_without_effect(connection, config, one.name)) - {"root"} == {"root.mail"}


def test_a_queue_job_without_such_settings(configure: Configure, database: DatabaseFactory) -> None:
    one = database(schema=OLD)
    config = configure()
    with session(config, one.name, "jobs") as connection:
        assert own_specs(connection, config, one.name) is None
    config = configure(max_capacity=8)
    with (
        session(config, one.name, "jobs") as connection,
        pytest.raises(DatabaseUnfit, match="queue_job_channel has no column"),
    ):
        own_specs(connection, config, one.name)
