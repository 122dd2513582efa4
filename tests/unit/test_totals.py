"""Sums over databases."""

from __future__ import annotations

from qjsupervisor.master.totals import totals


def test_of_nothing() -> None:
    assert totals([]) == {
        "databases": 0, "ready": 0, "states": {}, "pending": 0, "running": 0, "failed": 0, "not_due": 0,
        "waiting_dependencies": 0, "overdue": 0, "per_minute": 0, "oldest_pending_s": 0,
            "phases": {"awake": 0, "dozing": 0, "asleep": 0},
    }  # fmt: skip


def test_what_is_unknown_counts_as_nothing() -> None:
    found = totals(
        [
            {"state": "ready", "pending": 3, "running": 1, "per_minute": 1.25, "oldest_pending_s": 7.5, "overdue": 1},
            {"state": "ready", "pending": None, "failed": 2, "per_minute": 0.55, "oldest_pending_s": None},
            {"state": "blocked", "waiting_dependencies": 4},
        ]
    )
    assert (found["databases"], found["ready"], found["states"]) == (3, 2, {"ready": 2, "blocked": 1})
    assert (found["pending"], found["running"], found["failed"], found["overdue"]) == (3, 1, 2, 1)
    assert (found["per_minute"], found["oldest_pending_s"], found["waiting_dependencies"]) == (1.8, 7.5, 4)
