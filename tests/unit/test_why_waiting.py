"""Why a job waits: every reason, by tables of cases."""

from __future__ import annotations

import math
from typing import Any

import pytest

from qjsupervisor.channelspec import ChannelSpec, Rate
from qjsupervisor.commands.why_waiting import Explainer, JobFacts, TreeFacts
from qjsupervisor.text import seconds

SPECS = (
    ChannelSpec(name="root", capacity=4),
    ChannelSpec(name="root.slow", capacity=2, capacity_default=1),
    ChannelSpec(name="root.line", capacity=1, sequential=True),
    ChannelSpec(name="root.shut", capacity=None, paused=True),
    ChannelSpec(name="root.slow.rare", capacity=None, throttle_s=10),
)


def database(name: str, least: int, most: int | None, used: int, *, reserve: bool = False) -> dict[str, Any]:
    share = {"min": least, "max": most, "reserve": reserve, "used": used}
    return {"name": name, "state": "ready", "last_error": None, "share": share}


RATE = {"starts": 100, "period_s": 60.0, "unread": False}


def channel(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "capacity": None, "running": 0, "pending": 0, "failed": 0, "paused": False, **more}


def status(**more: Any) -> dict[str, Any]:
    """A supervisor in which nothing is in the way."""
    return {
        "mode": "server-wide",
        "databases": [{"name": "db1", "state": "ready", "last_error": None}],
        "channels": [channel("root", capacity=4), channel("root.slow", capacity=2)],
        "target": {"url": "http://localhost:8069", "state": "up", "failures": 0, "retry_in_s": None},
        **more,
    }


def tree(**more: Any) -> TreeFacts:
    return TreeFacts(**{"database": "db1", "specs": {spec.name: spec for spec in SPECS}, **more})


def pending(**more: Any) -> JobFacts:
    return JobFacts(**{"uuid": "u1", "state": "pending", "channel": "root.slow", **more})


def why(job: JobFacts, view: dict[str, Any] | None, branch: TreeFacts | None = None) -> list[tuple[str, str]]:
    return [(reason.code, reason.text) for reason in Explainer(view, branch or tree()).explain(job)]


def in_state(state: str, **more: Any) -> dict[str, Any]:
    return status(databases=[{"name": "db1", "state": state, "last_error": None, **more}])


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (pending(state="done"), []),
        (pending(state="cancelled"), []),
        (pending(state="failed"), []),
        (pending(state="no such state\x1b[2J"), []),
        (pending(state="started", since_s=200), [("running", "runs in Odoo for 3 min")]),
        (pending(state="started"), [("running", "runs in Odoo")]),
        (pending(state="enqueued", since_s=0.5), [("sent", "dispatched to Odoo for 0.5 s")]),
        (
            pending(state="enqueued", since_s=42),
            [("sent", "dispatched to Odoo for 42 s and not begun: are all its workers busy?")],
        ),
        (
            pending(state="wait_dependencies", parents=("p1 (pending)", "p2 (failed)")),
            [("dependencies", "depends on p1 (pending), p2 (failed)")],
        ),
        (
            pending(state="wait_dependencies"),
            [("dependencies", "all jobs it depends on are over: Odoo should have set it pending")],
        ),
    ],
)
def test_not_pending(job: JobFacts, expected: list[tuple[str, str]]) -> None:
    assert why(job, status()) == expected


@pytest.mark.parametrize(
    ("view", "code", "text"),
    [
        (None, "no supervisor", "no supervisor answers: nothing is dispatched"),
        (
            status(databases=[]),
            "not served",
            "the supervisor does not serve this database: see `qjsupervisor check`",
        ),
        (
            in_state("standby"),
            "standby",
            "its worker is standby: another runner holds the database's leader lock",
        ),
        (
            in_state("standby", reason="lock of jobrunner"),
            "standby",
            "its worker is standby: lock of jobrunner",
        ),
        (in_state("starting"), "starting", "its worker is starting"),
        (in_state("blocked", reason="to upgrade"), "blocked", "its worker is blocked: to upgrade"),
        (
            in_state("backing off", last_error="exit code 70"),
            "backing off",
            "its worker is backing off: exit code 70",
        ),
        (in_state("failed", last_error="no trigger"), "failed", "its worker is failed: no trigger"),
    ],
)
def test_whole_database(view: dict[str, Any] | None, code: str, text: str) -> None:
    """Nothing else matters then: one reason."""
    assert why(pending(eta_in_s=60.0), view) == [(code, text)]


@pytest.mark.parametrize(
    ("job", "view", "branch", "expected"),
    [
        pytest.param(pending(), status(), tree(), [("next", "next in turn")], id="next"),
        pytest.param(pending(ahead=1), status(), tree(), [("behind", "1 better job of its channel first")], id="1"),
        pytest.param(pending(ahead=7), status(), tree(), [("behind", "7 better jobs of its channel first")], id="7"),
        pytest.param(
            pending(eta_in_s=300.0, eta="2030-01-01 00:00:00"),
            status(),
            tree(),
            [("eta", "due in 5 min, at 2030-01-01 00:00:00 UTC")],
            id="eta",
        ),
        pytest.param(
            pending(eta_in_s=math.inf, eta="infinity"),
            status(),
            tree(),
            [("eta", "never due")],
            id="infinity",
        ),
        pytest.param(pending(eta_in_s=-1.0), status(), tree(), [("next", "next in turn")], id="eta over"),
        pytest.param(
            pending(channel="root.shut.below"),
            status(),
            tree(),
            [("paused", "channel root.shut is paused in the configuration")],
            id="paused above",
        ),
        pytest.param(
            pending(channel="root.shut"),
            status(mode="per-database"),
            tree(is_own=True),
            [("paused", "channel root.shut is paused in the database")],
            id="paused in the database",
        ),
        pytest.param(
            pending(),
            status(pauses=[{"database": "db1", "channel": "root.slow", "remaining_s": 61.0}]),
            tree(),
            [("paused", "channel root.slow of db1 is paused by command, for another 61 s")],
            id="paused for a time",
        ),
        pytest.param(
            pending(),
            status(pauses=[{"database": None, "channel": "root", "remaining_s": None}]),
            tree(),
            [("paused", "everything of all databases is paused by command, until `qjsupervisor resume`")],
            id="all paused",
        ),
        pytest.param(
            pending(),
            status(
                pauses=[
                    {"database": "db2", "channel": "root", "remaining_s": None},
                    {"database": "db1", "channel": "root.line", "remaining_s": None},
                ]
            ),
            tree(),
            [("next", "next in turn")],
            id="others paused",
        ),
        pytest.param(
            pending(),
            status(target={"url": "http://odoo:8069", "state": "down", "failures": 3, "retry_in_s": 12.0}),
            tree(),
            [("target down", "Odoo at http://odoo:8069 is down, probed again in 12 s")],
            id="target down",
        ),
        pytest.param(
            pending(channel="root.line"),
            status(),
            tree(failed={"root.line": ["f1"]}),
            [("sequential", "sequential channel root.line stopped at a failed job: f1")],
            id="sequential",
        ),
        pytest.param(
            pending(channel="root.line.sub"),
            status(channels=[channel("root.line", capacity=1, sequential=True, failed=2)]),
            tree(),
            [("sequential", "sequential channel root.line stopped at a failed job: 2 in other databases")],
            id="sequential, elsewhere",
        ),
        pytest.param(
            pending(channel="root.line", not_due="later"),
            status(),
            tree(),
            [("sequential", "sequential channel root.line waits for job later, which is not due")],
            id="sequential, not due",
        ),
        pytest.param(
            pending(not_due="later"),
            status(),
            tree(),
            [("next", "next in turn")],
            id="not sequential: overtaken",
        ),
        pytest.param(
            pending(),
            status(channels=[channel("root.slow", capacity=2, throttled_for_s=3.2)]),
            tree(),
            [("throttled", "channel root.slow is throttled for another 3.2 s")],
            id="throttled",
        ),
        pytest.param(
            pending(),
            in_state("failed", last_error="a neutralised copy", phase=None),
            tree(),
            [("failed", "the database is not served: a neutralised copy")],
            id="not served",
        ),
        pytest.param(
            pending(),
            status(databases=[database("db1", 0, 2, 2)]),
            tree(),
            [("most", "db1 runs 2 jobs, its most is 2 (db_capacity)")],
            id="at its most",
        ),
        pytest.param(
            pending(),
            status(
                channels=[channel("root", capacity=4, running=2)],
                databases=[database("db1", 0, None, 2), database("prod_a", 2, None, 0, reserve=True)],
            ),
            tree(),
            [("guaranteed", "guaranteed to prod_a")],
            id="reserved for another",
        ),
        pytest.param(
            pending(),
            status(databases=[database("db1", 0, None, 2), database("prod_a", 2, None, 0)]),
            tree(),
            [("next", "next in turn")],
            id="another does not wait for its minimum",
        ),
        pytest.param(
            pending(),
            status(
                channels=[
                    channel("root", capacity=4, running=2),
                    channel("root.x", capacity=None, running=0, minimum=2, pending=1),
                ]
            ),
            tree(),
            [("guaranteed", "guaranteed to root.x")],
            id="guaranteed to another channel",
        ),
        pytest.param(
            pending(),
            status(
                channels=[
                    channel("root", capacity=4, running=2),
                    channel("root.slow", minimum=1, pending=1),
                    channel("root.x", minimum=2, reserve=True),
                ]
            ),
            tree(),
            [("guaranteed", "guaranteed to root.x")],
            id="below its minimum, but the permits are reserved for another channel",
        ),
        pytest.param(
            pending(),
            status(channels=[channel("root", capacity=4, running=2), channel("root.x", minimum=2)]),
            tree(),
            [("next", "next in turn")],
            id="another channel does not wait for its minimum",
        ),
        pytest.param(
            pending(),
            status(),
            tree(
                specs={
                    "root": ChannelSpec(name="root", capacity=4),
                    "root.x": ChannelSpec(name="root.x", capacity=None, minimum=2),
                    "root.y": ChannelSpec(name="root.y", capacity=None, minimum=1, reserve=True),
                },
                is_own=True,
                running={"root": 2},
                waiting={"root.x.z": 1},
            ),
            [("guaranteed", "guaranteed to root.x, root.y")],
            id="guaranteed to another channel of the database",
        ),
        pytest.param(
            pending(),
            status(channels=[channel("root.slow", rate={**RATE, "used": 100, "next_in_s": 3.2})]),
            tree(),
            [("rate", "rate of root.slow: 100 of 100 in this minute, next in 4 s")],
            id="rate",
        ),
        pytest.param(
            pending(),
            status(channels=[channel("root.slow", rate={**RATE, "used": 99, "next_in_s": None})]),
            tree(),
            [("next", "next in turn")],
            id="rate not used up",
        ),
        pytest.param(
            pending(),
            status(channels=[channel("root.slow", rate={**RATE, "used": 0, "next_in_s": None, "unread": True})]),
            tree(),
            [("rate", "rate of root.slow: what was started before the supervisor was is still being read")],
            id="rate not known",
        ),
        pytest.param(
            pending(),
            status(),
            tree(
                is_own=True,
                starts_s={"root.slow": [1.0, 3599.0, 4000.0], "root.slow.deep": [200.0]},
                specs={"root.slow": ChannelSpec(name="root.slow", capacity=None, rate=Rate(3, 3600))},
            ),
            [("rate", "rate of root.slow: 3 of 3 in this hour, next in 1 s")],
            id="rate of a channel of its own",
        ),
        pytest.param(
            pending(),
            status(
                channels=[
                    channel(
                        "root.slow",
                        capacity=2,
                        running=2,
                        holders=[
                            {"database": "a", "running": 0, "pending": 9},
                            {"database": "b", "running": 2, "pending": 0},
                        ],
                    )
                ]
            ),
            tree(),
            [("full", "channel root.slow is full, 2 of 2: b 2")],
            id="full",
        ),
        pytest.param(
            pending(),
            status(
                channels=[
                    channel(
                        "root",
                        capacity=7,
                        running=8,
                        holders=[{"database": f"d{i}", "running": 1} for i in range(8)],
                    )
                ]
            ),
            tree(),
            [("full", "channel root is full, 8 of 7: d0 1, d1 1, d2 1, d3 1, d4 1 and 3 more")],
            id="root over-full, many",
        ),
        pytest.param(
            pending(),
            status(channels=[channel("root", capacity=0)]),
            tree(),
            [("no capacity", "channel root has capacity 0: nothing runs")],
            id="no capacity",
        ),
        pytest.param(
            pending(channel="root.slow.new"),
            status(),
            tree(running={"root.slow.new": 1}),
            [("full", "channel root.slow.new is full in this database, 1 of 1: db1 1")],
            id="unknown channel takes its ancestor's default",
        ),
        pytest.param(
            pending(),
            status(mode="per-database", channels=[channel("root", capacity=9, running=2)]),
            tree(is_own=True, running={"root.slow": 1, "root.slow.sub": 1}),
            [("full", "channel root.slow is full in this database, 2 of 2: db1 2")],
            id="per-database, own channel",
        ),
        pytest.param(
            pending(),
            status(
                mode="per-database",
                channels=[channel("root", capacity=3, running=3, holders=[{"database": "db2", "running": 3}])],
            ),
            tree(is_own=True),
            [("full", "channel root is full over all databases (max_capacity), 3 of 3: db2 3")],
            id="per-database, max_capacity",
        ),
        pytest.param(
            pending(channel="root.slow.rare"),
            status(mode="per-database"),
            tree(is_own=True, last_start_s={"root.slow.rare.sub": 4.0, "root.other": 0.5}),
            [("throttled", "channel root.slow.rare is throttled for another 6.0 s")],
            id="per-database, throttled",
        ),
    ],
)
def test_pending(job: JobFacts, view: dict[str, Any], branch: TreeFacts, expected: list[tuple[str, str]]) -> None:
    assert why(job, view, branch) == expected


def test_every_reason_is_told() -> None:
    view = status(
        target={"url": "u", "state": "down", "retry_in_s": None},
        channels=[channel("root.slow", capacity=2, running=2, throttled_for_s=1.0)],
        pauses=[{"database": None, "channel": "root", "remaining_s": 5.0}],
    )
    codes = [code for code, _ in why(pending(eta_in_s=5.0), view)]
    assert codes == ["eta", "paused", "target down", "throttled", "full"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-3.0, "0.0 s"),
        (0.34, "0.3 s"),
        (119.9, "119 s"),
        (120.0, "2 min"),
        (7199.0, "119 min"),
        (7500.0, "2 h 05 min"),
        (3 * 86400.0 + 7200, "3 d 02 h"),
        (math.inf, "ever"),
        (math.nan, "ever"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("since_s", "expected"),
    [
        (7300, ("overdue", "runs in Odoo for 121 min, longer than max_runtime of root.slow, which is 60 min")),
        (3000, ("running", "runs in Odoo for 50 min")),
        (None, ("running", "runs in Odoo")),
    ],
)
def test_a_job_that_runs_for_too_long(since_s: float | None, expected: tuple[str, str]) -> None:
    job = pending(state="started", since_s=since_s, channel="root.slow.deep")
    found = why(job, status(), tree(max_runtimes={"root.slow": 3600.0, "root": 7200.0}))
    assert [(found[0][0], found[0][1].replace("2 h 01 min", "121 min"))] == [expected]


def test_a_half_installed_module_is_the_reason() -> None:
    view = in_state("blocked", modules={"states": {"sale": "to upgrade"}})
    ((code, text),) = why(pending(), view)
    assert code == "modules"
    assert text.startswith("module sale is 'to upgrade': jobs wait")


SCHEDULE = {
    "limits": [
        {
            "channel": "root.slow",
            "limit": 0,
            "text": "closed until 18:00",
            "until": "2026-11-30T18:00:00+01:00",
            "for_s": 9,
        },
        {"channel": "root", "limit": 4, "text": "4 at once until 03:00", "until": None, "for_s": None},
    ]
}


def test_what_the_schedule_closes_says_until_when() -> None:
    view = status(schedule=SCHEDULE, channels=[channel("root", capacity=4), channel("root.slow", closed=True)])
    expected = [("closed", "channel root.slow is closed until 18:00, by schedule")]
    assert why(pending(), view) == expected
    assert why(pending(channel="root.slow.deep.er"), view) == expected
    assert why(pending(channel="root.line"), view) == [("next", "next in turn")]


def test_what_is_full_by_schedule_says_so() -> None:
    view = status(schedule=SCHEDULE, channels=[channel("root", capacity=4, running=4)])
    assert why(pending(channel="root.line"), view) == [
        ("full", "channel root is full (4 at once until 03:00, by schedule), 4 of 4")
    ]
    free = [ChannelSpec(name="root", capacity=None), ChannelSpec(name="root.slow", capacity=9)]
    own = tree(is_own=True, specs={spec.name: spec for spec in free}, running={"root.slow": 2})
    limited = {"limits": [{"channel": "root.slow", "limit": 2, "text": "2 at once until 18:00"}]}
    assert why(pending(), status(schedule=limited, channels=[channel("root", capacity=4)]), own) == [
        ("full", "channel root.slow is full in this database (2 at once until 18:00, by schedule), 2 of 2: db1 2")
    ]


def test_a_new_database_that_waits() -> None:
    view = in_state("blocked", held=True, last_error="new: it appeared after the start")
    assert why(pending(), view)[0][0] == "held"
    assert "new: it appeared after the start" in why(pending(), view)[0][1]


def test_behind_others_says_what_waiting_is_worth() -> None:
    assert why(pending(ahead=2), status(ageing_s=60.0)) == [
        ("behind", "2 better jobs of its channel first (each step of priority is worth 60 s of waiting)")
    ]
