"""What a worker was told by its master: noted, and done when the loop comes to it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qjsupervisor import logs
from qjsupervisor.config.settings import ServingRules
from qjsupervisor.control import Pipe
from qjsupervisor.loop import Loop
from qjsupervisor.states import RELEASED
from qjsupervisor.worker.orders import Instructions


class Rig:
    """A master's end of the pipe, and the instructions at the other one."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.master, pipe = Pipe.pair()
        self.pipe = pipe
        self.wakeup = os.eventfd(0)
        self.changes: list[str] = []
        self.instructions = Instructions(
            pipe,
            self.wakeup,
            logs.silent_logger(),
            loop,
            on_pauses=lambda: self.changes.append("pauses"),
            on_rules=lambda: self.changes.append("rules"),
        )

    def tell(self, **message: object) -> Instructions:
        self.master.send(message)
        self.loop.turn(1)
        return self.instructions

    def close(self) -> None:
        self.master.close()
        self.pipe.close()
        os.close(self.wakeup)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Loop() as loop:
        made = Rig(loop)
        yield made
        made.close()


@pytest.mark.parametrize("restart", [True, False])
def test_stop(rig: Rig, restart: bool) -> None:
    told = rig.tell(do="stop", restart=restart)
    assert told.stop
    assert told.returns is restart


@pytest.mark.parametrize("order", ["channels", "resync"])
def test_what_is_to_be_read_again(rig: Rig, order: str) -> None:
    assert rig.tell(do=order).rebuild


def test_a_pause_ends_by_itself_at_its_moment(rig: Rig) -> None:
    now_s = time.monotonic()
    told = rig.tell(do="pauses", pauses={"root.a": now_s + 0.05, "root.b": None, RELEASED: None})
    assert told.is_released
    assert told.paused_channels == {"root.a", "root.b"}
    rig.loop.turn(1)
    assert told.paused_channels == {"root.b"}
    assert rig.changes == ["pauses", "pauses"]
    assert not rig.tell(do="pauses", pauses={}).is_released


def test_an_operator_lets_jobs_run_though_modules_are_in_transition(rig: Rig) -> None:
    told = rig.tell(do="modules", anyway=True)
    assert told.anyway
    assert told.look
    assert not rig.tell(do="modules", anyway=False).anyway


def test_rules_change_in_place(rig: Rig) -> None:
    rules = replace(ServingRules(), ageing_s=60.0)
    told = rig.tell(do="rules", rules=asdict(rules))
    assert told.rules == rules
    assert rig.changes == ["rules"]


def test_an_order_that_nobody_knows_does_nothing(rig: Rig) -> None:
    told = rig.tell(do="dance")
    assert [told.stop, told.rebuild, told.look] == [False] * 3
    assert rig.changes == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_ORDERS = st.sampled_from(["stop", "pauses", "limits", "only", "rules", "modules", "server", "channels", "nonsense"])
_PARTS = st.sampled_from(["pauses", "limits", "oid", "rules", "anyway", "gone", "restart", "started"])


@given(st.fixed_dictionaries({"do": _ORDERS | _JSON}), st.dictionaries(_PARTS, _JSON))
@settings(max_examples=150, deadline=None)
def test_an_order_that_makes_no_sense_ends_nobody(do: dict[str, object], parts: dict[str, object]) -> None:
    """It costs a line, and the next one is obeyed."""
    faults: list[Exception] = []
    with Loop(on_error=faults.append) as loop:
        rig = Rig(loop)
        rig.tell(**do, **parts)
        assert rig.tell(do="only", oid=7).only_oid == 7
        assert all(isinstance(limit, int) for limit in rig.instructions.limits.values())
        rig.close()
    assert not faults
