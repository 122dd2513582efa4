"""Rows in columns that fit a terminal: nothing is cut, columns that matter least are left out where there is no room.

Widths are those of the terminal's cells: a Chinese character has two. What comes in is escaped here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rich.cells import cell_len, chop_cells
from rich.text import Text

from ..text import printable

#: Colour of a cell by the word in it; what is not here stays plain.
STYLES = {
    "ready": "green", "up": "green", "ok": "green", "would run": "green", "runs": "green", "done": "green",
    "standby": "cyan", "starting": "cyan", "unknown": "dim", "absent": "dim", "pending": "cyan",
    "enqueued": "cyan", "started": "cyan", "wait_dependencies": "dim", "cancelled": "dim",
    "backing off": "yellow", "stopping": "yellow", "paused": "yellow", "warning": "yellow",
    "blocked": "red", "failed": "red", "down": "red", "problem": "red", "unreachable": "red",
}  # fmt: skip
_GAP = 2
#: A name is folded rather than that a column is left out, down to this width.
_NARROWEST_NAME = 20
#: Narrower than this a row is told in a sentence.
_NARROWEST_TABLE = 48


class Column(NamedTuple):
    """One column behind the first."""

    head: str
    #: Numbers stand right.
    is_number: bool = True
    #: Those with the highest are left out first; 0: never.
    optional: int = 0


class Row(NamedTuple):
    """A name, a cell for each column, and lines that stand below, with their style."""

    name: str
    cells: Sequence[str]
    below: Sequence[tuple[str, str]] = ()


def lines(name: str, columns: Sequence[Column], rows: Iterable[Row], width: int) -> Iterator[Text]:
    """The table, a line each; `name` heads the first column."""
    rows = [Row(printable(row.name), [printable(cell) for cell in row.cells], row.below) for row in rows]
    longest = max([cell_len(name), *(cell_len(row.name) for row in rows)])
    widths = [
        max([cell_len(column.head), *(cell_len(row.cells[n]) for row in rows)]) for n, column in enumerate(columns)
    ]
    shown = _shown(columns, widths, min(longest, _NARROWEST_NAME), width)
    room = width - sum(widths[n] + _GAP for n in shown)
    if width < _NARROWEST_TABLE or room < min(longest, _NARROWEST_NAME) // 2:
        yield from _sentences(columns, rows, width)
        return
    table = _Table(min(longest, room), {n: widths[n] for n in shown}, columns, width)
    yield table.head(name)
    for row in rows:
        yield from table.row(row)


class _Table:
    """Columns of settled widths."""

    def __init__(self, name_width: int, widths: Mapping[int, int], columns: Sequence[Column], width: int) -> None:
        self._name_width = name_width
        self._widths = widths
        self._columns = columns
        self._width = width

    def head(self, name: str) -> Text:
        heads = [column.head for column in self._columns]
        return Text(self._line(name, heads), style="bold dim")

    def row(self, row: Row) -> Iterator[Text]:
        first, *rest = chop_cells(row.name, self._name_width) or [""]
        text = Text(_padded(first, self._name_width))
        for n, width in self._widths.items():
            cell = row.cells[n]
            padding = " " * (width - cell_len(cell))
            style = STYLES.get(cell, "")
            text.append(" " * _GAP + (padding if self._columns[n].is_number else ""))
            text.append(cell, style=style)
            text.append("" if self._columns[n].is_number else padding)
        text.rstrip()
        yield text
        yield from map(Text, rest)
        yield from _below(row, self._width)

    def _line(self, first: str, cells: Sequence[str]) -> str:
        parts = [_padded(first, self._name_width)]
        for n, width in self._widths.items():
            padding = " " * (width - cell_len(cells[n]))
            parts.append(padding + cells[n] if self._columns[n].is_number else cells[n] + padding)
        return (" " * _GAP).join(parts).rstrip()


def _shown(columns: Sequence[Column], widths: Sequence[int], name_width: int, width: int) -> list[int]:
    """Which columns there is room for beside a name of this width."""
    shown = list(range(len(columns)))
    for n in sorted(shown, key=lambda n: -columns[n].optional):
        if not columns[n].optional or name_width + sum(widths[each] + _GAP for each in shown) <= width:
            break
        shown.remove(n)
    return shown


def _sentences(columns: Sequence[Column], rows: Iterable[Row], width: int) -> Iterator[Text]:
    """Each row as its name and what is not nothing."""
    for row in rows:
        facts = [
            f"{column.head} {cell}" if column.is_number else cell
            for column, cell in zip(columns, row.cells, strict=True)
            if cell not in ("", "-", "0")
        ]
        yield from folded(f"{row.name}: {', '.join(facts)}", width)
        yield from _below(row, width)


def _below(row: Row, width: int) -> Iterator[Text]:
    for text, style in row.below:
        yield from folded(f"    {text}", width, style)


def folded(line: str, width: int, style: str = "") -> Iterator[Text]:
    """A line, folded between words where it can be, behind its own indentation; `width` 0: not at all."""
    line = printable(line)
    if not width or cell_len(line) <= width:
        yield Text(line, style=style)
        return
    stripped = line.lstrip()
    indent = " " * min(len(line) - len(stripped), width // 3)
    rest, room = stripped.rstrip(), max(2, width - len(indent))  # two: the widest character
    while rest:
        part = chop_cells(rest, room)[0]
        cut = part.rfind(" ", 1) if len(part) < len(rest) and rest[len(part)] != " " else len(part)
        part = rest[: cut if cut > 0 else len(part)]
        yield Text(indent + part.rstrip(), style=style)
        rest = rest[len(part) :].lstrip()


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
