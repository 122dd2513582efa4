"""Which databases are new: at the first start, after it, in the next life; and what is made of a strange file."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from qjsupervisor.errors import ProtocolError
from qjsupervisor.master.known_databases import KnownDatabases, copies
from tests.unit.supervised import CONFIG, Rig

HOLD = replace(CONFIG, holds_new=True)


def known(**oids: int) -> KnownDatabases:
    """After a first start that found these."""
    found = KnownDatabases(hold=True)
    for name, oid in oids.items():
        assert found.admits(name, oid) is None
    found.listed(set(oids))
    return found


def test_what_is_there_at_the_first_start_is_served_and_what_comes_later_waits() -> None:
    found = known(a=1)
    assert found.admits("a", 1) is None
    reason = found.admits("b", 2)
    assert reason is not None
    assert "appeared after the start" in reason
    assert "`qjsupervisor resume b`" in reason
    assert found.held == {"b": reason}
    found.changed = False
    assert found.resume("b")
    assert found.changed, "it is written down"
    assert found.admits("b", 2) is None
    assert found.held == {}
    assert not found.resume("b")


def test_one_that_is_made_anew_is_another_one() -> None:
    found = known(a=1)
    assert "made anew" in str(found.admits("a", 7))
    found.listed({"a"})
    assert found.resume("a")
    assert found.admits("a", 7) is None
    assert "made anew" in str(found.admits("a", 8))


def test_one_that_was_gone_for_a_scan_is_new_although_it_is_the_same() -> None:
    found = known(a=1, b=2)
    found.listed({"b"})
    assert found.admits("a", 1) is not None
    found.listed({"b"})
    assert found.held == {}, "one that is gone does not wait"


def test_one_that_could_not_be_served_at_first_is_known() -> None:
    found = known()
    fresh = KnownDatabases(hold=True)
    fresh.listed({"ill"})
    assert fresh.admits("ill", 3) is None
    assert fresh.admits("ill", 4) is not None
    assert found.admits("ill", 3) is not None


def test_the_reason_names_the_original() -> None:
    assert "has the database.uuid of prod: is it a copy?" in str(known(prod=1).admits("test", 2, ["prod"]))


def test_the_next_life_knows_what_the_former_one_knew() -> None:
    before = known(a=1, b=2)
    before.admits("c", 3)
    kept = json.loads(json.dumps(before.keep(0, 0)))
    after = KnownDatabases(hold=True)
    assert after.restore(kept)
    assert after.admits("a", 1) is None
    assert after.admits("c", 3) is not None
    assert after.admits("b", 9) is not None
    assert after.resume("c")
    assert after.keep(0, 0) == {"known": {"a": 1, "b": 2, "c": None}}


def test_without_hold_nothing_waits_and_nothing_is_kept() -> None:
    found = KnownDatabases(hold=False)
    found.listed(set())
    assert found.admits("a", 1) is None
    found.listed({"a", "ill"})
    assert found.keep(0, 0) is None
    found.hold = True  # a reload
    assert found.admits("a", 1) is None
    assert found.admits("ill", 5) is None
    assert found.admits("b", 2) is not None
    found.hold = False
    assert found.admits("b", 2) is None
    assert found.held == {}


@pytest.mark.parametrize("kept", [[], "x", 1, {}, {"known": []}, {"known": {"a": "1"}}, {"known": {"a": -1}},
                                  {"known": {"a": True}}, {"known": {"a": 1 << 40}}])  # fmt: skip
def test_nonsense_is_not_taken(kept: Any) -> None:
    found = KnownDatabases(hold=True)
    assert not found.restore(kept)
    assert found.admits("a", 1) is None, "as at a first start"


def test_copies() -> None:
    assert copies({"b": "1", "a": "1", "c": "2"}) == [("a", "b")]


def test_a_held_database_has_no_worker_and_says_why() -> None:
    rig = Rig(HOLD)
    rig.scan(a="ready")
    rig.scan(a="ready", b="ready")
    assert rig.workers() == ["a"]
    view = next(each for each in rig.operations.status(rig.now_s)["databases"] if each["name"] == "b")
    assert (view["state"], view["held"]) == ("blocked", True)
    assert view["last_error"].startswith("new: it appeared after the start")
    with pytest.raises(ProtocolError, match="new databases wait, to be resumed by name: b"):
        rig.orders.handle({"do": "resume"})
    assert rig.orders.handle({"do": "resume", "database": "b"})["resumed"] == ["b:root"]  # type: ignore[index]
    rig.scan(a="ready", b="ready")
    assert rig.workers() == ["a", "b"]


def test_what_was_released_and_is_taken_back_is_known() -> None:
    rig = Rig(HOLD)
    rig.scan(a="ready")
    rig.orders.handle({"do": "release", "database": "a"})
    rig.orders.handle({"do": "resume", "database": "a"})
    assert rig.rescan.known.admits("a", 77) is None
