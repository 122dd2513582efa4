"""What `check` finds in Odoo's own settings, and in databases of one uuid."""

from __future__ import annotations

from pathlib import Path

import pytest

from qjsupervisor.commands.check_odoo import check_odoo_settings, duplicates
from qjsupervisor.commands.findings import Level
from qjsupervisor.config.load import load


def settings(text: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "odoo.conf"
    file.write_text(text)
    return [finding.text for finding in check_odoo_settings(load({"config": str(file)}, {}))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[options]\nworkers = 4\n[queue_job]\nchannels = root:4\n", "root (4) is not below workers (4)"),
        ("[options]\nworkers = 4\n[queue_job]\nchannels = root:3\n", None),
        ("[options]\nworkers = 4\n[queue_job]\nchannels = root:7\nhost = a,b\n", None),
        ("[options]\nworkers = 0\n[queue_job]\nchannels = root:7\n", None),
        ("[options]\nworkers = many\n[queue_job]\nchannels = root:7\n", None),
        ("[options]\nserver_wide_modules = base,web\n", "lacks queue_job"),
        ("[options]\nserver_wide_modules = base, web, queue_job\n", None),
        ("", None),
    ],
)
def test_odoo_s_own_settings(text: str, said: str | None, tmp_path: Path) -> None:
    found = settings(text, tmp_path)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_databases_of_one_uuid() -> None:
    (found,) = duplicates([("a", "u1"), ("b", "u2"), ("c", "u1"), ("d", None), ("e", None)])
    assert found.level is Level.WARNING
    assert found.text.startswith("a, c have one database.uuid")
