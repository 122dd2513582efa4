"""The ledger as a document, and what is free of a channel. Its rules are in test_rules.py."""

from __future__ import annotations

import json

import pytest

from qjsupervisor.broker.ledger import (
    FORMAT,
    Ledger,
    LedgerError,
    MemberEntry,
    blocked_channels,
    capacity_of,
    differences,
    note_not_before,
    unassigned,
    used,
)


def ledger() -> Ledger:
    return Ledger(
        members={
            "a": MemberEntry(valid=True, lease={"root": 2}, excess={"root": 1}, capacity={"root": 5}, host="h", pid=1),
            "b": MemberEntry(valid=True, lease={"root": 1}, capacity={"root": 4, "root.x": 1}, host="h", pid=2),
            "c": MemberEntry(valid=False, limbo={"root": 3}, limbo_over={"root": 1}, capacity={"root": 1}),
        },
        left={"db": {"root": 1, "root.x": 1}},
        left_over={"db": {"root": 1}},
        failed={"db": {"root.x": 1}, "other": {"root.y": 2, "root.z": 0}},
    )


def test_a_document_is_read_back_as_it_was_written() -> None:
    assert Ledger.from_json(json.loads(json.dumps(ledger().to_json()))) == ledger()
    assert Ledger.from_json({}) == Ledger()


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"format": FORMAT + 1}, "of a newer version.*install the newer version"),
        ({"format": None}, "older than 1.*run `qjsupervisor cluster init`"),
        ({"format": "1"}, "of a newer version"),
        ({"members": {"m": {"no such": 1}}}, "damaged"),
        ({"members": [1]}, "damaged"),
        ({"no such": 1}, "damaged"),
    ],
)
def test_a_document_that_this_version_does_not_know_is_refused(changed: dict[str, object], what: str) -> None:
    with pytest.raises(LedgerError, match=what):
        Ledger.from_json({**ledger().to_json(), **changed})


def test_everything_that_may_run_is_used() -> None:
    assert used(ledger(), "root") == 2 + 1 + 1 + 3 + 1 + 1 + 1
    assert used(ledger(), "root.x") == 1
    assert used(ledger(), "root.never") == 0


def test_what_nobody_alive_may_use_is_not_free_either() -> None:
    assert unassigned(ledger(), "root") == used(ledger(), "root") - 3


def test_the_smallest_capacity_of_a_living_member_holds() -> None:
    assert capacity_of(ledger(), "root") == 4
    assert capacity_of(ledger(), "root.x") == 1
    assert capacity_of(ledger(), "root.never") is None


def test_only_different_capacities_are_told() -> None:
    assert differences(ledger()) == {"root": {"h:1": 5, "h:2": 4}}


def test_a_failed_job_closes_its_channel_to_everybody_else() -> None:
    assert blocked_channels(ledger()) == {"root.x", "root.y"}
    assert blocked_channels(ledger(), but=["other"]) == {"root.x"}


def test_the_next_start_is_never_moved_to_an_earlier_time() -> None:
    book = Ledger()
    note_not_before(book, "root.t", 10.0)
    note_not_before(book, "root.t", 5.0)
    assert book.not_before_s == {"root.t": 10.0}
    note_not_before(book, "root.t", 12.0)
    assert book.not_before_s == {"root.t": 12.0}
