"""The structure of the package keeps to its figures (house.py), so that it does not grow apart unseen."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from .. import house


@pytest.fixture(scope="module")
def figures() -> list[house.Figure]:
    return house.figures()


def test_each_figure_holds(figures: list[house.Figure]) -> None:
    beyond = [
        f"{figure.value:g} {figure.what}, of {figure.limit:g}: {figure.details}"
        for figure in figures
        if not figure.holds
    ]
    assert not beyond


def test_each_figure_counts_something(figures: list[house.Figure]) -> None:
    """A pattern that finds nothing any more would hold for ever."""
    assert all(figure.value for figure in figures if figure.limit)


def test_exceptions_that_stand_for_nothing_are_taken_out() -> None:
    """Or what gets their name next is not counted."""
    functions = {
        f"{path} {node.name}"
        for path, tree in house.sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    assert house.NOT_DEADLINES.keys() <= functions
    attributes = {
        f"{path} {ast.unparse(node.target).removeprefix('self.')}"
        for path, tree in house.sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign)
    }
    assert house.NOT_JOBS.keys() <= attributes
    modules = dict(house.sources())
    stems = Counter(Path(path).stem for path in modules)
    for path in house.TESTED_ELSEWHERE:
        assert house.has_logic(modules[path]), f"{path} needs none"
        assert not any(file.exists() for file in house.tests_of(path, stems)), f"{path} has its own"


def test_a_new_module_with_logic_needs_a_test_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    new = ast.parse("def f(a):\n    return 1 if a else 2\n")
    data = ast.parse("class A:\n    x = 1\n    def f(self):\n        return self.x\n")
    known = list(house.sources())
    more = [("worker/newcomer.py", new), ("worker/constants.py", data), ("demo/serving.py", new)]
    monkeypatch.setattr(house, "sources", lambda: [*known, *more])
    # The last one's name means worker/serving.py no more, so that one's tests have to say its folder.
    assert house.modules_without_tests() == ["worker/serving.py", "worker/newcomer.py", "demo/serving.py"]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("rows._make = note", True),
        ("world.core._tree: int = 1", True),
        ("a._count += 1", True),
        ("monkeypatch.setattr(module, '_WAIT_S', 1)", True),
        ("setattr(one, '_wait', 1)", True),
        ("self._count = 1", False),
        ("a.count = 1", False),
        ("monkeypatch.setattr(module, 'WAIT_S', 1)", False),
        ("a.__class__ = b", False),
        ("print(a._count)", False),
    ],
)
def test_private_attributes_that_are_set_are_found(
    text: str, is_one: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text(text)
    monkeypatch.setattr(house, "ROOT", tmp_path)
    assert len(house.private_attributes_set_in_tests()) == is_one


def test_fails_where_a_figure_is_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(house, "figures", lambda: [house.Figure("things", 3, 2, ("one", "two", "three"))])
    assert house.main() == 1
    assert "over     3 of   2  things\n" in capsys.readouterr().out
    monkeypatch.setattr(house, "figures", lambda: [house.Figure("things", 2, 2)])
    assert house.main() == 0
