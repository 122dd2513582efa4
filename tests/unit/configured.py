"""A configuration from the text of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from qjsupervisor.config.load import Config, load

Loader = Callable[..., Config]


@pytest.fixture
def conf(tmp_path: Path) -> Loader:
    """conf("[options]\\n...", environ={...}, **argv) -> Config."""

    def read(text: str = "", environ: Mapping[str, str] | None = None, **argv: str) -> Config:
        file = tmp_path / "odoo.conf"
        file.write_text(text, encoding="utf-8")
        return load({"config": str(file), **argv}, {"HOME": str(tmp_path), **(environ or {})})

    return read


def urls(config: Config, database: str = "db") -> list[str]:
    return [target.url for target in config.targets_for(database)]
