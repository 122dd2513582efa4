"""Modules in transition: since when, told once as overdue, and what of them is in the status."""

from __future__ import annotations

import pytest

from qjsupervisor.master.modules import Modules


@pytest.fixture
def modules() -> Modules:
    found = Modules()
    found.note({"sale": "to upgrade"}, 100.0)
    return found


def test_none_are_no_view_and_never_overdue() -> None:
    assert Modules().view(1.0, 10.0) is None
    assert not Modules().is_overdue(1e9, 10.0)


def test_the_time_counts_from_the_first_of_them(modules: Modules) -> None:
    modules.note({"sale": "to upgrade", "stock": "to install"}, 105.0)
    assert modules.view(108.04, 10.0) == {
        "states": {"sale": "to upgrade", "stock": "to install"}, "for_s": 8.0, "overdue": False, "anyway": False,
    }  # fmt: skip
    assert (modules.view(110.0, 10.0) or {})["overdue"]


def test_overdue_is_told_once_for_each_transition(modules: Modules) -> None:
    assert not modules.is_overdue(109.9, 10.0)
    assert modules.is_overdue(110.0, 10.0)
    assert not modules.is_overdue(111.0, 10.0)
    modules.note({}, 120.0)
    modules.note({"sale": "to upgrade"}, 130.0)
    assert not modules.is_overdue(139.0, 10.0)
    assert modules.is_overdue(140.0, 10.0)


def test_whom_an_operator_lets_through_is_not_overdue_until_the_next_one(modules: Modules) -> None:
    modules.anyway = True
    assert not modules.is_overdue(200.0, 10.0)
    assert (modules.view(200.0, 10.0) or {})["anyway"]
    modules.note({}, 210.0)
    assert not modules.anyway


def test_what_an_operator_said_to_a_former_supervisor_holds_for_the_same_transition_only() -> None:
    found = Modules()
    found.kept = {"sale": "to upgrade", "crm": "to install"}
    assert found.to_keep() == found.kept
    found.note({"sale": "to upgrade"}, 1.0)
    assert found.anyway
    assert found.to_keep() == {"sale": "to upgrade"}
    found.note({}, 2.0)
    found.note({"sale": "to upgrade"}, 3.0)
    assert not found.anyway
    for kept, now in (({"sale": "to upgrade"}, {"sale": "to remove"}), ({"sale": "to upgrade"}, {"crm": "to upgrade"})):
        other = Modules()
        other.kept = kept
        other.note(now, 1.0)
        assert (other.anyway, other.to_keep()) == (False, {})
    over = Modules()
    over.kept = {"sale": "to upgrade"}
    over.note({}, 1.0)
    over.note({"sale": "to upgrade"}, 2.0)
    assert not over.anyway
