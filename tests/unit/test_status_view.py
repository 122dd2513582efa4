"""`status` of many databases: order, choice, folding to any terminal; the plugin's line, and the watched screen."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from rich.cells import cell_len

from qjsupervisor.commands import client, probe
from qjsupervisor.commands import status as status_command
from qjsupervisor.commands.status_view import DATABASE_KEYS, Choice, choose, render
from qjsupervisor.commands.watch import Keys, News, window
from tests.monitor_status import status

CONFIG: Any = object()


def body(view: dict[str, Any], width: int = 0, **choice: Any) -> list[str]:
    return [line.plain for line in render(view, Choice(**choice), width).body]


def names(lines: list[str]) -> list[str]:
    """Of the databases, in the order in which they stand there."""
    return [line.split()[0] for line in lines if line.startswith("customer-")]


def calm(databases: int) -> dict[str, Any]:
    """Nothing is wrong, and of all databases but the first nothing is to be told."""
    view = status(databases, troubled=False)
    view["pauses"] = []
    for each in view["databases"][1:]:
        each.update(pending=0, running=0, failed=0, oldest_pending_s=0)
    return view


@pytest.mark.parametrize("width", [1, 20, 47, 48, 80, 120])
@pytest.mark.parametrize("databases", [0, 1, 200])
def test_nothing_is_wider_than_the_terminal_and_no_name_is_cut(width: int, databases: int) -> None:
    view = status(databases)
    long = ("Ж" * 200, "漢字データベース" * 6, "evil\x1b[2J\nname")
    view["databases"] += [{"name": name, "state": "blocked", "last_error": "why " * 60} for name in long]
    shown = render(view, Choice(everything=True), width)
    lines = [line.plain for line in (*shown.head, *shown.body)]
    assert max(map(cell_len, lines)) <= max(2, width)
    text = "".join(lines)
    assert (text.count("Ж"), text.count("漢"), text.count("\\"), "\x1b" in text) == (200, 6, 2, False)


def test_at_80_columns_what_matters_has_its_columns() -> None:
    lines = body(status(200), 80)
    head = next(line for line in lines if line.startswith("database"))
    assert head.split()[:7] == ["database", "state", "pending", "running", "failed", "oldest", "/min"]
    assert "heartbeat" in next(line for line in body(status(200), 120) if line.startswith("database"))


def test_problems_come_first_with_their_reasons() -> None:
    view = status(200)
    bad = [each["name"] for each in view["databases"] if each["state"] in ("blocked", "backing off", "failed")]
    lines = body(view, 80)
    assert names(lines)[: len(bad)] == bad
    at = next(number for number, line in enumerate(lines) if line.startswith(bad[0]))
    assert lines[at + 1].strip().startswith("password authentication failed")
    assert names(body(view, 80, only_problems=True)) == bad
    assert not any(line.startswith("channel") for line in body(view, 80, only_problems=True))


@pytest.mark.parametrize(("sort", "key"), DATABASE_KEYS.items())
def test_orders(sort: str, key: str) -> None:
    view = status(60)
    for number, each in enumerate(view["databases"]):
        each["per_minute"] = number * 7 % 11
    values = {each["name"]: each[key] or 0 for each in view["databases"]}
    found = [values[name] for name in names(body(view, 120, sort=sort, everything=True))]
    assert len(found) == 60
    assert found == sorted(found, reverse=True)


def test_idle_databases_are_folded_into_one_line() -> None:
    view = calm(200)
    view["databases"][0]["pending"] = 3
    lines = body(view, 80)
    assert names(lines) == ["customer-000"]
    assert "199 more ready and idle (--all shows them)" in lines
    assert len(names(body(view, 80, everything=True))) == 200
    assert len(names(body(calm(5), 80))) == 5, "so few are shown"


def test_a_paused_database_is_not_folded_and_says_by_whom_and_for_how_long() -> None:
    view = calm(200)
    view["pauses"] = [{"database": "customer-150", "channel": "root", "remaining_s": 754.0, "by": "admin from ::1"}]
    assert "    paused: everything, for 12 min more, by admin from ::1" in body(view, 80)


def test_names_are_chosen_as_in_a_shell() -> None:
    chosen = choose(status(200), ("customer-00?", "customer-150", "Customer-*"))
    assert [each["name"] for each in chosen["databases"]] == [f"customer-00{n}" for n in range(10)] + ["customer-150"]
    assert "11 databases" in render(status(200), Choice(patterns=("customer-00?", "customer-150"))).head[1].plain


@pytest.mark.parametrize("form", [{"as_json": True}, {"only_names": True}])
def test_programs_get_the_same_choice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: dict[str, bool]
) -> None:
    view = status(200)
    monkeypatch.setattr(client, "status", lambda _config: view)
    assert status_command.run(CONFIG, Choice(patterns=("customer-01?", "nobody"), only_problems=True), **form) == 1
    out, err = capsys.readouterr()
    found = [each["name"] for each in json.loads(out)["databases"]] if "as_json" in form else out.split()
    assert found == ["customer-012", "customer-013", "customer-015"]
    assert err == "no database matches 'nobody'; there are 200\n"


# -- for a monitoring system ---------------------------------------------------------------------------------------


def plugin(monkeypatch: pytest.MonkeyPatch, view: object, patterns: tuple[str, ...] = ()) -> int:
    def answered(_config: object) -> object:
        if isinstance(view, Exception):
            raise view
        return copy.deepcopy(view)

    monkeypatch.setattr(client, "status", answered)
    return probe.run(CONFIG, patterns)


def test_plugin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    good = calm(3)
    for channel in good["channels"]:
        channel.update(sequential=False, failed=0, stopped_by=[])
    assert plugin(monkeypatch, good) == 0
    first = capsys.readouterr().out
    assert first.startswith("OK - 3 databases: 3 ready; ")
    assert first.count("|") == 1
    assert " databases=3;;;0 ready=3;;;0;3 pending=0;;;0 running=0;;;0;24 " in first
    good["databases"][0]["overdue"] = 2
    assert plugin(monkeypatch, good) == 1
    assert capsys.readouterr().out.startswith("WARNING - customer-000: 2 jobs run for longer than max_runtime | ")
    assert plugin(monkeypatch, good, ("customer-001",)) == 0
    assert plugin(monkeypatch, good, ("nobody",)) == 3
    capsys.readouterr()


def test_plugin_tells_all_that_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bad = status(200)
    bad["problems"] = ["it | hurts\n"]
    assert plugin(monkeypatch, bad) == 2
    first, *more = capsys.readouterr().out.splitlines()
    assert re.match(r"CRITICAL - \d\d problems, the first: it / hurts\\n \| databases=200;;;0 ", first)
    assert len(more) == int(first.split()[2]) - 1
    assert plugin(monkeypatch, client.Unavailable("no supervisor runs")) == 2
    assert capsys.readouterr().out == "CRITICAL - no supervisor runs\n"


# -- watched -------------------------------------------------------------------------------------------------------


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
