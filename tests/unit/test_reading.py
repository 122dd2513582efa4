"""When a worker reads its table again."""

from __future__ import annotations

import math

from qjsupervisor.backlog.backlog import Backlog
from qjsupervisor.backlog.names import only_root
from qjsupervisor.config.channel_string import parse_channels
from qjsupervisor.loop import Loop
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.waiter import Waiter
from qjsupervisor.worker.reading import Reading


def test_a_read_that_comes_too_soon_after_a_failed_one_says_when_it_may_begin() -> None:
    """Nothing else need happen until then, so that the loop has to wake for it; and once only."""
    with Loop() as loop:
        # A port that nobody listens on: libpq says so at once.
        refused = {"host": "127.0.0.1", "port": 1, "dbname": "db"}
        woken: list[float] = []
        reading = Reading(Database("db", refused, Waiter(lambda: None)), loop, 10, woken.append)
        tree = Backlog(parse_channels("root:1"), only_root(), 10)
        while not reading.error:
            reading.start(tree, None, 0.0)
            loop.turn(1)
        assert not reading.busy
        assert not reading.start(tree, None, 0.0)
        loop.run_due(loop.next_s())
        assert len(woken) == 1
        assert loop.next_s() == math.inf
