"""Views of the table while others change it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.states import Fairness
from qjsupervisor.table.layout import Cell
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.table.words import Tree

ROOT = ChannelSpec(name="root", capacity=4)
NEW = ChannelSpec(name="root.new", capacity=1)


@pytest.mark.parametrize(
    "view",
    [
        SemaphoreTable.channel_views,
        SemaphoreTable.holders,
        SemaphoreTable.waiting,
    ],
)
def test_a_channel_that_is_added_between_two_looks_at_the_tree(
    monkeypatch: pytest.MonkeyPatch, view: Callable[[SemaphoreTable], object]
) -> None:
    """A worker shares one just when the master is asked for its status: that ended the master, and so everybody."""
    table = SemaphoreTable([ROOT], slots=2, fairness=Fairness.ROUND_ROBIN)
    table.assign(0, "db", 1)
    table.core.add_held(0, 0, 1, 0)
    look = table.core.tree

    def look_and_be_overtaken() -> Tree:
        found = look()
        if len(found.names) == 1:
            monkeypatch.setattr(table.core, "tree", look)
            assert table.try_configure([ROOT, NEW])
            table.core.add_held(0, 1, 1, 0)
            table.core.words[table.core.cell_base(0, 1) + Cell.PENDING] = 1
        return found

    monkeypatch.setattr(table.core, "tree", look_and_be_overtaken)
    view(table)
    monkeypatch.setattr(table.core, "tree", look)
    assert [each.running for each in table.channel_views()] == [2, 1]
