"""The watched screen: its size, its keys, and what it says without a terminal."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from qjsupervisor.commands.status_view import Choice, render
from qjsupervisor.commands.watch import Keys, News, window
from tests.monitor_status import status


def calm(databases: int) -> dict[str, Any]:
    """Nothing is wrong, and of all databases but the first nothing is to be told."""
    view = status(databases, troubled=False)
    view["pauses"] = []
    for each in view["databases"][1:]:
        each.update(pending=0, running=0, failed=0, oldest_pending_s=0)
    return view


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (20, 5), (1, 1)])
@pytest.mark.parametrize("top", [0, 7, 10**9])
def test_the_screen_is_never_larger_than_the_terminal(width: int, height: int, top: int) -> None:
    shown = render(status(200), Choice(everything=True), width)
    lines, at = window(shown, top, width, height)
    assert len(lines) == max(2, height)
    assert max(cell_len(line.plain) for line in lines) <= max(2, width)
    assert lines[0].plain == shown.head[0].plain, "the totals stay in sight"
    if top == 10**9 and height > 10:
        assert lines[-2].plain == shown.body[-1].plain
        assert at > 0


def test_keys_in_parts() -> None:
    keys = Keys()
    assert list(keys.of(b"\x1b")) == []
    assert list(keys.of(b"[6")) == []
    assert list(keys.of(b"~j\xff\xe6q")) == ["page down", "down", "quit"]
    assert list(keys.of("漢x\x1b[Zk".encode())) == ["up"]


def test_lines_of_a_watch_without_a_terminal() -> None:
    news = News(())
    view = calm(3)
    assert [line[:20] for line in news.of(view)] == ["3 databases: 3 ready"]
    view["databases"][1].update(state="blocked", last_error="to upgrade")
    assert list(news.of(view))[1:] == ["problem: customer-001: blocked: to upgrade"]
    assert len(list(news.of(view))) == 1, "told once"
    assert list(news.of({"unavailable": "no supervisor runs"})) == ["no supervisor runs"]
    assert list(news.of(calm(3)))[1:] == ["over: customer-001: blocked: to upgrade"]
