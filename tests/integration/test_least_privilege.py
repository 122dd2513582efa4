"""The GRANTs in the documentation are enough, for the commands and the supervisor, and none of them is too much."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import REPOSITORY, Database, odoo_conf

ROLE, PASSWORD = "jobs", "only jobs"


def grants(database: str) -> list[str]:
    """The statements in docs/operations.md, for this database."""
    (block,) = re.findall(r"```sql\n(.*?)```", (REPOSITORY / "docs/operations.md").read_text(), re.DOTALL)
    statements = [line.partition("--")[0].strip() for line in block.splitlines()]
    return [each.replace("DATABASE prod ", f'DATABASE "{database}" ') for each in statements if each]


@pytest.fixture
def role(postgres: ThrowawayPostgres) -> Iterator[None]:
    postgres.execute("postgres", f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'", superuser=True)
    yield
    postgres.execute("postgres", f"DROP ROLE {ROLE}", superuser=True)


@pytest.fixture
def granted(role: None, postgres: ThrowawayPostgres, database: DatabaseFactory) -> Iterator[Database]:
    """A database in which the role has what the documentation says, and no more."""
    one = database()
    for statement in grants(one.name):
        postgres.execute(one.name, statement, superuser=True)
    yield one
    postgres.execute(one.name, f"DROP OWNED BY {ROLE}", superuser=True)


def conf(
    postgres: ThrowawayPostgres, odoo: StandIn, name: str, sections: Mapping[str, Mapping[str, object]] | None = None
) -> str:
    own = {"options": {"db_user": ROLE, "db_password": PASSWORD}, **(sections or {})}
    return odoo_conf(postgres, odoo.port, db_name=name, sections=own)


def test_grants_are_enough(
    postgres: ThrowawayPostgres, odoo: StandIn, granted: Database, supervisor: SupervisorFactory
) -> None:
    running = supervisor(conf(postgres, odoo, granted.name))
    running.wait_ready(granted.name)
    granted.insert_jobs(5)
    granted.wait_for_states(done=5)
    check = running.run("check", "--json")
    assert check.returncode == 0, check.stdout
    assert json.loads(check.stdout)["databases"][0]["warnings"] == []
    (failed,) = granted.insert_jobs(1, state="failed")
    granted.insert_jobs(1, state="started")  # dead: nobody holds its lock row
    assert running.run("jobs", granted.name).returncode == 0
    assert running.run("requeue", granted.name, failed).returncode == 0
    granted.wait_for_states(done=7, timeout_s=20)


def test_per_database_mode(
    postgres: ThrowawayPostgres, odoo: StandIn, granted: Database, supervisor: SupervisorFactory
) -> None:
    sections = {"queue_job": {"channels": None, "max_capacity": 3, "host": "127.0.0.1", "port": odoo.port}}
    running = supervisor(conf(postgres, odoo, granted.name, sections))
    running.wait_ready(granted.name)
    assert running.run("check").returncode == 0


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("REVOKE SELECT ON ir_module_module FROM jobs", "ir_module_module"),
        ("REVOKE SELECT ON queue_job FROM jobs", "SELECT"),
        ("REVOKE UPDATE (state) ON queue_job FROM jobs", "UPDATE"),
        ("REVOKE SELECT (key, value) ON ir_config_parameter FROM jobs", "neutralised copy"),
        ("REVOKE UPDATE ON queue_job_lock FROM jobs", "queue_job_lock"),
    ],
)
def test_check_says_what_is_missing(
    postgres: ThrowawayPostgres,
    odoo: StandIn,
    granted: Database,
    supervisor: SupervisorFactory,
    statement: str,
    said: str,
) -> None:
    postgres.execute(granted.name, statement, superuser=True)
    check = supervisor(conf(postgres, odoo, granted.name)).run("check", "--json")
    (entry,) = json.loads(check.stdout)["databases"]
    assert said in " ".join([entry["reason"] or "", *entry["warnings"]])
    assert check.returncode == (0 if said in ("queue_job_lock", "neutralised copy") else 1)
