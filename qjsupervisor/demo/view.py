"""The demo's output: a live table on a terminal, plain lines elsewhere, and a summary at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import TracebackType

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ..testing.odoo_stats import Stats
from . import work
from .work import Counts

_PLAIN_WIDTH = 110
_BAR_WIDTH = 16
_LINE_INTERVAL_S = 1.0


class View:
    """Shows progress; as a context manager it always restores the terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _console()
        self._live: Live | None = None
        self._last_line_s = 0.0
        self._last: Sequence[Counts] = ()

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print one permanent line."""
        self.console.print(text, soft_wrap=True)

    def say_all(self, lines: Iterable[str]) -> None:
        """Print permanent lines."""
        for line in lines:
            self.say(line)

    def end_table(self) -> None:
        """Stop drawing the live table; printed lines stay."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def progress(self, now_s: float, counts: Sequence[Counts]) -> None:
        """Show the state `now_s` seconds after the start; may be called at any rate."""
        if self._live is not None:
            self._live.update(progress_table(now_s, counts), refresh=True)
        elif counts != self._last and now_s - self._last_line_s >= _LINE_INTERVAL_S:
            self._last_line_s, self._last = now_s, counts
            self.say(progress_line(now_s, counts))

    def summary(self, counts: Sequence[Counts], stats: Stats) -> None:
        """Show what was run, at the end."""
        self.console.print(summary_table(counts, stats))
        self.console.print(channels_table(counts, stats))


def _console() -> Console:
    """The console; output to a file or pipe is wide enough for the tables."""
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return Console(markup=False, highlight=False, width=width)


def progress_line(now_s: float, counts: Sequence[Counts]) -> str:
    """One line of totals over all databases."""
    done, failed = sum(row.done for row in counts), sum(row.failed for row in counts)
    running, waiting = sum(row.running for row in counts), sum(row.waiting for row in counts)
    return f"{now_s:5.1f} s  {waiting:4} waiting  {running:2} running  {done:4} done  {failed:2} failed"


def progress_table(now_s: float, counts: Sequence[Counts]) -> Table:
    """The state of every channel of every database."""
    table = _table(f"{now_s:.0f} s", "database", "channel", ">waiting", ">running", ">done", ">failed", "")
    for row in counts:
        bar = "█" * round(_BAR_WIDTH * (row.done + row.failed) / max(1, row.total))
        numbers = (row.waiting, row.running, row.done, row.failed)
        table.add_row(row.database, row.channel, *map(str, numbers), bar)
    return table


def summary_table(counts: Sequence[Counts], stats: Stats) -> Table:
    """Results by database and channel."""
    heads = ("database", "channel", ">jobs", ">done", ">failed", ">at once", ">median", ">longest")
    table = _table("What was run; the median and the longest wait", *heads)
    for row in counts:
        peak = stats["peak_by_database"].get(row.database, {}).get(row.channel, 0)
        waits = (_seconds(row.median_wait_s), _seconds(row.longest_wait_s))
        table.add_row(row.database, row.channel, str(row.total), str(row.done), str(row.failed), str(peak), *waits)
    return table


def channels_table(counts: Sequence[Counts], stats: Stats) -> Table:
    """Results by channel over all databases; root includes all."""
    table = _table("Channels, over all databases", "channel", ">capacity", ">most at once", ">jobs")
    for channel, capacity in work.CAPACITIES.items():
        inside = sum(row.total for row in counts if f"{row.channel}.".startswith(f"{channel}."))
        table.add_row(channel, str(capacity), str(stats["peak"].get(channel, 0)), str(inside))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
