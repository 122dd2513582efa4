"""Nothing that comes from a database reaches the terminal as it is; tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console, Group

from qjsupervisor.commands.output import print_lines, table
from qjsupervisor.commands.status_view import render
from qjsupervisor.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 漢字 €", "plain äöü 漢字 €"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\r\nb\tc\0", "a\\r\\nb\\tc\\x00"),
        ("\x9b2J\x7f", "\\x9b2J\\x7f"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\udcff", "\\udcff"),
        (12, "12"),
        (None, "None"),
    ],
)
def test_printable(text: object, shown: str) -> None:
    assert printable(text) == shown


def shown(renderable: Any) -> str:
    console = Console(markup=False, highlight=False, width=160, color_system="truecolor", force_terminal=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_table_takes_no_markup_and_no_control_sequences() -> None:
    text = shown(table("t", ("name", ">n", "*why"), [("[bold]x[/bold]", 1, "\x1b]0;title\x07"), (None, None, "")]))
    assert "[bold]x[/bold]" in text
    assert "\x1b]0;" not in text
    assert "\\x1b]0;title\\x07" in text


def text_of(view: Mapping[str, Any], width: int = 0) -> str:
    found = render(view, width=width)
    return shown(Group(*found.head, *found.body))


@pytest.mark.parametrize("width", [20, 45, 80])
def test_a_table_cuts_nothing_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(table("t", ("channel", ">capacity", "*why"), [("c" * 30, 9_999_999, "w" * 40)]))
    text = capture.get()
    assert (text.count("c") - 3, text.count("9"), text.count("w") - 1) == (30, 7, 40)
    assert max(map(len, text.splitlines())) <= width


def status(**more: Any) -> dict[str, Any]:
    return {"version": "1", "pid": 1, "uptime_s": 61.0, "mode": "server-wide", "fairness": "priority", **more}


def test_status_for_people() -> None:
    evil = "db\x1b[2J"
    view = status(
        databases=[
            {"name": evil, "state": "blocked", "last_error": "queue_job is 'to upgrade'", "pending": 3},
        ],
        channels=[
            {"name": "root", "capacity": None, "running": 2, "throttle_s": 5, "sequential": True, "paused": True}
        ],
        pauses=[{"database": None, "channel": "root", "remaining_s": 90.0, "by": "admin from 10.0.0.7"}],
        target={"url": "http://o:1", "state": "down", "failures": 4, "retry_in_s": 12.0},
    )
    text = text_of(view)
    paused = "paused: everything of all databases, for 90 s more, by admin from 10.0.0.7"
    for part in ("db\\x1b[2J", "blocked", "to upgrade", "no limit", "paused, sequential, throttle 5 s", paused):
        assert part in text
    assert "http://o:1" in text
    assert "\x1b[2J" not in text


def test_status_of_nothing() -> None:
    """A status with no more than the keys that it must have, and no database."""
    assert "qjsupervisor 1, process 1" in text_of(status(databases=[], channels=[], target={}))


def test_lines_fit_a_terminal_and_nothing_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uuid, why = "0a1b2c3d-0000-4000-8000-0123456789ab", " ".join(f"word{number}" for number in range(60))
    lines = [f"{uuid}  pending  age 47 h 59 min  place 250000", f"    {why}\x1b[2J", "    " + "x" * 200]
    print_lines(lines)
    assert capsys.readouterr().out.splitlines()[1] == f"    {why}\\x1b[2J", "one line is one line in a pipe"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    print_lines(lines)
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    assert shown[0] == lines[0], "what one copies stands whole on one line"
    text = "".join(line.strip() for line in shown)
    assert text.count("x") == 200 + 1
    assert all(f"word{number}" in text for number in range(60))
