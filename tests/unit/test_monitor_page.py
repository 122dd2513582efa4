"""The page as the monitor makes it: rows that did not change are not made again, and what all of it costs."""

from __future__ import annotations

import re
import time

import pytest

from qjsupervisor.commands.status_view import summary
from qjsupervisor.monitor import page
from qjsupervisor.monitor.history import History, Sample
from qjsupervisor.monitor.master_link import Said
from qjsupervisor.monitor.page_rows import DatabaseRow
from tests.monitor_status import status

NO_HISTORY = History()


def made(rows: page.RowCache, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the rows that are made from now on."""
    names: list[str] = []
    make = rows.make

    def note(row: DatabaseRow, *more: object) -> object:
        names.append(row.name)
        return make(row, *more)

    monkeypatch.setattr(rows, "make", note)
    return names


def test_only_rows_that_changed_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    now = status(20)
    page.overview(Said(now, 0.0, 1), NO_HISTORY)
    names = made(page.DATABASE_ROWS, monkeypatch)
    page.overview(Said(now, 0.0, 2), NO_HISTORY)
    assert names == []
    now["databases"][3]["pending"] += 1
    text = page.overview(Said(now, 0.0, 3), NO_HISTORY).decode()
    assert names == ["customer-003"]
    assert f'data-value="{now["databases"][3]["pending"]}"' in text
    del now["databases"][3]
    assert "customer-003" not in page.overview(Said(now, 0.0, 4), NO_HISTORY).decode()
    assert len(page.DATABASE_ROWS) == 19, "what is gone is forgotten"


def test_a_visitor_who_may_order_gets_his_own_rows() -> None:
    now = status(2)
    operator = page.Visitor(may_log_in=True, user="ada", csrf="token-of-ada")
    assert "token-of-ada" in page.overview(Said(now, 0.0, 1), NO_HISTORY, operator).decode()
    assert "token-of-ada" not in page.overview(Said(now, 0.0, 2), NO_HISTORY).decode()


def test_the_cluster_has_a_line() -> None:
    now = status(1)
    assert "cluster c" not in page.overview(Said(now, 0.0, 1), NO_HISTORY).decode()
    now["cluster"] = {"name": "c", "members": [{"own": True, "alive": True, "leases": {"root": 3}}]}
    assert "cluster c: 1 supervisor; root: 3 leased here" in page.overview(Said(now, 0.0, 2), NO_HISTORY).decode()


def test_the_rate_is_that_of_the_status_before_the_monitor_has_seen_a_minute() -> None:
    now = status(1)
    now["databases"][0]["per_minute"] = 41.6
    assert 'data-label="a minute" data-value="42"' in page.overview(Said(now, 0.0, 1), NO_HISTORY).decode()


def test_names_are_escaped_in_rows() -> None:
    now = status(1)
    now["databases"][0].update(name="<b>\x1b", last_error="<script>", state="blocked")
    text = page.overview(Said(now, 0.0, 1), NO_HISTORY).decode()
    assert "&lt;b&gt;\\x1b" in text
    assert "&lt;script&gt;" in text
    assert "<b>\\x1b" not in text
    assert "/database/%3Cb%3E%1B" in text


def test_an_update_costs_little() -> None:
    """200 databases, each with news, and 45 channels: processor time, so that a busy machine does not count."""
    now = status(200, 45)
    costs_s = []
    for number in range(12):
        for view in now["databases"]:
            view["pending"] += 1
        began_s = time.thread_time()
        page.overview(Said(now, 0.0, number), NO_HISTORY)
        costs_s.append(time.thread_time() - began_s)
    assert min(costs_s) < 0.020, costs_s


def test_the_page_of_a_database_tells_its_own_problems_and_those_of_all() -> None:
    now = {**status(40), "problems": ["the monitor does not run"]}
    jobs: dict[str, list[object]] = {"waiting": [], "failed": []}
    text = (page.database(Said(now, 0.0, 1), "customer-013", NO_HISTORY, jobs) or b"").decode()
    assert "2 problems" in text
    assert "2 databases (customer-013, customer-029): blocked: password" in text
    assert "the monitor does not run" in text
    assert "backing off" not in text


def test_what_runs_beside_the_capacity_is_what_is_in_use() -> None:
    """What databases report, each a moment later than the other, may be more."""
    view = status(4, troubled=False)
    view["channels"] = [{"name": "root", "capacity": 4, "running": 4}]
    for each in view["databases"]:
        each["running"] = 2
    said = Said(view, 0.0, 1)
    tile = re.search(r"Running</span> <b>(\d+)</b> <span>of (\d+)", page.overview(said, History()).decode())
    assert tile is not None
    assert tile.groups() == ("4", "4")
    assert " 4 of 4 running" in summary({**view, "totals": {"databases": 4}})


def test_a_young_monitor_does_not_speak_of_an_hour() -> None:
    history = History()
    for failed in (0, 0, 3):
        history.add({"a": Sample(0, 0, 0, failed)}, 0.0)
    text = page.overview(Said(status(1), 0.0, 1), history).decode()
    assert "3 in the last 30 s" in text
    for _ in range(360):
        history.add({"a": Sample(0, 0, 0, 3)}, 0.0)
    assert "0 in the last hour" in page.overview(Said(status(1), 0.0, 2), history).decode()
