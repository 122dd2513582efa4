"""What the end of a request tells: of its target, and in the log of its job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from qjsupervisor.config.settings import TargetSettings
from qjsupervisor.odoo.dispatcher import Ended
from qjsupervisor.odoo.request import End, Outcome
from qjsupervisor.odoo.target import Target
from qjsupervisor.states import TargetState
from qjsupervisor.worker.outcomes import RequestOutcomes

CUT = Outcome(End.ANSWERED, 504, "HTTP 504")


@pytest.fixture
def target() -> Target:
    return Target(TargetSettings(url="http://127.0.0.1:1"), "db", -1)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as events:
        yield events


def outcomes(target: Target, *, can_tell_dead: bool = True) -> RequestOutcomes:
    return RequestOutcomes([target], structlog.get_logger(), lambda: None, can_tell_dead=lambda: can_tell_dead)


@pytest.mark.parametrize(("others_run", "state"), [(True, TargetState.UP), (False, TargetState.DOWN)])
def test_a_proxy_that_waits_too_short_is_no_outage_while_others_run(
    target: Target, others_run: bool, state: TargetState
) -> None:
    """Forty jobs that wait in Odoo for longer: 47 times it was called down, and they were asked for 87 times."""
    known = outcomes(target)
    assert not known.record_result(Ended("first", target, Outcome(End.ANSWERED, 200, ""), 0.1), "done")
    target.ran_s -= 100
    for number in range(40):
        if others_run:
            known.record_result(Ended("other", target, Outcome(End.ANSWERED, 200, ""), 0.1), "done")
        assert known.record_result(Ended(str(number), target, CUT, 5.0), "enqueued"), "it is given back"
    assert target.breaker.state is state


@pytest.mark.parametrize(("can_tell_dead", "names"), [(True, False), (False, True)])
def test_a_job_that_still_runs_is_not_finished(
    target: Target, logged: list[Any], can_tell_dead: bool, names: bool
) -> None:
    known = outcomes(target, can_tell_dead=can_tell_dead)
    assert not known.record_result(Ended("u", target, Outcome(End.LOST, None, "closed"), 1.0), "started")
    (event,) = logged
    assert (event["event"], event["log_level"]) == ("job_unanswered", "warning")
    assert ("qjsupervisor requeue" in event["reason"]) is names
    assert time.monotonic() - target.ran_s < 60, "it did run it"
