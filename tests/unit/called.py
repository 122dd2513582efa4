"""Commands that are called, and do nothing."""

from __future__ import annotations

from typing import Any

import pytest

from qjsupervisor.config import load as config

CONFIG = object()


class Calls:
    """Stands in for config.load and for what the commands call; remembers."""

    def __init__(self) -> None:
        self.options: dict[str, str] = {}
        self.made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def load(self, options: dict[str, str], _environ: object) -> object:
        self.options = options
        return CONFIG

    def called(self, *args: Any, **kwargs: Any) -> int:
        self.made.append((args, kwargs))
        return 5


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found = Calls()
    monkeypatch.setattr(config, "load", found.load)
    return found
