"""One task in many databases: in order, in parallel, and a failure affects its own database only."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from qjsupervisor.commands import databases
from qjsupervisor.commands.databases import Done, in_all
from qjsupervisor.errors import DatabaseGone, DatabaseUnavailable

CONFIG: Any = object()


def work(name: str) -> str:
    if name == "away":
        raise DatabaseUnavailable(name, "away")
    if name == "plain":
        raise DatabaseGone(name, "queue_job is not installed")
    return name.upper()


def outcome(done: Done[str]) -> tuple[str, str | None, str]:
    return done.database, done.result, str(done.error or "")


def test_those_that_a_supervisor_would_scan_but_without_a_queue_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "list_databases", lambda _config: ["b", "plain", "away", "a"])
    assert [outcome(done) for done in in_all(CONFIG, work)] == [
        ("a", "A", ""), ("away", None, "away"), ("b", "B", ""),
    ]  # fmt: skip


def test_of_those_that_are_named_none_is_passed_over() -> None:
    assert [outcome(done) for done in in_all(CONFIG, work, ["plain", "a"])] == [
        ("plain", None, "queue_job is not installed"), ("a", "A", ""),
    ]  # fmt: skip


def test_one_that_takes_long_holds_up_no_other() -> None:
    second_ran = threading.Event()

    def waits(name: str) -> bool:
        if name == "second":
            second_ran.set()
        return second_ran.wait(10)

    assert [done.result for done in in_all(CONFIG, waits, ["first", "second"])] == [True, True]


def test_a_bug_is_no_outcome() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_all(CONFIG, lambda _name: 1 // 0, ["a"]))
