"""Imports that leave out what is not needed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from qjsupervisor.lean_import import lean_import


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that imports two others."""
    (tmp_path / "qjs_one.py").write_text("print('one runs')\nname = 'one'\n")
    (tmp_path / "qjs_two.py").write_text("name = 'two'\n")
    (tmp_path / "qjs_library.py").write_text(
        "import qjs_one\ntry:\n    import qjs_two\nexcept ImportError:\n    qjs_two = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("qjs_library", "qjs_one", "qjs_two"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_what_is_late_is_loaded_when_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    with lean_import(late=["qjs_one"]):
        library = importlib.import_module("qjs_library")
    assert capsys.readouterr().out == ""
    assert library.qjs_one.name == "one"
    assert capsys.readouterr().out == "one runs\n"


def test_what_is_hidden_is_not_found_meanwhile() -> None:
    with lean_import(hidden=["qjs_two"]):
        assert importlib.import_module("qjs_library").qjs_two is None
    assert importlib.import_module("qjs_two").name == "two"


def test_what_is_imported_already_stays() -> None:
    two = importlib.import_module("qjs_two")
    with lean_import(hidden=["qjs_two"], late=["qjs_two"]):
        assert importlib.import_module("qjs_library").qjs_two is two
