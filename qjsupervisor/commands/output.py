"""Output of the commands. No text from a database reaches a terminal unescaped.

`rich` is imported only by the functions that need it: never by `start`, and not for JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..text import printable, seconds

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_WIDTH_OF_A_PIPE = 10_000
_NARROWEST = 10


def print_line(value: object = "") -> None:
    """Print one line of text, escaped."""
    sys.stdout.write(printable(value) + "\n")


def print_lines(lines: Iterable[str]) -> None:
    """Print lines, escaped; on a terminal each is folded to its width, keeping its indentation, and never cut."""
    if not sys.stdout.isatty():
        sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
        return
    from .columns import folded

    width = shutil.get_terminal_size().columns
    sys.stdout.writelines(f"{part.plain}\n" for line in lines for part in folded(line, width))


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON document, escaped to ASCII."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_document(
    head: Mapping[str, Any], key: str, items: Iterable[Mapping[str, Any]], tail: Callable[[], Mapping[str, Any]]
) -> None:
    """Print one JSON document with a possibly long list, one item per line, each as soon as it is available.

    `tail` is called after the last item and gives the keys after the list.
    """
    write = sys.stdout.write
    encode = json.JSONEncoder(default=str).encode
    write("{\n" + "".join(f"  {encode(name)}: {encode(value)},\n" for name, value in head.items()))
    write(f"  {encode(key)}: [")
    separator = "\n    "
    for item in items:
        write(separator + encode(item))
        separator = ",\n    "
    write("\n  ]" if "," in separator else "]")
    write("".join(f",\n  {encode(name)}: {encode(value)}" for name, value in tail().items()) + "\n}\n")


def duration(value: float | None) -> str:
    """A time span for people; '-' for None."""
    return "-" if value is None else seconds(value)


def console() -> Console:
    """A console on standard output without markup and highlighting.

    Output to a file or pipe is not folded: one row is one line.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE
    return Console(markup=False, highlight=False, emoji=False, width=width)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table; a column name starting with '>' means numbers, with '*' that it may be folded.

    If the terminal is still too narrow, all columns are folded; nothing is cut.
    """
    from rich import box
    from rich.table import Table

    cells = [[cell(value) for value in row] for row in rows]
    result = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    names = [column.lstrip(">*") for column in columns]
    longest = [max([len(name), *(row[index].cell_len for row in cells)]) for index, name in enumerate(names)]
    folds = [column.startswith("*") for column in columns]
    widths = [min(most, _NARROWEST) if may else most for most, may in zip(longest, folds, strict=True)]
    has_room = not sys.stdout.isatty() or sum(widths) + 2 * len(widths) <= shutil.get_terminal_size().columns
    for index, column in enumerate(columns):
        result.add_column(
            names[index],
            justify="right" if column.startswith(">") else "left",
            no_wrap=has_room and not folds[index],
            overflow="fold",
            min_width=widths[index] if has_room else None,
        )
    for row in cells:
        result.add_row(*row)
    return result


def cell(value: object) -> Text:
    """One escaped cell: None is '-', known words are coloured."""
    from rich.text import Text

    from .columns import STYLES

    text = "-" if value is None else printable(value)
    return Text(text, style=STYLES.get(text, ""))
