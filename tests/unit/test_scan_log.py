"""What the log says of scans: a line for each change."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from structlog.typing import EventDict

from qjsupervisor.master.scan_log import ScanLog
from tests.unit.supervised import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_server_that_is_down_has_one_line_for_all_its_databases(rig: Rig, log_events: list[EventDict]) -> None:
    """Where there is no worker yet that would tell it; what is wrong with a database alone has a line of its own."""
    log = ScanLog(rig.fleet, rig.database_log)
    reason = "PostgreSQL at pg:5432 cannot be reached: Connection refused"
    config = SimpleNamespace(db_names=("a", "b"), server_of=lambda _database: "pg:5432")
    for name in "ab":
        log.take({"database": name, "verdict": "unreachable", "reason": reason, "server_down": "pg:5432"}, config)
        log.unserved(name, reason, of_server=True)
    log.unserved("c", "no password", of_server=False)
    for name in "ab":
        log.take({"database": name, "verdict": "ready"}, config)
        log.cleared(name)
    rig.step(1)
    shown = [each for each in log_events if each["log_level"] != "debug"]
    told = [(each["log_level"], each["event"], each.get("reason")) for each in shown]
    assert told == [
        ("error", "postgresql_down", "Connection refused"),
        ("info", "postgresql_recovered", None),
        ("warning", "database_unserved", "no password"),
    ]


def test_a_server_that_workers_watch_is_theirs_to_report(rig: Rig, log_events: list[EventDict]) -> None:
    rig.scan(a="ready")
    server = rig.fleet.workers["a"].settings.server
    log = ScanLog(rig.fleet, rig.database_log)
    log.take({"error": "the databases cannot be listed: ...", "server_down": server}, rig.rescan.config)
    log.failed("the databases cannot be listed: ...", of_server=True)
    assert not [each for each in log_events if each["event"] in ("postgresql_down", "scan_failed")]


def test_databases_that_cannot_be_listed_have_a_line_for_each_reason(rig: Rig, log_events: list[EventDict]) -> None:
    """An error: somebody has to see to it."""
    log = ScanLog(rig.fleet, rig.database_log)
    for reason in ("password", "password", "no such database"):
        log.failed(reason, of_server=False)
    log.completed()
    log.failed("password", of_server=False)
    told = [(each["log_level"], each["reason"]) for each in log_events if each["event"] == "scan_failed"]
    assert told == [("error", "password"), ("error", "no such database"), ("error", "password")]


@pytest.mark.parametrize(
    ("message", "level"),
    [
        ({"verdict": "unreachable", "refused": True}, "error"),
        ({"verdict": "unreachable", "refused": False}, "warning"),
        ({"verdict": "blocked"}, "error"),
    ],
)
def test_what_will_not_pass_by_itself_is_an_error(
    rig: Rig, log_events: list[EventDict], message: dict[str, object], level: str
) -> None:
    rig.rescan.request(rig.now_s)
    rig.step()
    for name in ("a", "b"):
        rig.scout.pipe.said.append({"database": name, "reason": "why", **message})
    rig.loop.registered[rig.scout.pipe](rig.now_s)
    rig.step(1)
    told = [each for each in log_events if each["event"] == "database_unserved"]
    assert [(each["log_level"], each["names"], each["reason"]) for each in told] == [(level, "a, b", "why")]
