"""What the end of a request tells: of its target, and in the log of its job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from qjsupervisor import logs
from qjsupervisor.config.settings import TargetSettings
from qjsupervisor.loop import Loop
from qjsupervisor.odoo.dispatcher import Dispatcher, Ended
from qjsupervisor.odoo.request import End, RequestOutcome
from qjsupervisor.odoo.target import Target
from qjsupervisor.states import TargetState
from qjsupervisor.table.servers import private_servers
from qjsupervisor.worker.outcomes import RequestOutcomes

CUT = RequestOutcome(End.ANSWERED, 504, "HTTP 504")


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    with Loop() as loop:
        target = TargetSettings(url="http://127.0.0.1:1")
        servers = private_servers([target.url])
        made = Dispatcher(loop, [target], "db", servers, connect_timeout_s=1, read_timeout_s=None)
        yield made
        made.close()


@pytest.fixture
def target(dispatcher: Dispatcher) -> Target:
    return dispatcher.targets[0]


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as events:
        yield events


def outcomes(dispatcher: Dispatcher, *, can_tell_dead: bool = True) -> RequestOutcomes:
    log = structlog.get_logger()
    own, shared = log.bind(database="db"), log.bind()
    return RequestOutcomes(dispatcher, own, own, shared, lambda: None, can_tell_dead=lambda: can_tell_dead)


def end(
    known: RequestOutcomes, uuid: str, target: Target, outcome: RequestOutcome, state: str, took_s: float = 0.1
) -> bool:
    return known.record_result(Ended(uuid, target, outcome, took_s), state, "root", 1.5)


@pytest.mark.parametrize(("others_run", "state"), [(True, TargetState.UP), (False, TargetState.DOWN)])
def test_a_proxy_that_waits_too_short_is_no_outage_while_others_run(
    dispatcher: Dispatcher, target: Target, others_run: bool, state: TargetState
) -> None:
    """Forty jobs that wait in Odoo for longer: 47 times it was called down, and they were asked for 87 times."""
    known = outcomes(dispatcher)
    dispatcher.now_s = time.monotonic() - 100
    assert not end(known, "first", target, RequestOutcome(End.ANSWERED, 200, ""), "done")
    for number in range(40):
        if others_run:  # of any database
            target.server.succeeded(time.monotonic_ns())
        assert end(known, str(number), target, CUT, "enqueued", 5.0), "it is given back"
    assert target.breaker.state is state


def test_what_cannot_be_reached_is_down_for_all_in_one_line(
    dispatcher: Dispatcher, target: Target, logged: list[Any]
) -> None:
    """The line names no database; requests that were open together add none, and this one's own health is as before."""
    known = outcomes(dispatcher)
    for number in range(5):
        end(known, str(number), target, RequestOutcome(End.UNASKED, None, "Connection refused"), "enqueued")
    assert target.server.is_down
    assert target.is_down, "nothing more is sent in this turn"
    assert target.breaker.state is TargetState.UNKNOWN
    (line,) = [each for each in logged if each["event"] == "target_down"]
    assert (line["log_level"], line["reason"], "database" in line) == ("error", "Connection refused", False)


def test_what_is_refused_is_of_the_database(dispatcher: Dispatcher, target: Target, logged: list[Any]) -> None:
    known = outcomes(dispatcher)
    for number in range(5):
        end(known, str(number), target, RequestOutcome(End.ANSWERED, 303, ""), "enqueued")
    assert not target.server.is_down
    assert target.breaker.state is TargetState.DOWN
    (line,) = [each for each in logged if each["event"] == "target_down"]
    assert line["database"] == "db"


@pytest.mark.parametrize("answers", [True, False])
def test_what_may_be_of_either_waits_for_a_probe(
    dispatcher: Dispatcher, target: Target, logged: list[Any], answers: bool
) -> None:
    """A connection that is closed without an answer: a probe that fails makes it the server's, and not this one's."""
    known = outcomes(dispatcher)
    for number in range(5):
        end(known, str(number), target, RequestOutcome(End.LOST, None, "closed"), "enqueued")
    known.look()
    assert not [each for each in logged if each["event"] == "target_down"]
    assert target.server.take_probe()
    verdict = target.server.probed(time.monotonic_ns(), "" if answers else "Connection refused")
    dispatcher.connectivity.verdicts.append((target, verdict))
    dispatcher.connectivity.look_at_servers()
    known.look()
    (line,) = [each for each in logged if each["event"] == "target_down"]
    assert ("database" in line) is answers
    assert target.breaker.state is (TargetState.DOWN if answers else TargetState.UNKNOWN)


def test_the_line_of_a_job_tells_its_channel_and_how_long_it_waited(
    dispatcher: Dispatcher, target: Target, logged: list[Any]
) -> None:
    end(outcomes(dispatcher), "u", target, RequestOutcome(End.ANSWERED, 200, "HTTP 200"), "done", 2.25)
    (line,) = logged
    assert (line["event"], line["channel"], line["waited_s"], line["duration_s"]) == ("job_finished", "root", 1.5, 2.25)


def test_without_log_jobs_only_warnings_are_told_of_jobs(
    dispatcher: Dispatcher, target: Target, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "jobs_wanted", False)
    known = outcomes(dispatcher)
    end(known, "u", target, RequestOutcome(End.ANSWERED, 200, "HTTP 200"), "done")
    end(known, "v", target, RequestOutcome(End.ANSWERED, 500, "HTTP 500"), "failed")
    end(known, "w", target, RequestOutcome(End.LOST, None, "closed"), "started", 1.0)
    assert [line["event"] for line in logged] == ["job_unanswered"]


@pytest.mark.parametrize(("can_tell_dead", "names"), [(True, False), (False, True)])
def test_a_job_that_still_runs_is_not_finished(
    dispatcher: Dispatcher, target: Target, logged: list[Any], can_tell_dead: bool, names: bool
) -> None:
    known = outcomes(dispatcher, can_tell_dead=can_tell_dead)
    assert not end(known, "u", target, RequestOutcome(End.LOST, None, "closed"), "started", 1.0)
    (event,) = logged
    assert (event["event"], event["log_level"]) == ("job_unanswered", "warning")
    assert ("qjsupervisor requeue" in event["reason"]) is names
    assert target.breaker.state is TargetState.UP, "it did run it"
