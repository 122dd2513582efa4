"""Pauses: scopes within scopes, and their ends."""

from __future__ import annotations

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
