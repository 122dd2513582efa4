"""A small table of two databases, for tests of its words and its lock."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.states import Fairness
from qjsupervisor.table.core import TableCore
from qjsupervisor.table.layout import Channel
from qjsupervisor.table.semaphore import SemaphoreTable

S = 1_000_000_000
ROOT, SUB, LINE, SLOW = range(4)


@pytest.fixture
def core() -> Iterator[TableCore]:
    specs = [
        ChannelSpec(name="root", capacity=2),
        ChannelSpec(name="root.a", capacity=1),
        ChannelSpec(name="root.line", capacity=1, sequential=True),
        ChannelSpec(name="root.slow", capacity=None, throttle_s=5),
    ]
    table = SemaphoreTable(specs, slots=3, fairness=Fairness.ROUND_ROBIN)
    for slot, name in enumerate(("one", "two")):
        table.assign(slot, name, 1)
    table.open_start_barrier()
    yield table.core
    for wakeup in table.core.wakeups:
        os.close(wakeup)


def total(core: TableCore, channel: int) -> int:
    return core.words[core.channel_base(channel) + Channel.TOTAL]


def is_closed(core: TableCore, channel: int) -> bool:
    return bool(core.read_bitmap(core.layout.closed, core.layout.channels) >> channel & 1)
