"""The phase of a worker, told once for each change, and its patience with a database that cannot be read."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from qjsupervisor.backoff import GIVE_UP_S
from qjsupervisor.states import Phase

from .test_worker import Rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.worker.close()
    made.master.close()
    made.pipe.close()


def test_at_first_permits_of_a_predecessor_may_be_held_for_a_while(rig: Rig) -> None:
    progress = rig.worker.progress
    assert progress.holds_unread
    began_s = progress.give_up.at_s - GIVE_UP_S
    progress.note_unread(began_s + 5)
    assert progress.give_up.at_s == began_s + GIVE_UP_S, "it counts from the first moment on"
    progress.note_read()
    assert not progress.holds_unread
    assert progress.give_up.at_s == math.inf
    progress.note_unread(began_s + 5)
    assert progress.give_up.at_s == began_s + 5 + GIVE_UP_S


def test_what_was_given_up_goes_with_each_reason_until_it_serves(rig: Rig) -> None:
    progress = rig.worker.progress
    told: list[str] = []
    progress.enter(Phase.BLOCKED, "a lock")
    progress.note_given_up("; 2 permits were given up")
    told.append(rig.table.slot_view(0).message)
    progress.enter(Phase.STANDBY, "another leads")
    told.append(rig.table.slot_view(0).message)
    progress.arrive()
    progress.show(Phase.SERVING, "")
    told.append(rig.table.slot_view(0).message)
    assert told == ["a lock; 2 permits were given up", "another leads; 2 permits were given up", ""]
