"""Background reads, against a real PostgreSQL."""

from __future__ import annotations

import time

import pytest

from qjsupervisor.backlog.backlog import Backlog
from qjsupervisor.backlog.names import only_root
from qjsupervisor.config.channel_string import parse_channels
from qjsupervisor.job import Pending
from qjsupervisor.loop import Loop
from qjsupervisor.postgres import queries
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.waiter import Waiter
from qjsupervisor.worker.reading import Reading

from ..conftest import DatabaseFactory


def finish(reading: Reading, loop: Loop) -> None:
    while reading.busy:
        loop.turn(5)


def test_a_read_that_is_overtaken_by_changes_says_so(database: DatabaseFactory) -> None:
    """Nothing of it is kept; whoever cannot do without reads where nothing can change meanwhile."""
    one = database()
    one.insert_jobs(3)
    connected = Database(one.name, one.dsn(), Waiter(lambda: None))
    connected.connect()
    tree = Backlog(parse_channels("root:1"), only_root(), window=1)
    tree.prepare(0, 0)
    tree.load_head([], [Pending((10, 0, 900), None, None)])
    with Loop() as loop:
        reading = Reading(connected, loop, 1)
        assert reading.start(tree, None, 1.0)
        for number in range(9):
            tree.put(Pending((10, 1, 1000 + number), None, None))
        finish(reading, loop)
        assert (reading.overtaken, reading.loaded, tree.partial) == (True, None, True)
        reading.read_all(tree)
        assert (reading.overtaken, tree.partial) == (False, False)
        assert tree.node_for(None).pending == 3
        assert reading.start(tree, None, 2.0)
        finish(reading, loop)
        assert not reading.overtaken
        assert reading.loaded is not None
    connected.close()


@pytest.mark.parametrize("ageing_s", [0.0, 0.001, 60.0, 86400.0])
def test_the_server_and_we_put_jobs_into_the_same_order(database: DatabaseFactory, ageing_s: float) -> None:
    """Or a window would not hold the best ones. Also where rows hold what nobody expects, and jobs are alike."""
    one = database()
    one.execute(
        """INSERT INTO queue_job (uuid, channel, state, priority, date_created, eta, retry, max_retries)
           SELECT 'u-' || n, 'root', 'pending',
                  (ARRAY[NULL, 10, 5, 0, -7, 11, 2147483647, -2147483648])[1 + n % 8],
                  CASE n % 7 WHEN 0 THEN NULL WHEN 1 THEN 'infinity' WHEN 2 THEN '0001-01-01'
                       ELSE timestamp '2026-01-01' + (n * 7919 % 300) * interval '13.000001 s' END,
                  CASE n % 5 WHEN 0 THEN timestamp '2026-01-01' + (n % 40) * interval '97 s' END, 0, 5
             FROM generate_series(1, 400) n"""
    )
    connected = Database(one.name, one.dsn(), Waiter(lambda: None))
    connected.connect()
    connected.ageing_s = ageing_s
    tree = Backlog(parse_channels("root:1"), only_root(), window=400)
    tree.prepare(time.time_ns() // 1000, 1000)
    with Loop() as loop:
        Reading(connected, loop, 400).read_all(tree)
    mine = [key[2] for key in tree.node_for(None).ready.items]
    statement = f"SELECT id FROM queue_job ORDER BY {queries.JOB_ORDER}"
    theirs = [row[0] for row in connected.rows(queries.in_order(statement, ages=ageing_s > 0), {"ageing_s": ageing_s})]
    assert len(mine) == 400
    assert mine == theirs
    connected.close()
