"""When a worker wakes because more may be sent; requests themselves are in tests/integration/test_dispatch.py."""

from __future__ import annotations

import time

import pytest

from qjsupervisor.job import Pending
from qjsupervisor.odoo.breaker import ACCEPTED_AFTER_S, UNPROVEN_LIMIT

from .play import Play


@pytest.mark.parametrize("down", [True, False])
def test_a_pause_that_ends_between_the_turn_and_the_sleep_is_not_slept_over(play: Play, down: bool) -> None:
    """A job waited for 20 s, as the pause of its target had ended a millisecond before its worker went to sleep."""
    (target,) = play.dispatcher.targets
    if down:
        target.breaker.failed(time.monotonic(), "HTTP 404", "7")
        ends_s = target.breaker.retry_at_s
    else:
        ends_s = time.monotonic() + ACCEPTED_AFTER_S
        for uuid in "abcdefgh"[:UNPROVEN_LIMIT]:
            play.dispatcher.send(uuid)
    play.serving.backlog.forget(1)
    play.serving.backlog.put(Pending((10, 2, 2), "root", None))
    play.turn(ends_s - 0.001, start=True)
    assert not play.rows.claims
    assert play.loop.next_s() <= ends_s + 0.1
    while play.turn(ends_s + 0.1, start=True) and not play.rows.claims:
        pass
    assert play.rows.claims == [2]
