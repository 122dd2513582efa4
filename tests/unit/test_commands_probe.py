"""The line for a monitoring system."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from qjsupervisor.commands import client, probe
from tests.monitor_status import status

CONFIG: Any = object()


def calm(databases: int) -> dict[str, Any]:
    """Nothing is wrong, and of all databases but the first nothing is to be told."""
    view = status(databases, troubled=False)
    view["pauses"] = []
    for each in view["databases"][1:]:
        each.update(pending=0, running=0, failed=0, oldest_pending_s=0)
    return view


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
    assert re.match(r"CRITICAL - \d problems, the first: it / hurts\\n \| databases=200;;;0 ", first)
    assert len(more) == int(first.split()[2]) - 1
    reasons = [line for line in more if "password" in line]
    assert len(reasons) == 3, "one for each state, whoever is in it"
    assert reasons[0].startswith("12 databases (customer-012, customer-028, customer-044 and 9 more): backing off: ")
    assert plugin(monkeypatch, client.Unavailable("no supervisor runs")) == 2
    assert capsys.readouterr().out == "CRITICAL - no supervisor runs\n"
