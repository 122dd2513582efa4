"""Who comes back when, after a connection was lost."""

from __future__ import annotations

import pytest

from qjsupervisor.backoff import Backoff
from qjsupervisor.errors import DatabaseUnavailable
from qjsupervisor.postgres.failures import ADMIN_SHUTDOWN
from qjsupervisor.worker.comeback import AWAY_S, FORMER_FIRST_S, Comeback


@pytest.fixture
def comeback() -> Comeback:
    return Comeback(Backoff(first_s=0.5, limit_s=30, jitter=0.0))


def ended(sqlstate: str | None) -> DatabaseUnavailable:
    error = DatabaseUnavailable("db", "gone")
    error.sqlstate = sqlstate
    return error


def test_an_administrator_who_ends_the_session_has_five_seconds(comeback: Comeback) -> None:
    again_s = comeback.lost(ended(ADMIN_SHUTDOWN), 100.0, led=True, stood_by=False, server="monday")
    assert again_s == 100.5, "a look whether the server was restarted"
    assert comeback.stays_away_until_s("monday", again_s) == 100.0 + AWAY_S
    assert comeback.stays_away_until_s("monday", 100.0 + AWAY_S) is None


def test_a_server_that_was_restarted_is_served_at_once(comeback: Comeback) -> None:
    comeback.lost(ended(ADMIN_SHUTDOWN), 100.0, led=True, stood_by=False, server="monday")
    assert comeback.stays_away_until_s("tuesday", 100.5) is None


def test_a_server_that_is_down_was_stopped_by_nobody_who_wants_the_database(comeback: Comeback) -> None:
    comeback.lost(ended(ADMIN_SHUTDOWN), 100.0, led=True, stood_by=False, server="monday")
    comeback.lost(ended(None), 100.5, led=False, stood_by=False, server="monday")
    assert comeback.stays_away_until_s("monday", 101.0) is None


def test_a_standby_lets_the_former_leader_go_first_once(comeback: Comeback) -> None:
    comeback.lost(ended(None), 100.0, led=False, stood_by=True, server="monday")
    comeback.lost(ended(None), 100.5, led=False, stood_by=False, server="")
    assert comeback.may_lead_at_s(110.0) == 110.0 + FORMER_FIRST_S
    assert comeback.may_lead_at_s(120.0) == 120.0


def test_the_former_leader_is_there_before_that(comeback: Comeback) -> None:
    """Its pauses stay short for a while, however long the server is down."""
    now_s, pauses = 100.0, []
    due_s = comeback.lost(ended(None), now_s, led=True, stood_by=False, server="monday")
    while due_s < 155.0:
        pauses.append(due_s - now_s)
        now_s, due_s = due_s, comeback.lost(ended(None), due_s, led=False, stood_by=False, server="")
    assert max(pauses) < FORMER_FIRST_S / 1.9
    assert comeback.may_lead_at_s(now_s) == now_s
