"""`jobs` and `requeue` as a person runs them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from qjsupervisor import cli
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.schema import Schema

from ..conftest import DatabaseFactory
from ..helpers import Database, odoo_conf

OLD = Schema(lock_table=False, dependencies=False, channel_settings=False, jsonb=False)
CHANNELS = "root:4,root.slow:1,root.line:1:sequential,root.shut:1:paused"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    postgres: ThrowawayPostgres,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """run("jobs", "db", channels=...) -> (exit status, stdout, stderr)."""

    def command(
        *arguments: str, own: Mapping[str, str] | None = None, sections: Mapping[str, Any] | None = None, **conf: Any
    ) -> tuple[int, str, str]:
        ours = {"control_socket": str(tmp_path / "control.sock"), **(own or {})}
        path = tmp_path / "odoo.conf"
        path.write_text(
            odoo_conf(
                postgres, 1, **{"channels": CHANNELS, **conf}, sections={"qjsupervisor": ours, **(sections or {})}
            )
        )
        name, *rest = arguments
        status = cli.main([name, "--config", str(path), *rest])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


@pytest.fixture
def two(database: DatabaseFactory) -> tuple[Database, Database, dict[str, str]]:
    """Two databases with jobs, one without queue_job; and the option that leaves other tests' databases out."""
    prefix = f"two_{secrets.token_hex(3)}"
    one, other = database(f"{prefix}_a"), database(f"{prefix}_b")
    database(f"{prefix}_c", schema=None)
    return one, other, {"databases_include": f"{prefix}_*"}
