"""Words for people."""

from __future__ import annotations

from typing import Any

import pytest

from qjsupervisor.text import rules_in_words, same_uuid


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({}, []),
        ({"ageing_s": None, "max_runtime_action": "warn", "new_databases": "serve", "serve_neutralized": False}, []),
        ({"ageing_s": 60.0}, ["ageing 60 s"]),
        ({"new_databases": "hold"}, ["new databases wait"]),
        ({"serve_neutralized": True}, ["neutralised copies are served"]),
        ({"max_runtime_action": "terminate"}, ["jobs beyond max_runtime are ended"]),
    ],
)
def test_what_is_not_as_by_default(rules: dict[str, Any], words: list[str]) -> None:
    assert rules_in_words(rules) == words


def test_copies_are_named_with_what_to_do() -> None:
    assert same_uuid(["a", "b"]).startswith("a, b have one database.uuid")
    assert "databases_exclude" in same_uuid(["a", "b"])
