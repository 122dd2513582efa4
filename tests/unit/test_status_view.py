"""`status` of many databases: order, choice, folding to any terminal."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from qjsupervisor.commands.status_view import DATABASE_KEYS, Choice, choose, render
from tests.monitor_status import status


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
    lines = body(view, 80, everything=True)
    assert names(lines)[: len(bad)] == bad
    at = next(number for number, line in enumerate(lines) if line.startswith(bad[0]))
    assert lines[at + 1].strip().startswith("password authentication failed")
    assert names(body(view, 80, only_problems=True, everything=True)) == bad
    assert not any(line.startswith("channel") for line in body(view, 80, only_problems=True))


def failing(databases: int, failing: int) -> dict[str, Any]:
    """So many, of which so many have one reason."""
    view = calm(databases)
    for each in view["databases"][1 : failing + 1]:
        each.update(state="failed", last_error="password; looked at again in 7 s")
    return view


def test_a_reason_that_many_databases_share_is_told_once_at_the_top() -> None:
    view = failing(200, 37)
    shown = render(view, Choice(), 80)
    text = " ".join(line.plain for line in (*shown.head, *shown.body))
    assert "37 databases (customer-001, customer-002, customer-003 and 34 more): failed: password " in text
    assert text.count("password") == 1
    assert "37 databases are affected by the problems above (--all shows them)" in text
    assert names(body(view, 80)) == []
    assert names(body(view, 80, only_problems=True)) == []
    assert "no database has a problem" not in body(view, 80, only_problems=True)


@pytest.mark.parametrize(
    ("choice", "shown", "reasons"),
    [({"everything": True}, 200, 37), ({"patterns": ("customer-00?",)}, 10, 9), ({"sort": "pending"}, 37, 0)],
)
def test_databases_of_a_shared_reason_are_listed_where_that_is_asked_for(
    choice: dict[str, Any], shown: int, reasons: int
) -> None:
    lines = body(failing(200, 37), 80, **choice)
    assert len(names(lines)) == shown
    assert len([line for line in lines if line.strip().startswith("password")]) == reasons


def test_few_databases_have_their_reason_beside_them() -> None:
    lines = body(failing(200, 3), 80)
    assert names(lines)[:3] == ["customer-001", "customer-002", "customer-003"]
    assert len([line for line in lines if line.strip().startswith("password")]) == 3


def test_databases_that_wait_for_their_server_are_not_listed_one_by_one() -> None:
    view = calm(200)
    view["postgresql"] = [{"server": "pg:5432", "state": "down", "reason": "Connection refused"}]
    for each in view["databases"]:
        each.update(state="starting", last_error="PostgreSQL at pg:5432 cannot be reached", postgresql="pg:5432")
    shown = render(view, Choice(), 80)
    assert "200 databases wait for it" in " ".join(line.plain for line in shown.head)
    assert names([line.plain for line in shown.body]) == []
    problems = body(view, 80, only_problems=True)
    assert "no database has a problem" not in problems


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


# -- for a monitoring system ---------------------------------------------------------------------------------------


# -- watched -------------------------------------------------------------------------------------------------------


def test_databases_without_a_worker_are_counted_in_that_line_and_shown_as_such() -> None:
    view = calm(200)
    for each in view["databases"][10:]:
        each["phase"], each["pid"] = "dozing", None
    view["databases"][10].update(phase="asleep")
    view["databases"][11]["failed"] = 3
    lines = body(view, 80)
    assert "199 more ready and idle, 188 dozing, 1 asleep (--all shows them)" in lines
    (row,) = [line for line in lines if line.startswith("customer-011")]
    assert "dozing" in row.split()


def test_what_rules_give_is_shown_where_there_is_something() -> None:
    view = calm(3)
    assert "db_capacity" not in "".join(body(view, 80))
    assert not any(line.startswith(("schedule", "channels of")) for line in body(view, 80))
    view["databases"][1]["share"] = {"min": 2, "max": 8, "reserve": True, "used": 1}
    view["databases"][2]["share"] = {"min": 0, "max": 3, "reserve": False, "used": 0}
    limits = [{"channel": "root.heavy", "limit": 0, "text": "closed until 18:00"}]
    coming = [{"channel": "root.heavy", "limit": None, "text": "open", "at": "2026-11-29T18:00:00+00:00"}]
    view["schedule"] = {"timezone": "UTC", "limits": limits, "next": coming}
    rate = {"starts": 3, "period_s": 60.0}
    view["rules"] = {"channel_options": [{"name": "root.mail", "capacity": "50%", "minimum": "2", "rate": rate}]}
    lines = body(view, 80, everything=True)
    head = next(line for line in lines if line.startswith("database"))
    assert head.split()[:8] == ["database", "state", "pending", "running", "failed", "oldest", "/min", "db_capacity"]
    assert any(line.startswith("customer-001") and "2 to 8, 2 kept free" in line for line in lines)
    assert any(line.startswith("customer-002") and "max 3" in line for line in lines)
    said = " ".join(body(view, everything=True))
    assert "channels of each database: root.mail max 50%, min 2, rate 3/1m" in said
    assert "schedule (UTC): now root.heavy closed until 18:00; then 2026-11-29 18:00 root.heavy open" in said
