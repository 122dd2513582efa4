"""The status dict: an interface."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.master.pauses import Scope
from qjsupervisor.master.status_report import Snapshot, WorkerView, build_status
from qjsupervisor.states import TargetState, WorkerState
from tests.unit.supervised import ChannelView, FakeTable, Holder, View

NS = 1_000_000_000
NOW_NS = 5000 * NS
UP, DOWN, UNKNOWN = TargetState.UP, TargetState.DOWN, TargetState.UNKNOWN


def config(**own: str) -> Config:
    return load(
        own,
        {"ODOO_QUEUE_JOB_CHANNELS": "root:4", "ODOO_RC": "/dev/null", "ODOO_QUEUE_JOB_HTTP_AUTH_PASSWORD": "s3cret"},
    )


def worker(name: str, slot: int, state: WorkerState = WorkerState.READY, pid: int | None = 7) -> WorkerView:
    return WorkerView(name, slot, state, pid, 0, None, None)


def status(
    views: dict[int, View] | None = None,
    channels: list[ChannelView] | None = None,
    settings: Config | None = None,
    **snapshot: Any,
) -> dict[str, Any]:
    table = FakeTable()
    table.views = views or {}
    table.channels = channels or []
    table.held = {"root": [Holder("db1", 3, 1)]}
    workers = [worker(f"db{slot}", slot) for slot in sorted(table.views)]
    return build_status(
        settings or config(),
        table,
        Snapshot(**{"pid": 1, "uptime_s": 3.21, "now_ns": NOW_NS, "workers": workers, **snapshot}),
    )


def test_the_keys_of_the_design_are_all_there() -> None:
    found = status(
        {1: View(pending=12, running=4, failed=1, dispatched=1042, heartbeat_ns=NOW_NS)}, [ChannelView("root")]
    )
    assert {"version", "pid", "uptime_s", "mode", "fairness", "databases", "channels", "target"} <= set(found)
    assert (found["uptime_s"], found["mode"], found["fairness"]) == (3.2, "server-wide", "round-robin")
    (database,) = found["databases"]
    expected = {
        "name": "db1",
        "state": "ready",
        "pid": 7,
        "restarts": 0,
        "last_error": None,
        "pending": 12,
        "running": 4,
        "failed": 1,
        "dispatched": 1042,
        "heartbeat_age_s": 0.0,
    }
    assert {key: database[key] for key in expected} == expected
    keys = {"name", "capacity", "running", "pending", "failed", "sequential", "throttle_s", "paused"}
    assert keys <= set(found["channels"][0])
    assert {"url", "state", "failures", "retry_in_s"} <= set(found["target"])


def test_it_is_json_and_holds_no_password() -> None:
    text = json.dumps(status({1: View()}, [ChannelView("root")], unserved={"x": "why"}))
    assert "s3cret" not in text


def test_lines_that_the_masters_log_lost_are_counted() -> None:
    assert status()["log_lines_lost"] == 0
    assert status(log_lines_lost=3)["log_lines_lost"] == 3


def test_a_database_without_a_worker_has_the_same_keys() -> None:
    found = status({1: View()}, unserved={"a": "queue_job is 'to upgrade'"})
    unserved, served = found["databases"]
    assert set(unserved) == set(served)
    assert (unserved["name"], unserved["state"]) == ("a", "failed")
    assert unserved["last_error"] == "queue_job is 'to upgrade'"


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], "unknown"),
        ([UNKNOWN, UNKNOWN], "unknown"),
        ([UNKNOWN, UP], "up"),
        ([UP, UP], "up"),
        ([UP, DOWN], "down"),
        ([DOWN, UP], "down"),
        ([DOWN, UNKNOWN], "down"),
    ],
)
def test_the_target_over_all_databases(states: list[TargetState], expected: str) -> None:
    found = status({slot: View(target_state=state) for slot, state in enumerate(states)})
    assert found["target"]["state"] == expected
    assert found["target"]["url"] == "http://localhost:8069"


def test_the_worst_failures_and_the_next_try() -> None:
    found = status(
        {
            0: View(target_state=DOWN, target_failures=3, target_retry_ns=NOW_NS + 9 * NS, message="refused"),
            1: View(target_state=DOWN, target_failures=7, target_retry_ns=NOW_NS + 4 * NS, message="refused"),
            2: View(target_state=UP, target_retry_ns=NOW_NS - NS),
        }
    )
    target = found["target"]
    assert (target["failures"], target["retry_in_s"], target["reason"]) == (7, 4.0, "refused")


def test_each_target_for_itself() -> None:
    settings = config(targets="db0:https://a:1,*:http://b:2")
    found = status({0: View(target_state=UP), 1: View(target_state=DOWN)}, settings=settings)
    assert [(each["url"], each["state"]) for each in found["targets"]] == [
        ("https://a:1", "up"),
        ("http://b:2", "down"),
    ]
    assert found["target"]["url"] == "https://a:1"


def test_channels_with_their_holders_and_times() -> None:
    found = status(
        channels=[
            ChannelView("root", running=3, throttled_until_ns=NOW_NS + 3 * NS // 2),
            ChannelView("root.old", retired=True),
            ChannelView("root.older", retired=True, running=1),
            ChannelView("root.over", throttled_until_ns=NOW_NS - 1),
        ]
    )
    root, older, over = found["channels"]
    assert root["throttled_for_s"] == 1.5
    assert root["holders"] == [{"database": "db1", "running": 3, "pending": 1}]
    assert older["name"] == "root.older"
    assert over["throttled_for_s"] is None


def test_pauses() -> None:
    pauses = [(Scope(None, "root.slow"), None), (Scope("db1", "root"), NOW_NS / NS + 30)]
    found = status({1: View(), 2: View()}, [ChannelView("root"), ChannelView("root.slow")], pauses=pauses)
    assert found["pauses"] == [
        {"database": None, "channel": "root.slow", "remaining_s": None, "released": False},
        {"database": "db1", "channel": "root", "remaining_s": 30.0, "released": False},
    ]
    assert [each["paused"] for each in found["channels"]] == [False, True]
    assert [each["paused"] for each in found["databases"]] == [True, False]


def test_no_heartbeat_is_none() -> None:
    found = status({1: View(heartbeat_ns=0, waiting_since_ns=NOW_NS - 2 * NS)})
    assert found["databases"][0]["heartbeat_age_s"] is None
    assert found["databases"][0]["wait_s"] == 2.0
