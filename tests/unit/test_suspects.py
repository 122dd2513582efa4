"""Jobs under whose claim the connection ended: claimed alone, and deferred where that ends it again."""

from __future__ import annotations

import pytest

from qjsupervisor.errors import DatabaseUnavailable
from qjsupervisor.job import Pending
from qjsupervisor.worker.jobs import State
from qjsupervisor.worker.suspects import BREAKS

from .play import Play


def fails(play: Play) -> None:
    """A turn whose claim ends the connection, and the read after it."""
    play.rows.error = DatabaseUnavailable("db", "server closed the connection unexpectedly")
    play.rows.error.refused = True
    with pytest.raises(DatabaseUnavailable):
        play.turn(1000.0)
    play.rows.error = None
    play.serving.offline.lost(1000.0)


@pytest.fixture
def suspected(wide: Play) -> Play:
    """Two jobs that were claimed together, as the connection ended, as often as it takes."""
    wide.serving.backlog.forget(1)
    wide.ends_done()
    for job_id in (2, 3):
        wide.serving.backlog.put(Pending((10, job_id, job_id), "root", None))
    for _ in range(BREAKS):
        fails(wide)
        for job_id in (2, 3):
            wide.serving.backlog.put(Pending((10, job_id, job_id), "root", None))
    return wide


def test_they_are_claimed_alone(suspected: Play) -> None:
    assert {suspected.serving.jobs.of(job_id).broke for job_id in (2, 3)} == {BREAKS}
    suspected.rows.claims.clear()
    suspected.turn(1000.1)
    assert suspected.rows.claims == [2]


def test_one_that_ends_the_connection_alone_is_deferred(suspected: Play) -> None:
    suspected.rows.id, suspected.rows.state = 2, "pending"
    fails(suspected)
    suspected.serving.backlog.put(Pending((10, 2, 2), "root", None))
    suspected.rows.claims.clear()
    while suspected.turn(1000.2):
        pass
    assert 2 not in suspected.rows.claims
    assert suspected.serving.jobs.state(2) is State.DEFERRED
