"""Nodes of a channel tree: their alarms and what a failed job stops."""

from __future__ import annotations

from qjsupervisor.backlog.nodes import Alarms, Node
from qjsupervisor.channelspec import ChannelSpec

from .channel_trees import tree_of


def test_what_a_failed_job_stops_is_known_with_the_first_such_job() -> None:
    tree = tree_of("root:4,seq:1:sequential,free:4")
    assert tree.stops_changed, "nobody took note of it yet"
    tree.stops_changed = False
    tree.fail(1, "free")
    assert not tree.stops_changed
    for job_id in (7, 3):
        tree.fail(job_id, "seq")
    assert tree.stops_changed
    assert tree.stops() == [("root.seq", 2, 3, False)]
    tree.forget(3)
    assert tree.stops() == [("root.seq", 1, 7, False)]
    tree.stops_changed = False
    tree.forget(7)
    assert tree.stops_changed
    assert tree.stops() == []


def test_alarms_forget_what_was_changed() -> None:
    spec = ChannelSpec(name="root", capacity=None)
    node = Node(spec, None, 0, 10, local_limits=True)
    alarms = Alarms()
    for moment in range(10_000):
        alarms.set(node, 10_000 - moment % 7)
    assert alarms.first_us() == 10_000 - 9_999 % 7
    assert len(alarms._heap) < 100
    alarms.set(node, None)
    assert alarms.first_us() is None
    assert list(alarms.due(1 << 60)) == []
