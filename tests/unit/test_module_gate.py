"""Jobs wait while a module is in transition, unless an operator says otherwise, for this transition only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from qjsupervisor.loop import Deadline, Timers
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.waiter import Waiter
from qjsupervisor.worker.module_gate import LOOK_S, ModuleGate


class Rig:
    """A gate, and what it told."""

    def __init__(self) -> None:
        self.database = Database("db", {}, Waiter(lambda: None))
        self.told: list[Mapping[str, Any]] = []
        self.gate = ModuleGate(self.database, self.told.append, Deadline(Timers(), lambda _now_s: None))

    def sees(self, modules: dict[str, str]) -> None:
        self.database.modules = modules
        self.gate.looked(1000.0)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_it_is_closed_and_looks_again_while_a_module_is_in_transition(rig: Rig) -> None:
    rig.sees({"sale": "to upgrade"})
    assert rig.gate.is_closed
    assert "module sale is 'to upgrade'" in rig.gate.reason
    assert rig.gate.look.at_s == 1000.0 + LOOK_S
    rig.sees({})
    assert not rig.gate.is_closed
    assert rig.gate.reason == ""
    assert rig.gate.look.at_s > 1e9, "nothing is polled"


def test_each_change_is_told_once(rig: Rig) -> None:
    for modules in ({}, {}, {"sale": "to upgrade"}, {"sale": "to upgrade"}, {}):
        rig.sees(modules)
    assert [message["modules"] for message in rig.told] == [{}, {"sale": "to upgrade"}, {}]


def test_an_operators_word_holds_for_one_transition(rig: Rig) -> None:
    rig.sees({"sale": "to upgrade"})
    rig.gate.let_through(True)
    assert not rig.gate.is_closed
    rig.sees({})
    rig.sees({"stock": "to install"})
    assert rig.gate.is_closed
