"""Channel trees and jobs, in short."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qjsupervisor.backlog.backlog import Backlog
from qjsupervisor.backlog.names import only_root
from qjsupervisor.backlog.tree import ChannelTree
from qjsupervisor.config.channel_string import parse_channels
from qjsupervisor.job import Pending
from tests.differential import Ours, OursShared


@pytest.fixture(params=[Ours, OursShared], ids=["per_database", "server_wide"])
def ours(request: pytest.FixtureRequest) -> Iterator[type[Ours]]:
    """The two forms of our channel tree; what is made of them is closed."""
    made: list[Ours] = []

    class Kept(request.param):  # type: ignore[name-defined]
        def __init__(self, *args: object) -> None:
            super().__init__(*args)
            made.append(self)

    yield Kept
    for manager in made:
        manager.close()


def tree_of(channels: str, window: int = 1000) -> Backlog:
    return Backlog(parse_channels(channels), only_root(), window)


def job(job_id: int, channel: str | None = None, eta_us: int | None = None, priority: int = 10) -> Pending:
    return Pending((priority, 0, job_id), channel, eta_us)


def started(tree: ChannelTree, now_us: int = 0, budget: int = 1000) -> list[int]:
    """What starts now, in order."""
    tree.prepare(now_us, budget)
    while tree.wanted_channels:
        tree.take(tree.best(tree.wanted_channels))
    taken, tree.taken = tree.taken, []
    return taken
