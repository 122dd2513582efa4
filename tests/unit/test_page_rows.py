"""Rows of the page: what is wrong comes first and has its reason, whatever keys a status has."""

from __future__ import annotations

from typing import Any

import pytest

from qjsupervisor.monitor.health import STALE_HEARTBEAT_S
from qjsupervisor.monitor.history import History
from qjsupervisor.monitor.page_rows import (
    channel_rows,
    channels_of,
    count,
    database_row,
    database_rows,
    quoted,
    span,
    sparkline,
)
from tests.monitor_status import status

DOWN = {"url": "http://o:1", "state": "down", "reason": "refused"}
UP = {"url": "http://o:2", "state": "up"}


@pytest.mark.parametrize(
    ("view", "shown", "troubled", "why"),
    [
        ({"state": "ready"}, "ready", False, ""),
        ({"state": "ready", "last_error": "long ago"}, "ready", False, ""),
        ({"state": "ready", "heartbeat_age_s": STALE_HEARTBEAT_S + 1}, "silent", True, ""),
        ({"state": "ready", "paused": True}, "paused", False, ""),
        ({"state": "blocked", "last_error": "to upgrade"}, "blocked", True, "to upgrade"),
        ({"state": "backing off", "message": "soon"}, "backing off", True, "soon"),
        ({"state": "ready", "targets": [DOWN]}, "ready", True, "Odoo at http://o:1 is down: refused"),
        ({"state": "ready", "targets": [DOWN, UP]}, "ready", False, ""),
        ({"state": "starting", "targets": [DOWN], "last_error": "no connection"}, "starting", True, "no connection"),
    ],
)
def test_what_a_row_says(view: dict[str, Any], shown: str, troubled: bool, why: str) -> None:
    row = database_row({"name": "db", **view}, History())
    assert (row["shown"], row["troubled"], row["why"]) == (shown, troubled, why)


def test_rows_of_databases_are_in_order_and_printable() -> None:
    now = status(20)
    now["databases"][7]["name"] = "a\x1b/b"
    rows = database_rows(now, History())
    assert [row.troubled for row in rows] == sorted((row.troubled for row in rows), reverse=True)
    odd = next(row for row in rows if "x1b" in row.name)
    assert (odd.name, odd.link) == ("a\\x1b/b", "a%1B%2Fb")
    assert len(rows) == 20
    assert database_rows({}, History()) == []


def test_channels_and_what_holds_them_up() -> None:
    rows = {row.name: row for row in channel_rows(status(4))}
    assert (rows["root.mail"].shown, rows["root.mail"].used) == ("full", 100)
    assert rows["root.imports"].shown == "paused"
    assert rows["root.stock"].shown == "stopped"
    assert (rows["root"].shown, rows["root"].used, rows["root"].running) == ("open", 71, 17)
    assert "sequential" in rows["root.stock"].settings
    (closed,) = channel_rows({"channels": [{"name": "root", "closed": True, "capacity": 0}]})
    assert (closed.shown, closed.used) == ("closed", 0)


def test_channels_of_one_database() -> None:
    found = channels_of(status(2), "customer-001")
    assert found
    assert {(row["mine_running"], row["mine_pending"]) for row in found} == {(1, 5)}
    assert channels_of(status(2), "nobody") == []


def test_words_for_numbers() -> None:
    assert (count(1234567), count(None), span(None), span(90)) == ("1,234,567", "–", "–", "90 s")
    assert quoted("a/b?ä\udcff") == "a%2Fb%3F%C3%A4%ED%B3%BF"


def test_a_line_fills_its_box() -> None:
    assert sparkline([]) == sparkline([3]) == ""
    assert sparkline([0, 0]) == "0.0,23.0 120.0,23.0"
    assert sparkline([0, 5, 10]) == "0.0,23.0 60.0,12.0 120.0,1.0"
