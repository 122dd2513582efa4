"""The demo's output: lines at most once a second where there is no terminal, and tables that count everything."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.table import Table

from qjsupervisor.demo import work
from qjsupervisor.demo.view import View, channels_table, progress_line, progress_table, summary_table
from qjsupervisor.demo.work import Counts


def counts(database: str, channel: str = "root", **more: Any) -> Counts:
    numbers = {"waiting": 0, "running": 0, "done": 0, "failed": 0, "median_wait_s": None, "longest_wait_s": None}
    return Counts(database=database, channel=channel, **{**numbers, **more})


SEEN = [counts("shop", waiting=3, running=2, done=4, failed=1), counts("books", "root.slow", done=6, median_wait_s=0.5)]
STATS: Any = {"peak": {"root": 6, "root.slow": 2}, "peak_by_database": {"books": {"root.slow": 2}}}


def console(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=110, markup=False, highlight=False)


def text(made: Console) -> str:
    file = made.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def cells(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_a_line_of_all_databases() -> None:
    assert progress_line(12.34, SEEN) == " 12.3 s     3 waiting   2 running    10 done   1 failed"


def test_without_a_terminal_a_line_a_second_and_none_without_news() -> None:
    made = console()
    with View(made) as view:
        for now_s in (1.0, 1.5, 1.9, 2.1):
            view.progress(now_s, [counts("shop", done=int(now_s * 10))])
        view.progress(9.0, [counts("shop", done=21)])
    assert [line.split()[0] for line in text(made).splitlines()] == ["1.0", "2.1"]


def test_a_terminal_is_left_as_it_was() -> None:
    made = console(terminal=True)
    with suppress(ZeroDivisionError), View(made) as view:
        view.progress(1.0, SEEN)
        raise ZeroDivisionError
    assert text(made).rindex("\x1b[?25h") > text(made).rindex("\x1b[?25l"), "the cursor is shown again"


def test_progress_is_a_bar_of_what_is_over() -> None:
    rows = cells(progress_table(3.0, SEEN))
    assert rows[0] == ["shop", "root", "3", "2", "4", "1", "█" * 8]
    assert rows[1][-1] == "█" * 16


def test_the_summary_has_peaks_and_waits() -> None:
    assert cells(summary_table(SEEN, STATS)) == [
        ["shop", "root", "10", "4", "1", "0", "-", "-"],
        ["books", "root.slow", "6", "6", "0", "2", "0.50 s", "-"],
    ]


def test_the_root_includes_what_is_below_it() -> None:
    rows = {row[0]: row for row in cells(channels_table(SEEN, STATS))}
    assert set(rows) == set(work.CAPACITIES)
    assert rows["root"] == ["root", "6", "6", "16"]
    assert rows["root.slow"] == ["root.slow", "2", "2", "6"]
    assert rows["root.ledger"][2:] == ["0", "0"]
