"""Permits while the database cannot be asked."""

from __future__ import annotations

import pytest

from qjsupervisor.odoo.request import End, RequestOutcome

from .play import Play


@pytest.mark.parametrize(("status", "running"), [(200, 0), (500, 1), (502, 1)])
def test_while_the_database_is_away_only_success_gives_a_permit_back(play: Play, status: int, running: int) -> None:
    """A job that PostgreSQL went away under ends with a 500, and its row stays `started`."""
    play.ends(RequestOutcome(End.ANSWERED, status, f"HTTP {status}"))
    play.serving.offline.settle_unread(1000.0, gave_up=False)
    assert play.running == running


def test_what_is_given_up_is_all_but_the_open_requests(wide: Play) -> None:
    """What only a row speaks for counts no longer; a request that is open does."""
    wide.serving.backlog.hold(7, "root")
    wide.serving.settle()
    assert wide.running == 2
    assert wide.serving.offline.give_up(1000.0) == 1
    assert wide.running == 1
    assert wide.serving.backlog.is_held(1)


def test_another_runner_leads_so_nothing_is_held(wide: Play) -> None:
    wide.serving.backlog.hold(7, "root")
    wide.serving.settle()
    wide.serving.offline.let_go(1000.0)
    assert wide.running == 0
