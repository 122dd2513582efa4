"""The tables: rich's on a terminal, plain text in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from .figures import Results
from .runners import OCA, OURS
from .scenarios import SCENARIOS

DASH = "-"
_LEFT = 2


def number(value: float | None) -> str:
    """Three digits that count, thousands apart; a dash for what was not reached."""
    if value is None:
        return DASH
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def ratio(value: float | None) -> str:
    """Ours to theirs: what is below 1/10 as a fraction."""
    if value is None:
        return DASH
    return f"1/{1 / value:,.0f}" if 0 < value < 0.1 else f"{value:.2f}"


def rows(results: Results) -> list[tuple[str, ...]]:
    """One for each figure at each size: scenario and size, figure, OCA's, ours, ratio."""
    found = []
    for scenario in SCENARIOS:
        for size in results.sizes(scenario.name):
            for figure in scenario.figures:
                where = scenario.name, size
                values = (number(results.median(*where, kind, figure.key)) for kind in (OCA, OURS))
                relation = ratio(results.ratio(*where, figure.key, OURS, OCA))
                found.append((scenario.label(size), f"{figure.title} ({figure.unit})", *values, relation))
    return found


HEADER = ("scenario", "figure", "OCA's runner", "qjsupervisor", "ratio")


def show(header: Sequence[str], lines: Sequence[Sequence[str]], out: TextIO) -> None:
    """Write a table; what repeats in the first column is left out."""
    if out.isatty():
        table = Table(box=box.SIMPLE_HEAD)
        for index, title in enumerate(header):
            table.add_column(title, justify="left" if index < _LEFT else "right")
        for line in _without_repeats(lines):
            table.add_row(*line)
        Console(file=out).print(table)
    else:
        out.write("\n" + plain(header, lines))
        out.flush()


def plain(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The table as text, columns by blanks."""
    all_lines = [header, *_without_repeats(lines)]
    widths = [max(len(line[index]) for line in all_lines) for index in range(len(header))]
    return "".join(
        "  ".join(
            cell.ljust(width) if index < _LEFT else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in all_lines
    )


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The table for README."""
    marks = ["---" if index < _LEFT else "---:" for index in range(len(header))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, marks, *lines))


def _without_repeats(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    before: str | None = None
    shown = []
    for first, *others in lines:
        shown.append(["" if first == before else first, *others])
        before = first
    return shown
