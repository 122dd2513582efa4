"""The status dict: an interface."""

from __future__ import annotations

import json
from typing import Any

from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.master.pauses import Scope
from qjsupervisor.master.snapshot import MasterSnapshot, WorkerView
from qjsupervisor.master.status_report import build_status
from qjsupervisor.monitor.health import problems, warnings
from qjsupervisor.monitor.metrics import MetricSources, render
from qjsupervisor.states import TargetHealth, TargetState, WorkerState
from tests.unit.supervised import ChannelView, FakeTable, Holder, ServerView, View

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
    servers: list[ServerView] | None = None,
    **snapshot: Any,
) -> dict[str, Any]:
    table = FakeTable()
    table.views = views or {}
    table.channels = channels or []
    table.servers = servers or []
    table.held = {"root": [Holder("db1", 3, 1)]}
    workers = [worker(f"db{slot}", slot) for slot in sorted(table.views)]
    return build_status(
        settings or config(),
        table,
        MasterSnapshot(**{"pid": 1, "uptime_s": 3.21, "now_ns": NOW_NS, "workers": workers, **snapshot}),
    )


def test_an_address_that_leaves_requests_open_is_named_once_for_all() -> None:
    workers = [worker("db0", 0), worker("db1", 1)]
    silent = ServerView(URL, UP, users=2, unanswered=3)
    found = status({0: View(), 1: View()}, servers=[silent], workers=workers)
    assert [each["unanswered"] for each in found["targets"]] == [3]
    assert problems(found) == []
    assert warnings(found) == [
        f"Odoo at {URL} does not answer: 3 jobs were over, and the request open until it was let go; does it hang?"
    ]
    assert f'qjsupervisor_target_unanswered{{url="{URL}"}} 3.0' in render(MetricSources(found)).decode()
    assert warnings(status({0: View()}, servers=[ServerView(URL, UP)])) == []


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


URL = "http://localhost:8069"
OTHER = "http://b:2"


def finds(name: str, slot: int, state: TargetState, reason: str = "", url: str = URL, **changes: Any) -> WorkerView:
    """A worker that tells how it finds its target."""
    health = TargetHealth(url, state, 3, NOW_NS / NS + 9 if state is DOWN else 0.0, reason)
    return worker(name, slot)._replace(targets=[health], **changes)


def test_a_target_is_what_all_databases_share() -> None:
    """What one database's jobs meet there is told of that database, by name."""
    workers = [finds("db0", 0, UP), finds("db1", 1, DOWN, "HTTP 303: dbfilter")]
    found = status({0: View(), 1: View()}, servers=[ServerView(URL, UP, users=2)], workers=workers)
    target = found["target"]
    assert (target["url"], target["state"], target["reason"], target["failures"]) == (URL, "up", None, 0)
    assert (target["databases"], target["refuses"]) == (2, ["db1"])
    well, ill = (each["target"] for each in found["databases"])
    assert (well["state"], ill["state"], ill["reason"], ill["shared"]) == ("up", "down", "HTTP 303: dbfilter", False)
    assert ill["retry_in_s"] == 9.0


def test_a_target_that_is_down_is_so_for_all() -> None:
    down = ServerView(URL, DOWN, 7, NOW_NS - 65 * NS, NOW_NS + 4 * NS, "Connection refused", 2)
    workers = [finds("db0", 0, UP), finds("db1", 1, UNKNOWN)]
    found = status({0: View(), 1: View()}, servers=[down], workers=workers)
    expected = {"url": URL, "state": "down", "failures": 7, "retry_in_s": 4.0, "reason": "Connection refused"}
    for view in (found["target"], *(each["target"] for each in found["databases"])):
        assert {key: view[key] for key in expected} == expected
        assert view["down_for_s"] == 65.0
    assert found["target"]["refuses"] == []


def test_the_reason_of_a_database_is_none_of_its_target() -> None:
    views = {0: View(message="queue_job is 'to upgrade'")}
    found = status(views, servers=[ServerView(URL, DOWN, 1, NOW_NS, NOW_NS, "Connection refused")])
    assert found["target"]["reason"] == "Connection refused"
    assert "upgrade" not in str(problems(found))
    blocked = worker("db0", 0, WorkerState.BLOCKED)._replace(last_error="queue_job is 'to upgrade'")
    found = status(views, servers=[ServerView(URL, UP)], workers=[blocked])
    assert problems(found) == ["db0: blocked: queue_job is 'to upgrade'"]


def test_a_problem_says_whether_it_is_of_the_target_or_of_one_database() -> None:
    workers = [finds("db0", 0, UP), finds("db1", 1, DOWN, "HTTP 404")]
    found = status({0: View(), 1: View()}, servers=[ServerView(URL, UP, users=2)], workers=workers)
    assert problems(found) == [f"db1: Odoo at {URL} does not run its jobs: HTTP 404"]
    found = status({0: View(), 1: View()}, servers=[ServerView(URL, DOWN, 1, 1, 1, "refused", 2)], workers=workers)
    assert problems(found) == [f"Odoo at {URL} is down: refused; 2 databases wait for it"]


def test_each_target_for_itself() -> None:
    settings = config(targets="db0:https://a:1,*:http://b:2")
    servers = [ServerView("https://a:1", UP), ServerView(OTHER, DOWN, 1, 1, 1, "refused")]
    found = status({0: View(), 1: View()}, settings=settings, servers=servers)
    assert [(each["url"], each["state"]) for each in found["targets"]] == [("https://a:1", "up"), (OTHER, "down")]
    assert found["target"]["url"] == "https://a:1"


def test_a_target_that_nobody_asked_is_unknown() -> None:
    found = status()
    assert (found["target"]["state"], found["target"]["url"]) == ("unknown", URL)
    assert status({0: View()})["target"]["state"] == "unknown"


def test_rates_of_channels() -> None:
    full = ChannelView("root", rate=5, rate_period_s=60.0, rate_used=5, rate_opens_ns=NOW_NS + 4 * NS)
    found = status(channels=[full, ChannelView("root.a"), ChannelView("root.b", rate=5, rate_opens_ns=-1)])["channels"]
    assert found[0]["rate"] == {"starts": 5, "period_s": 60.0, "used": 5, "next_in_s": 4.0, "unread": False}
    assert found[1]["rate"] is None
    assert (found[2]["rate"]["unread"], found[2]["rate"]["next_in_s"]) == (True, None)


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
    by = {Scope(None, "root.slow"): "admin"}
    found = status({1: View(), 2: View()}, [ChannelView("root"), ChannelView("root.slow")], pauses=pauses, paused_by=by)
    assert found["pauses"] == [
        {"database": None, "channel": "root.slow", "remaining_s": None, "released": False, "by": "admin"},
        {"database": "db1", "channel": "root", "remaining_s": 30.0, "released": False, "by": None},
    ]
    assert [each["paused"] for each in found["channels"]] == [False, True]
    assert [each["paused"] for each in found["databases"]] == [True, False]


def test_no_heartbeat_is_none() -> None:
    found = status({1: View(heartbeat_ns=0, waiting_since_ns=NOW_NS - 2 * NS)})
    assert found["databases"][0]["heartbeat_age_s"] is None
    assert found["databases"][0]["wait_s"] == 2.0


def test_a_channel_that_a_failed_job_stops_says_whose() -> None:
    """It is something to see to, and no database's service is less for it."""
    channels = [
        ChannelView("root", failed=3),
        ChannelView("root.seq", sequential=True, failed=3, stopped_by=("a", "b")),
    ]
    found = status(channels=channels)
    root, seq = found["channels"]
    assert (root["stopped"], root["stopped_by"]) == (False, [])
    assert (seq["stopped"], seq["stopped_by"]) == (True, ["a", "b"])
    assert problems(found) == []
    (warning,) = warnings(found)
    assert warning.startswith("channel root.seq is stopped by failed jobs of a, b:")


def test_how_long_the_oldest_job_waits() -> None:
    waits = [View(oldest_us=1_000_000_000), View(oldest_us=0), View(oldest_us=-(1 << 62))]
    found = status(dict(enumerate(waits, 1)), wall_s=1042.0)
    assert [view["oldest_pending_s"] for view in found["databases"]] == [42.0, 0, 10 * 365 * 86400.0]


def test_the_rate_is_that_of_the_time_since_the_mark() -> None:
    minute_ago = NOW_NS - 60 * 10**9
    views = [
        View(finished=150, rate_finished=30, rate_since_ns=minute_ago),
        View(finished=8, rate_finished=8, rate_since_ns=minute_ago),
        View(finished=3, rate_since_ns=NOW_NS - 10**8),  # three jobs in its first tenth of a second
        View(finished=3),
    ]
    found = status(dict(enumerate(views)), unserved={"x": "why"})
    assert [each["per_minute"] for each in found["databases"]] == [120.0, 0.0, 18.0, 0.0, 0.0]
    assert found["totals"]["per_minute"] == 138.0
    assert found["totals"]["states"] == {"ready": 4, "failed": 1}


def test_a_postgresql_that_is_down_is_told_once_and_never_as_a_target() -> None:
    """Neither does the scan, which meets it too, tell it again."""
    down = ServerView("postgresql://pg:5432", DOWN, 3, 1, 2, "Connection refused", 2)
    told: dict[str, Any] = {"scan_error": "the databases cannot be listed: ...", "scan_lacks": "pg:5432"}
    found = status(servers=[down, ServerView(URL, UP)], **told)
    (server,) = found["postgresql"]
    assert (server["server"], server["state"], server["reason"]) == ("pg:5432", "down", "Connection refused")
    assert server["databases"] == 2
    assert found["problems"] == []
    assert all(each["url"] == URL for each in found["targets"])
    assert status(servers=[down._replace(state=UP)], **told)["problems"] == ["the databases cannot be listed: ..."]


def test_what_subchannels_and_the_channels_of_databases_are_given() -> None:
    environ = {"ODOO_RC": "/dev/null"}
    channels = {"ODOO_QUEUE_JOB_CHANNELS": "root:4,root.mail:3:rate_default=2/1m:capacity_default=1"}
    shown = status(
        settings=load({}, environ | channels), channels=[ChannelView(name="root.mail"), ChannelView(name="x")]
    )
    mail, other = shown["channels"]
    assert mail["rate_default"] == {"starts": 2, "period_s": 60.0}
    assert (mail["capacity_default"], mail["sequential_default"]) == (1, False)
    assert (other["rate_default"], other["capacity_default"]) == (None, None)
    assert shown["rules"]["channel_options"] == []
    own = load({"channel_options": "mail:max=50%:min=1:reserve"}, environ | {"ODOO_QUEUE_JOB_MAX_CAPACITY": "4"})
    assert status(settings=own)["rules"]["channel_options"] == [
        {"name": "root.mail", "capacity": "50%", "minimum": "1", "reserve": True}
    ]
