"""The tree of one database: from its own rows, or from the shared table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from qjsupervisor.backlog.backlog import Backlog
from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config.channel_string import parse_channels
from qjsupervisor.config.load import load
from qjsupervisor.errors import DatabaseUnfit
from qjsupervisor.states import Fairness
from qjsupervisor.table.channels import SPARE_CHANNELS
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.table.slot import WorkerSlot
from qjsupervisor.worker.trees import own_tree, shared_tree

Row = tuple[Any, ...]


def row(name: str | None, capacity: int | None = 0, **settings: Any) -> Row:
    """As queries.CHANNELS."""
    keys = ("sequential", "throttle", "paused", "capacity_default", "sequential_default")
    return (name, capacity, *(settings.get(key) for key in keys))


def tree(*rows: Row, root_capacity: int | None = 10) -> Backlog:
    text = "" if root_capacity is None else str(root_capacity)
    environ = {"ODOO_QUEUE_JOB_MAX_CAPACITY": "50", "ODOO_QUEUE_JOB_DB_MAX_CAPACITY": text}
    return own_tree(load({}, environ).worker_settings("db"), list(rows))


class TestOwnTree:
    @pytest.mark.parametrize(
        ("own", "limit", "capacity"), [(0, 10, 10), (4, 10, 4), (20, 10, 10), (None, 10, 10), (4, 0, 0), (0, None, 50)]
    )
    def test_the_root_has_the_smaller_limit(self, own: int | None, limit: int | None, capacity: int) -> None:
        assert tree(row("root", own), root_capacity=limit).nodes["root"].spec.capacity == capacity

    def test_there_is_a_root_without_a_row(self) -> None:
        assert tree().nodes["root"].spec == ChannelSpec(name="root", capacity=10)

    def test_settings(self) -> None:
        made = tree(
            row("root", 0, paused=True),
            row("root.a", 3, throttle=5, capacity_default=2),
            row("root.a.b", 1, sequential=True),
            row("root.c", 0, sequential_default=True, capacity_default=1),
        )
        assert made.nodes["root"].spec.paused
        assert made.nodes["root.a"].spec == ChannelSpec(name="root.a", capacity=3, throttle_s=5, capacity_default=2)
        assert made.nodes["root.a.b"].spec == ChannelSpec(name="root.a.b", capacity=1, sequential=True)
        assert made.node_for("c.x").spec == ChannelSpec(name="root.c.x", capacity=1, sequential=True, made=True)
        assert made.node_for("a.x").spec.capacity == 2

    def test_only_the_root_is_shared(self) -> None:
        made = tree(row("root"), row("root.a", 3), row("root.a.b", 2))
        assert {node.shared for node in made.nodes.values()} == {0}
        assert all(node.local_limits for node in made.nodes.values())

    def test_rows_may_come_in_any_order_and_leave_out_ancestors(self) -> None:
        made = tree(row("root.a.b.c", 2), row("root"))
        assert list(made.nodes) == ["root", "root.a", "root.a.b", "root.a.b.c"]
        assert made.nodes["root.a.b"].spec.capacity is None
        assert made.nodes["root.a.b.c"].parent is made.nodes["root.a.b"]

    @pytest.mark.parametrize(
        ("bad", "why"),
        [
            (row("other"), "not below 'root'"),
            (row(None), "not below 'root'"),
            (row("rootless"), "not below 'root'"),
            (row("root.a", -1), "negative capacity"),
            (row("root.a", 1, throttle=-1), "negative throttle"),
            (row("root.a", 1, capacity_default=-1), "negative default capacity"),
            (row("root.a", 2, sequential=True), "needs capacity 1, not 2"),
            (row("root.a", None, sequential=True), "needs capacity 1, not 0"),
            (row("root.a", 2, sequential_default=True, capacity_default=2), "needs default capacity 1"),
        ],
    )
    def test_an_invalid_tree_is_refused_with_the_reason(self, bad: Row, why: str) -> None:
        with pytest.raises(DatabaseUnfit, match=why):
            tree(row("root"), bad)


class TestSharedTree:
    @pytest.fixture
    def worker_slot(self) -> Iterator[WorkerSlot]:
        channels = parse_channels("root:9, a:4:capacity_default=2, a.b:1:sequential")
        table = SemaphoreTable(channels, slots=1, fairness=Fairness.ROUND_ROBIN)
        table.assign(0, "db", 1)
        table.open_start_barrier()
        worker_slot = table.worker_slot(0)
        worker_slot.attach()
        yield worker_slot
        for wakeup in table.core.wakeups:
            os.close(wakeup)

    def test_every_configured_channel_is_shared_and_limited_there(self, worker_slot: WorkerSlot) -> None:
        made = shared_tree(worker_slot, window=5)
        assert [node.shared for node in made.nodes.values()] == [0, 1, 2]
        assert not any(node.local_limits for node in made.nodes.values())

    def test_what_defaults_make_is_shared_too(self, worker_slot: WorkerSlot) -> None:
        node = shared_tree(worker_slot, window=5).node_for("a.x")
        assert (node.shared, node.local_limits) == (3, False)
        again = worker_slot.channels()[3]
        assert again is not None
        assert (again.name, again.capacity) == ("root.a.x", 2)

    def test_what_another_database_made_gives_no_defaults_itself(self, worker_slot: WorkerSlot) -> None:
        shared_tree(worker_slot, window=5).node_for("a.x")
        node = shared_tree(worker_slot, window=5).node_for("a.x.y")
        assert (node.name, node.spec.capacity, node.parent and node.parent.name) == ("root.a.x.y", 2, "root.a")

    def test_where_the_table_is_full_a_default_limits_this_database_alone(self, worker_slot: WorkerSlot) -> None:
        told: list[str] = []
        made = shared_tree(worker_slot, window=5, on_full=told.append)
        nodes = [made.node_for(f"a.made{number}") for number in range(SPARE_CHANNELS + 5)]
        local = [node for node in nodes if node.local_limits]
        assert 0 < len(local) < SPARE_CHANNELS
        assert told == [local[0].spec.name]
        assert {node.shared for node in local} == {1}
        assert {node.spec.capacity for node in nodes} == {2}


def test_options_give_the_channels_of_a_database_minimums_that_have_to_fit() -> None:
    rows = [("root", 4, False, 0, False, None, False), ("root.a", 3, False, 0, False, None, False)]
    config = {"channel_options": "a:min=50%:max=2:weight=3,b:min=1:reserve"}
    settings = load(config, {"ODOO_RC": "/dev/null", "ODOO_QUEUE_JOB_MAX_CAPACITY": "9"}).worker_settings("db1")
    specs = {name: node.spec for name, node in own_tree(settings, rows).nodes.items()}
    assert (specs["root.a"].capacity, specs["root.a"].minimum, specs["root.a"].weight) == (2, 2, 3)
    assert (specs["root.b"].minimum, specs["root.b"].reserve) == (1, True)
    with pytest.raises(DatabaseUnfit, match=r"minimums below it are 2 \(root.a 1, root.b 1\), 1 more than 1") as raised:
        own_tree(settings, [("root", 1, *rows[0][2:]), ("root.a", 2, *rows[0][2:])])
    assert "channel_options do not go with its channel tree" in str(raised.value)
