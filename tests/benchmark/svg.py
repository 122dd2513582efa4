"""Line charts as SVG, written by hand: panels side by side, one legend, one line of small print below.

Points of a panel stand at equal distances, each with its size below it; the values' axis is linear from zero, or
logarithmic. A value that is None leaves a gap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

_PANEL_WIDTH, _PANEL_HEIGHT = 440.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 18.0, 48.0, 52.0
_HEAD, _FOOT = 76.0, 34.0
_INK, _FAINT, _GRID, _PAPER = "#24292f", "#57606a", "#e4e8ec", "#ffffff"
_COLUMNS = 2
#: Marks of an axis: about so many.
_MARKS = 5
_STYLE = "font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a panel."""

    color: str
    values: Sequence[float | None]
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One chart. `sizes`: the points on the horizontal axis, one for each value of a line. `lines_are`: a legend."""

    title: str
    sizes: Sequence[int]
    size: str
    unit: str
    lines: Sequence[Line]
    lines_are: str = ""
    logarithmic: bool = False


def linear_marks(highest: float) -> list[float]:
    """From 0 to the first mark that is not below `highest`, at steps of 1, 2 or 5 times a power of ten."""
    if highest <= 0:
        return [0.0, 1.0]
    rough = highest / _MARKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [round(step * number, 10) for number in range(math.ceil(highest / step - 1e-9) + 1)]


def logarithmic_marks(lowest: float, highest: float) -> list[float]:
    """Powers of ten around both; where there are few, their double and fivefold, too."""
    first, last = math.floor(math.log10(lowest) + 1e-9), math.ceil(math.log10(highest) - 1e-9)
    last = max(last, first + 1)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    marks = [*(factor * 10.0**power for power in range(first, last) for factor in factors), 10.0**last]
    below = sum(mark <= lowest * (1 + 1e-9) for mark in marks)
    above = sum(mark >= highest * (1 - 1e-9) for mark in marks)
    marks = marks[max(0, below - 1) : len(marks) - max(0, above - 1)]
    return marks if len(marks) > 1 else [marks[0], marks[0] * 10]


def short(value: float) -> str:
    """A number for an axis: 0.5, 20, 5k, 1M."""
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


class _Axes:
    """Where sizes and values of a panel lie in the picture."""

    def __init__(self, panel: Panel, left: float, top: float) -> None:
        self.left, self.top = left + _LEFT, top + _TOP
        self.right, self.bottom = left + _PANEL_WIDTH - _RIGHT, top + _PANEL_HEIGHT - _BOTTOM
        self._count = len(panel.sizes)
        known = [value for line in panel.lines for value in line.values if value is not None]
        self.logarithmic = panel.logarithmic and any(value > 0 for value in known)
        if self.logarithmic:
            positive = [value for value in known if value > 0]
            self.marks = logarithmic_marks(min(positive), max(positive))
        else:
            self.marks = linear_marks(max(known, default=0.0))

    def x(self, index: int) -> float:
        if self._count == 1:
            return (self.left + self.right) / 2
        margin = 14.0
        return self.left + margin + (self.right - self.left - 2 * margin) * index / (self._count - 1)

    def y(self, value: float) -> float:
        low, high = self.marks[0], self.marks[-1]
        if self.logarithmic:
            value, low, high = (math.log10(max(one, low)) for one in (value, low, high))
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)


def picture(title: str, legend: Sequence[tuple[str, str]], panels: Sequence[Panel], note: str) -> str:
    """The whole picture as an SVG document. `legend`: (color, text) pairs."""
    width = _PANEL_WIDTH * min(_COLUMNS, max(1, len(panels)))
    height = _HEAD + _PANEL_HEIGHT * math.ceil(len(panels) / _COLUMNS) + _FOOT
    area = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {area} role="img" aria-label={quoteattr(title)} style="{_STYLE}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width:g}" height="{height:g}" rx="8" fill="{_PAPER}"/>',
        _text(20, 30, title, size=16, bold=True),
        *_legend(legend),
    ]
    for index, panel in enumerate(panels):
        left, top = _PANEL_WIDTH * (index % _COLUMNS), _HEAD + _PANEL_HEIGHT * (index // _COLUMNS)
        parts += _panel(panel, _Axes(panel, left, top))
    parts += [_text(20, height - 14, note, color=_FAINT, size=11), "</svg>"]
    return "\n".join(parts) + "\n"


def _legend(entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    x = 20.0
    for color, text in entries:
        yield f'<line x1="{x:g}" y1="54" x2="{x + 22:g}" y2="54" stroke="{color}" stroke-width="3"/>'
        yield _text(x + 28, 58, text)
        x += 28 + 7.0 * len(text) + 24


def _panel(panel: Panel, axes: _Axes) -> Iterator[str]:
    scale = (", logarithmic" if axes.logarithmic else "") + (f"; {panel.lines_are}" if panel.lines_are else "")
    yield _text(axes.left - 42, axes.top - 29, panel.title, size=13, bold=True)
    yield _text(axes.left - 42, axes.top - 13, f"{panel.unit}{scale}", color=_FAINT, size=11)
    for mark in axes.marks:
        y = axes.y(mark)
        yield f'<line x1="{axes.left:g}" y1="{y:.1f}" x2="{axes.right:g}" y2="{y:.1f}" stroke="{_GRID}"/>'
        yield _text(axes.left - 8, y + 4, short(mark), anchor="end", color=_FAINT, size=11)
    for index, size in enumerate(panel.sizes):
        yield _text(axes.x(index), axes.bottom + 18, f"{size:,}", anchor="middle", color=_FAINT, size=11)
    middle = (axes.left + axes.right) / 2
    yield _text(middle, axes.bottom + 36, panel.size, anchor="middle", color=_FAINT, size=11)
    yield f'<line x1="{axes.left:g}" y1="{axes.bottom:g}" x2="{axes.right:g}" y2="{axes.bottom:g}" stroke="{_FAINT}"/>'
    for line in panel.lines:
        yield from _line(line, axes)


def _line(line: Line, axes: _Axes) -> Iterator[str]:
    dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
    for run in _runs(line.values):
        points = " ".join(f"{axes.x(index):.1f},{axes.y(value):.1f}" for index, value in run)
        yield f'<polyline points="{points}" fill="none" stroke="{line.color}" stroke-width="2"{dashes}/>'
        for index, value in run:
            yield f'<circle cx="{axes.x(index):.1f}" cy="{axes.y(value):.1f}" r="3" fill="{line.color}"/>'


def _runs(values: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    """Stretches of neighbouring points without a gap."""
    run: list[tuple[int, float]] = []
    for index, value in enumerate(values):
        if value is not None:
            run.append((index, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", color: str = _INK, size: int = 12, bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" font-size="{size}"{weight}'
    return f"<text {where}>{escape(text)}</text>"
