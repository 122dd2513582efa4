"""What is wrong, and what is only to be known: from a status to lines, each cause once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console, Group

from qjsupervisor.commands.status_view import render
from qjsupervisor.config.settings import LONGEST_HEARTBEAT_S
from qjsupervisor.monitor.health import find_problems, problems, warnings

ANYWAY = "`qjsupervisor resume DATABASE --anyway` runs its jobs"


def shown(renderable: Any) -> str:
    console = Console(markup=False, highlight=False, width=160, color_system="truecolor", force_terminal=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_a_cluster_tells_what_is_kept_for_whom() -> None:
    lost = {"host": "far", "pid": 7, "own": False, "alive": False, "leases": {}, "limbo": {"root": 2}}
    here = {"host": "near", "pid": 8, "own": True, "alive": True, "leases": {"root": 3}, "limbo": {}}
    cluster = {"name": "c", "members": [lost, here], "limbo": {"db": {"root": 1}}}
    view = status(cluster=cluster)
    assert problems(view) == []
    assert warnings(view) == [
        "cluster c: far:7 is lost; root 2 kept for its jobs until others have taken over its databases",
        "cluster c: root 1 of jobs of db wait for its next server",
    ]
    lost["floor"] = {"root": 2}
    assert warnings(view)[0].endswith("or you say that it never returns: `qjsupervisor cluster forget far:7`")
    assert "cluster c: 1 supervisor, 1 lost; root: 3 leased here, 0 elsewhere, 3 held by jobs of" in text_of(view)
    cluster["error"] = "no route"
    assert problems(view) == ["cluster c: no route; beyond the lease nothing starts but within coordination_floor"]


def text_of(view: Mapping[str, Any], width: int = 0) -> str:
    found = render(view, width=width)
    return shown(Group(*found.head, *found.body))


def status(**more: Any) -> dict[str, Any]:
    return {"version": "1", "pid": 1, "uptime_s": 61.0, "mode": "server-wide", "fairness": "priority", **more}


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ({"state": "ready", "heartbeat_age_s": 0.1, "last_error": "long ago"}, []),
        ({"state": "ready", "heartbeat_age_s": LONGEST_HEARTBEAT_S + 2}, []),  # idle, on a busy machine
        ({"state": "ready", "heartbeat_age_s": 31.0}, ["db: no heartbeat for 31 s"]),
        ({"state": "standby"}, []),
        ({"state": "starting"}, []),
        ({"state": "starting", "last_error": "no connection"}, ["db: starting: no connection"]),
        ({"state": "backing off", "last_error": "exit code 1"}, ["db: backing off: exit code 1"]),
        ({"state": "failed", "last_error": None}, ["db: failed"]),
        ({"state": "blocked", "last_error": "to upgrade"}, ["db: blocked: to upgrade"]),
        ({"state": "stopping"}, []),
    ],
)
def test_problems(database: dict[str, Any], expected: list[str]) -> None:
    assert problems(status(databases=[{"name": "db", **database}])) == expected


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ({}, []),
        ({"overdue": 1}, ["db: 1 job runs for longer than max_runtime"]),
        ({"overdue": 2}, ["db: 2 jobs run for longer than max_runtime"]),
        ({"modules": {"states": {"sale": "to upgrade"}, "for_s": 9.0, "overdue": False, "anyway": False}}, []),
        (
            {"modules": {"states": {"sale": "to upgrade"}, "for_s": 7200.0, "overdue": True, "anyway": False}},
            [f"db: module sale is 'to upgrade', for 2 h 00 min now: does that hang? {ANYWAY}"],
        ),
        (
            {"modules": {"states": {"sale": "to upgrade"}, "for_s": 7200.0, "overdue": True, "anyway": True}},
            ["db: jobs are run, by order, although module sale is 'to upgrade'"],
        ),
    ],
)
def test_warnings(database: dict[str, Any], expected: list[str]) -> None:
    view = status(databases=[{"name": "db", "state": "ready", **database}])
    assert warnings(view) == expected
    for line in expected:
        assert line.removeprefix("db: ") in text_of(view)


def test_a_cause_that_databases_share_is_told_once() -> None:
    """With how many it concerns, and the first of them; what one database has alone keeps a line of its own."""
    names = [f"db{number:03}" for number in range(200)]
    views: list[dict[str, Any]] = [{"name": name, "state": "blocked", "last_error": "locked"} for name in names[:199]]
    views.append({"name": names[199], "state": "blocked", "last_error": "to upgrade"})
    many, one = find_problems(status(databases=views))
    assert many.text == "199 databases (db000, db001, db002 and 196 more): blocked: locked"
    assert list(many.databases) == names[:199]
    assert one.text == "db199: blocked: to upgrade"


def test_a_postgresql_that_is_down_is_told_once() -> None:
    """What its databases say meanwhile follows from it; what is wrong with one besides does not."""
    here: dict[str, Any] = {"postgresql": "pg:5432", "state": "starting", "last_error": "lost"}
    views = [
        {"name": "a", **here},
        {"name": "b", **here, "state": "failed"},
        {"name": "c", **here, "postgresql": "other:5432"},
    ]
    server = {"server": "pg:5432", "state": "down", "reason": "connection refused"}
    found = problems(status(databases=views, postgresql=[server, {"server": "other:5432", "state": "up"}]))
    assert found == [
        "PostgreSQL at pg:5432 is down: connection refused; 2 databases wait for it",
        "c: starting: lost",
    ]


def test_an_odoo_that_is_down_is_told_once() -> None:
    down = {"url": "http://o:1", "state": "down", "reason": "refused", "shared": True}
    views = [{"name": name, "state": "ready", "targets": [down]} for name in "abc"]
    assert problems(status(databases=views)) == ["Odoo at http://o:1 is down: refused; 3 databases wait for it"]


@pytest.mark.parametrize(
    ("stoppers", "own", "expected"),
    [
        (
            {"a": [{"channel": "root.seq", "uuid": "u1", "failed": 1, "shared": True}]},
            {},
            "channel root.seq is stopped by failed job u1 of a: `qjsupervisor requeue a u1`, or cancel in Odoo",
        ),
        (
            {"a": [{"channel": "root.seq", "uuid": "u1", "failed": 1, "shared": True}], "b": []},
            {},
            "channel root.seq is stopped by failed jobs u1 of a, b: `qjsupervisor requeue a u1`, or cancel in Odoo",
        ),
        (
            {},
            {"a": [{"channel": "root.own", "uuid": "u2", "failed": 3, "shared": False}]},
            "channel root.own of a is stopped by failed job u2: `qjsupervisor requeue a u2`, or cancel in Odoo",
        ),
        (
            {"a": []},
            {},
            (
                "channel root.seq is stopped by failed jobs of a:"
                " `qjsupervisor requeue a --state failed --channel root.seq`, or cancel in Odoo"
            ),
        ),
    ],
)
def test_a_stopped_channel_names_the_job(
    stoppers: dict[str, list[dict[str, Any]]], own: dict[str, list[dict[str, Any]]], expected: str
) -> None:
    views = [{"name": name, "state": "ready", "stopped": stops} for name, stops in {**stoppers, **own}.items()]
    channels = [{"name": "root.seq", "stopped_by": sorted(stoppers)}]
    (found,) = find_problems(status(databases=views, channels=channels))
    assert (found.text, found.is_warning) == (expected, True)


def test_an_odoo_that_is_down_is_a_warning_where_there_is_another() -> None:
    down = {"url": "http://o:1", "state": "down", "reason": "refused", "shared": True}
    views = [{"name": name, "state": "ready", "targets": [{"url": "http://o:2", "state": "up"}, down]} for name in "ab"]
    assert problems(status(databases=views)) == []
    assert warnings(status(databases=views)) == ["Odoo at http://o:1 is down: refused; its databases have another one"]


def test_a_countdown_is_no_part_of_the_reason() -> None:
    """It would be news each second, and keep databases of one cause apart."""
    views = [
        {"name": name, "state": "failed", "last_error": f"no password; looked at again in {name} s"} for name in "12"
    ]
    assert [each.text for each in find_problems({"databases": views})] == ["2 databases (1, 2): failed: no password"]
