"""Tables that fit a terminal: nothing is cut; the least important columns are dropped if there is no room.

Widths are in terminal cells; a Chinese character takes two. All text is escaped here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from rich.cells import cell_len, chop_cells
from rich.text import Text

from ..text import printable

T = TypeVar("T")
#: Word in a cell -> colour; other cells stay plain.
STYLES = {
    "ready": "green", "up": "green", "ok": "green", "would run": "green", "runs": "green", "done": "green",
    "standby": "cyan", "starting": "cyan", "unknown": "dim", "absent": "dim", "pending": "cyan",
    "enqueued": "cyan", "started": "cyan", "wait_dependencies": "dim", "cancelled": "dim",
    "backing off": "yellow", "stopping": "yellow", "paused": "yellow", "warning": "yellow",
    "blocked": "red", "failed": "red", "down": "red", "problem": "red", "unreachable": "red",
}  # fmt: skip
_GAP = 2
#: Names are folded down to this width before a column is dropped.
_NARROWEST_NAME = 20
#: On narrower terminals each row becomes a sentence.
_NARROWEST_TABLE = 48


class Column(NamedTuple):
    """One column after the first."""

    head: str
    #: Right-aligned.
    is_number: bool = True
    #: Columns with the highest value are dropped first; 0: never.
    optional: int = 0


class Row(NamedTuple):
    """A name, a cell per column, and (line, style) pairs shown below."""

    name: str
    cells: Sequence[str]
    below: Sequence[tuple[str, str]] = ()


def lines(name: str, columns: Sequence[Column], rows: Iterable[Row], width: int) -> Iterator[Text]:
    """The lines of the table; `name` is the head of the first column."""
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


def without_column(place: int, columns: Sequence[Column], rows: Iterable[Row]) -> tuple[list[Column], list[Row]]:
    """The table without its column number `place`."""

    def left(all_of: Sequence[T]) -> list[T]:
        return [*all_of[:place], *all_of[place + 1 :]]

    return left(columns), [row._replace(cells=left(row.cells)) for row in rows]


class _Table:
    """Columns with fixed widths."""

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
    """The columns that fit beside a name of this width."""
    shown = list(range(len(columns)))
    for n in sorted(shown, key=lambda n: -columns[n].optional):
        if not columns[n].optional or name_width + sum(widths[each] + _GAP for each in shown) <= width:
            break
        shown.remove(n)
    return shown


def _sentences(columns: Sequence[Column], rows: Iterable[Row], width: int) -> Iterator[Text]:
    """Each row as its name followed by its non-empty cells."""
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
    """Fold a line, between words if possible, keeping its indentation; `width` 0: no folding."""
    line = printable(line)
    if not width or cell_len(line) <= width:
        yield Text(line, style=style)
        return
    stripped = line.lstrip()
    indent = " " * min(len(line) - len(stripped), width // 3)
    rest, room = stripped.rstrip(), max(2, width - len(indent))  # 2: the widest character
    while rest:
        part = chop_cells(rest, room)[0]
        cut = part.rfind(" ", 1) if len(part) < len(rest) and rest[len(part)] != " " else len(part)
        part = rest[: cut if cut > 0 else len(part)]
        yield Text(indent + part.rstrip(), style=style)
        rest = rest[len(part) :].lstrip()


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
