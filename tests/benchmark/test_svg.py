"""The picture: well-formed, everything in it, within its edges."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from .svg import Line, Panel, linear_marks, logarithmic_marks, picture, short

_SVG = "{http://www.w3.org/2000/svg}"


def drawn(*lines: Line, sizes: tuple[int, ...] = (1, 10, 100), logarithmic: bool = False) -> ElementTree.Element:
    panel = Panel(
        title="A & <B>",
        sizes=sizes,
        size="databases",
        unit="ms",
        lines=lines,
        lines_are="solid: these",
        logarithmic=logarithmic,
    )
    return ElementTree.fromstring(picture("Title", [("#111111", "theirs"), ("#222222", "ours")], [panel], "a note"))


def test_texts() -> None:
    root = drawn(Line(color="#111111", values=[1, 2, 3]))
    texts = {element.text for element in root.iter(f"{_SVG}text")}
    assert {"Title", "theirs", "ours", "A & <B>", "ms; solid: these", "1", "10", "100", "databases", "a note"} <= texts


def test_a_missing_value_leaves_a_gap() -> None:
    root = drawn(Line(color="#111111", values=[1, None, 3]), Line(color="#222222", values=[None, None, None]))
    assert len(list(root.iter(f"{_SVG}polyline"))) == 2
    assert len(list(root.iter(f"{_SVG}circle"))) == 2


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.02, 7.0, 12000.0], [5.0, 5.0, 5.0], [0.0, 3.0, 1e6]])
def test_points_lie_within_the_axes(values: list[float], *, logarithmic: bool) -> None:
    root = drawn(Line(color="#111111", values=values), logarithmic=logarithmic)
    points = [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in root.iter(f"{_SVG}circle")]
    assert [x for x, _ in points] == sorted({x for x, _ in points})
    heights = [y for _, y in points]
    assert heights == sorted(heights, reverse=True)
    lines = [float(one.attrib["y1"]) for one in root.iter(f"{_SVG}line")][2:]
    assert all(min(lines) - 0.1 <= y <= max(lines) + 0.1 for y in heights)


def test_one_size_and_no_panel() -> None:
    assert len(list(drawn(Line(color="#111111", values=[4]), sizes=(7,)).iter(f"{_SVG}circle"))) == 1
    assert not re.search("nan|inf", picture("Title", [], [], ""))


@pytest.mark.parametrize(
    ("highest", "marks"), [(0, [0, 1]), (1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (430, [0, 100, 200, 300, 400, 500])]
)
def test_linear_marks(highest: float, marks: list[float]) -> None:
    assert linear_marks(highest) == marks


@pytest.mark.parametrize(
    ("lowest", "highest", "marks"),
    [
        (2.5, 12000, [1, 10, 100, 1000, 10000, 100000]),
        (0.3, 4, [0.2, 0.5, 1, 2, 5]),
        (1, 10, [1, 2, 5, 10]),
        (5, 5, [5, 50]),
    ],
)
def test_logarithmic_marks(lowest: float, highest: float, marks: list[float]) -> None:
    assert logarithmic_marks(lowest, highest) == pytest.approx(marks)


def test_short_numbers() -> None:
    assert [short(value) for value in (0, 0.5, 20, 5000, 1e6, 2.5e6)] == ["0", "0.5", "20", "5k", "1M", "2.5M"]
