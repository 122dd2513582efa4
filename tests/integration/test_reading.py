"""Reads aside, against a real PostgreSQL."""

from __future__ import annotations

from qjsupervisor.backlog.backlog import Backlog
from qjsupervisor.backlog.names import only_root
from qjsupervisor.config.channel_string import parse_channels
from qjsupervisor.job import Pending
from qjsupervisor.loop import Loop
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
