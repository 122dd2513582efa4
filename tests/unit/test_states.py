"""Words that several modules share; those that leave the program are an interface."""

from __future__ import annotations

import pytest

from qjsupervisor.states import Fairness, JobOutcome, JobState, Mode, Phase, TargetState, WorkerState


@pytest.mark.parametrize(
    ("mode", "has_settings", "own"),
    [
        (Mode.SERVER_WIDE, True, False),
        (Mode.SERVER_WIDE, False, False),
        (Mode.PER_DATABASE, True, True),
        (Mode.PER_DATABASE, False, True),
        (Mode.DEFAULT, True, True),
        (Mode.DEFAULT, False, False),
    ],
)
def test_whose_channels_apply(mode: Mode, has_settings: bool, own: bool) -> None:
    assert mode.has_own_tree(has_settings) is own


def test_a_phase_is_a_state_that_the_master_knows() -> None:
    assert {phase.value for phase in Phase} <= {state.value for state in WorkerState}


def test_words_that_operators_and_rows_know() -> None:
    assert [mode.value for mode in Mode] == ["server-wide", "per-database", "default"]
    assert [each.value for each in Fairness] == ["round-robin", "priority"]
    assert [each.value for each in WorkerState] == [
        "starting", "standby", "ready", "blocked", "backing off", "stopping", "failed",
    ]  # fmt: skip
    assert [each.value for each in JobState] == [
        "wait_dependencies", "pending", "enqueued", "started", "done", "cancelled", "failed",
    ]  # fmt: skip
    assert f"{JobState.DONE.value}" == JobState.DONE


def test_numbers_in_the_shared_table() -> None:
    assert [int(each) for each in JobOutcome] == list(range(6))
    assert (TargetState.UP, TargetState.DOWN, TargetState.UNKNOWN) == (0, 1, 2)
