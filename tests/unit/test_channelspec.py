"""Names of channels."""

from __future__ import annotations

import pytest

from qjsupervisor.channelspec import ROOT, complete_name, parent_name


@pytest.mark.parametrize(
    ("written", "complete"),
    [
        (None, "root"),
        ("", "root"),
        ("root", "root"),
        ("sub", "root.sub"),
        ("root.sub", "root.sub"),
        ("sub.sub", "root.sub.sub"),
        ("rootless", "root.rootless"),
        ("root.root", "root.root"),
        ("foo bar", "root.foo bar"),
    ],
)
def test_root_may_be_left_out(written: str | None, complete: str) -> None:
    assert complete_name(written) == complete


@pytest.mark.parametrize(("name", "parent"), [("root", None), ("root.a", ROOT), ("root.a.b", "root.a")])
def test_parent(name: str, parent: str | None) -> None:
    assert parent_name(name) == parent
