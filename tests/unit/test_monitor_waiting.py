"""What jobs wait for, and how many workers Odoo should have."""

from __future__ import annotations

from typing import Any

import pytest

from qjsupervisor.monitor.waiting import REASONS, WaitingJobs, by_reason, desired_workers

RATE = {"starts": 5, "period_s": 60, "unread": False}


def status(**more: Any) -> dict[str, Any]:
    channels = [
        {"name": "root", "capacity": 10, "running": 2, "failed": 1},
        {"name": "root.slow", "capacity": 3, "running": 1},
        {"name": "root.slow.deep", "capacity": None, "running": 1},
        {"name": "root.seq", "capacity": 1, "running": 0, "sequential": True, "stopped": True, "failed": 1},
        {"name": "root.off", "capacity": 5, "running": 0, "paused": True},
        {"name": "root.rare", "capacity": 5, "running": 0, "throttle_s": 60, "throttled_for_s": 4},
        {"name": "root.busy", "capacity": 1, "running": 1},
        {"name": "root.mail", "capacity": None, "running": 0, "rate": {**RATE, "used": 5, "next_in_s": 2.0}},
        {"name": "root.sms", "capacity": None, "running": 0, "rate": {**RATE, "used": 3, "next_in_s": None}},
    ]
    up, down = [{"state": "up"}], [{"state": "down"}, {"state": "down"}]
    databases = [
        {"name": "a", "state": "ready", "targets": up, "waiting_dependencies": 5},
        {"name": "b", "state": "blocked", "targets": up, "waiting_dependencies": 1},
        {"name": "c", "state": "ready", "targets": down},
    ]
    return {"channels": channels, "databases": databases, "pauses": [], **more}


CELLS = [
    WaitingJobs("a", "root", 1, 100),
    WaitingJobs("a", "root.slow.deep", 20, 0),
    WaitingJobs("a", "root.seq", 2, 0),
    WaitingJobs("a", "root.off", 3, 0),
    WaitingJobs("a", "root.rare", 4, 0),
    WaitingJobs("a", "root.busy", 5, 0),
    WaitingJobs("b", "root", 6, 10),
    WaitingJobs("c", "root", 7, 0),
    WaitingJobs("gone", "root", 8, 0),
    WaitingJobs("a", "root.mail", 9, 0),
    WaitingJobs("a", "root.sms", 10, 0),
]


def test_each_job_is_counted_once_for_the_first_reason() -> None:
    found = by_reason(status(), CELLS)
    assert found == {
        "dependencies": 6,
        "not_due": 110,
        "held": 0,
        "modules": 0,
        "not_served": 14,
        "paused": 3,
        "closed": 0,
        "stopped": 2,
        "target_down": 7,
        "throttled": 4,
        "rate": 9,
        "full": 5,
        "guaranteed": 0,
        "own_channels": 0,
        "turn": 31,
    }
    assert tuple(found) == REASONS


def test_a_database_that_is_held_or_whose_modules_change() -> None:
    databases = [
        {"name": "a", "state": "blocked", "held": True},
        {"name": "b", "state": "blocked", "held": False, "modules": {"states": {"sale": "to upgrade"}}},
    ]
    found = by_reason(status(databases=databases), [WaitingJobs("a", "root", 3, 0), WaitingJobs("b", "root", 4, 1)])
    assert (found["held"], found["modules"], found["not_due"], found["not_served"]) == (3, 4, 1, 0)


def test_what_is_guaranteed_to_others() -> None:
    channels: list[dict[str, Any]] = [
        {"name": "root", "capacity": 4, "running": 2},
        {"name": "root.a", "capacity": None, "running": 0, "minimum": 2, "reserve": True},
        {"name": "root.b", "capacity": None, "running": 2, "pending": 5},
    ]
    databases = [
        {"name": "a", "state": "ready", "share": {"min": 1, "max": None, "reserve": False, "used": 0}, "wait_s": 2},
        {"name": "b", "state": "ready"},
    ]
    cells = [WaitingJobs("a", "root.a", 1, 0), WaitingJobs("b", "root.b", 5, 0), WaitingJobs("b", "root.a", 2, 0)]
    found = by_reason(status(channels=channels, databases=databases[1:]), cells[1:])
    assert (found["guaranteed"], found["turn"]) == (5, 2)
    for channel in channels:
        channel["minimum"] = 0
    channels[0]["running"] = 3
    found = by_reason(status(channels=channels, databases=databases), cells)
    assert (found["guaranteed"], found["turn"]) == (7, 1)


def test_what_the_channels_of_a_database_hold_back() -> None:
    """Who wants no permit of the root though jobs wait has channels that let none start: Odoo needs no worker."""
    databases = [{"name": name, "state": "ready", "wait_s": wait_s} for name, wait_s in (("a", 0), ("b", 3.0))]
    view = {"channels": [{"name": "root", "capacity": 10, "running": 2}], "databases": databases, "pauses": []}
    cells = [WaitingJobs("a", "root", 4, 0), WaitingJobs("b", "root", 5, 0)]
    for mode, held_back in (("per-database", 4), ("default", 4), ("server-wide", 0)):
        found = by_reason({**view, "mode": mode}, cells)
        assert (found["own_channels"], found["turn"]) == (held_back, 9 - held_back)
        assert desired_workers({**view, "mode": mode}, cells) == 2 + min(8, 9 - held_back)


@pytest.mark.parametrize("database", ["a", None])
def test_pauses_by_order(database: str | None) -> None:
    found = by_reason(status(pauses=[{"database": database, "channel": "root.slow"}]), CELLS)
    assert (found["paused"], found["turn"]) == (23, 11)


def test_desired_workers_are_what_runs_and_what_could_start() -> None:
    # root 1, slow 2 of 20 (room for 2), c 7 though its Odoo is down: 2 run, 8 may start in the room that root has.
    assert desired_workers(status(), CELLS) == 2 + 8
    assert desired_workers(status(), CELLS[:2]) == 2 + 1 + 2
    assert desired_workers(status(), []) == 2
    paused = status(pauses=[{"database": "a", "channel": "root"}])
    assert desired_workers(paused, CELLS[:2]) == 2


def test_a_channel_with_a_throttle_starts_one_at_a_time() -> None:
    one = status(channels=[{"name": "root", "capacity": 9, "running": 0, "throttle_s": 5}])
    assert desired_workers(one, [WaitingJobs("a", "root", 7, 0)]) == 1
