"""Pauses: scopes within scopes, and their ends."""

from __future__ import annotations

import json

import pytest

from qjsupervisor.master.pauses import Pauses, Scope

EVERYTHING = Scope(None, "root")
DB = Scope("db1", "root")
SLOW = Scope("db1", "root.slow")
SLOW_EVERYWHERE = Scope(None, "root.slow")


def test_a_database_gets_its_own_and_the_general_ones() -> None:
    pauses = Pauses()
    pauses.add(SLOW, 50.0)
    pauses.add(EVERYTHING, None)
    assert pauses.of("db1") == {"root.slow": 50.0, "root": None}
    assert pauses.of("db2") == {"root": None}


def test_of_two_for_one_channel_the_later_end_holds() -> None:
    pauses = Pauses()
    pauses.add(SLOW, 50.0)
    pauses.add(SLOW_EVERYWHERE, 70.0)
    assert pauses.of("db1") == {"root.slow": 70.0}
    pauses.add(SLOW, None)
    assert pauses.of("db1") == {"root.slow": None}


def test_resume_ends_everything_within_the_scope_and_nothing_else() -> None:
    pauses = Pauses()
    for scope in (SLOW, DB, SLOW_EVERYWHERE, Scope("db2", "root.slow.sub")):
        pauses.add(scope, None)
    assert pauses.remove(DB) == [SLOW, DB]
    assert pauses.covering(DB) == []
    assert pauses.covering(SLOW) == [SLOW_EVERYWHERE]
    assert pauses.remove(SLOW_EVERYWHERE) == [SLOW_EVERYWHERE, Scope("db2", "root.slow.sub")]


def test_a_name_that_only_begins_the_same_is_not_within() -> None:
    pauses = Pauses()
    pauses.add(Scope(None, "root.slower"), None)
    assert pauses.remove(SLOW_EVERYWHERE) == []


def test_pauses_end_by_themselves() -> None:
    pauses = Pauses()
    pauses.add(SLOW, 50.0)
    pauses.add(DB, None)
    assert pauses.expire(49.9) == []
    assert pauses.expire(50.0) == [SLOW]
    assert pauses.items() == [(DB, None)]


def test_what_is_kept_is_paused_again_by_the_wall_clock() -> None:
    pauses = Pauses()
    pauses.add(SLOW, 50.0, "anna")
    pauses.add(EVERYTHING, None)
    pauses.add(Scope("db2", ""), 90.0)
    kept = json.loads(json.dumps(pauses.keep(40.0, 1_000_000.0)))
    after = Pauses()
    assert after.restore(kept, 7.0, 1_000_004.0) == 0
    assert dict(after.items()) == {SLOW: pytest.approx(13.0), EVERYTHING: None, Scope("db2", ""): pytest.approx(53.0)}
    assert after.by == {SLOW: "anna"}
    assert after.released() == {"db2"}
    late = Pauses()
    assert late.restore(kept, 7.0, 1_000_011.0) == 0
    assert SLOW not in dict(late.items())
    assert Pauses().keep(1.0, 2.0) is None


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "root",
        7,
        [],
        {},
        {"database": "a"},
        {"database": "a", "channel": 1},
        {"database": ["a"], "channel": "root"},
        {"database": "", "channel": "root"},
        {"database": None, "channel": ""},
        {"database": "a" * 501, "channel": "root"},
        {"database": "\ud800", "channel": "root"},
        {"database": "a", "channel": "root", "by": {}},
        {"database": "a", "channel": "root", "until": "1"},
        {"database": "a", "channel": "root", "until": True},
        {"database": "a", "channel": "root", "until": float("nan")},
        {"database": "a", "channel": "root", "until": float("inf")},
        {"database": "a", "channel": "root", "until": []},
    ],
)
def test_what_is_no_pause_is_left_out_and_counted(entry: object) -> None:
    pauses = Pauses()
    assert pauses.restore([entry, {"database": "b", "channel": "root"}], 0.0, 1e9) == 1
    assert pauses.items() == [(Scope("b", "root"), None)]


@pytest.mark.parametrize("until", [10**400, 1e300, -(10**400), -1e300])
def test_an_end_far_away_is_one_within_ten_years_or_none(until: float) -> None:
    pauses = Pauses()
    assert pauses.restore([{"database": "b", "channel": "root", "until": until}], 0.0, 1e9) == 0
    assert all(end is not None and 0 < end <= 10 * 366 * 86400 for _, end in pauses.items())
    assert len(pauses.items()) == (until > 0)


@pytest.mark.parametrize("kept", [{}, "x", 1, True])
def test_what_is_no_list_of_pauses(kept: object) -> None:
    assert Pauses().restore(kept, 0.0, 1e9) == 1


def test_more_pauses_than_a_worker_can_be_told() -> None:
    pauses = Pauses()
    kept = [{"database": "b", "channel": f"root.{number:0490d}"} for number in range(300)]
    spoilt = pauses.restore(kept, 0.0, 1e9)
    assert 0 < spoilt < 300
    assert len(pauses.items()) == 300 - spoilt
