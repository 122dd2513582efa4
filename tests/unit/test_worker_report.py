"""What a worker tells of itself: kept as it is meant, refused where it is nonsense."""

from __future__ import annotations

from typing import Any

import pytest

from qjsupervisor.errors import ProtocolError
from qjsupervisor.master.worker_report import LONGEST_AWAY_S, WorkerReport
from qjsupervisor.states import StoppedChannel, TargetHealth, TargetState


@pytest.fixture
def report() -> WorkerReport:
    return WorkerReport()


def test_each_message_has_its_place(report: WorkerReport) -> None:
    for message in (
        {"is": "read"},
        {"is": "starts"},
        {"is": "overdue", "jobs": 3},
        {"is": "targets", "targets": [["http://o:1", 1, 4, 12.5, "refused"]]},
        {"is": "stopped", "channels": [["root.s", "u1", 2, True]]},
        {"is": "modules", "modules": {"sale": "to upgrade"}},
        {"is": "away", "for_s": 5},
    ):
        assert report.take(message, 100.0), message
    assert (report.has_read, report.has_started, report.overdue) == (True, True, 3)
    assert report.targets == [TargetHealth("http://o:1", TargetState.DOWN, 4, 12.5, "refused")]
    assert report.stopped == [StoppedChannel("root.s", "u1", 2, True)]
    assert report.modules.states == {"sale": "to upgrade"}
    assert report.away_until_s == 105.0


def test_nobody_stays_away_for_long(report: WorkerReport) -> None:
    report.take({"is": "away", "for_s": 1e9}, 100.0)
    assert report.away_until_s == 100.0 + LONGEST_AWAY_S
    report.take({"is": "away"}, 100.0)
    assert report.away_until_s == 100.0


def test_a_new_process_has_told_nothing_and_modules_are_the_database_s(report: WorkerReport) -> None:
    for message in (
        {"is": "read"},
        {"is": "overdue", "jobs": 3},
        {"is": "stopped", "channels": [["root.s", "u1", 2, True]]},
        {"is": "modules", "modules": {"sale": "to upgrade"}},
    ):
        report.take(message, 100.0)
    report.begin()
    assert (report.has_read, report.overdue, report.stopped, report.targets) == (False, 0, [], [])
    assert report.modules.states == {"sale": "to upgrade"}


def test_what_is_none_of_these_is_somebody_else_s(report: WorkerReport) -> None:
    assert not report.take({"is": "ready"}, 0.0)
    assert not report.take({}, 0.0)


@pytest.mark.parametrize(
    "message",
    [
        {"is": "targets"},
        {"is": "targets", "targets": [["http://o:1", 99, 4, 12.5, "refused"]]},
        {"is": "targets", "targets": [["http://o:1"]]},
        {"is": "stopped", "channels": "all"},
        {"is": "stopped", "channels": [["root.s"]]},
        {"is": "modules", "modules": ["sale"]},
        {"is": "away", "for_s": "long"},
        {"is": "overdue", "jobs": [1]},
    ],
)
def test_nonsense_is_refused(report: WorkerReport, message: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        report.take(message, 0.0)
