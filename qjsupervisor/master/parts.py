"""What the master is built on, each part replaceable by a test: the table, forks, signals, what children run."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ..channelspec import ChannelSpec
from ..control import Pipe
from .child import ChildSpawner


class Table(Protocol):
    """What the master needs of semaphore.SemaphoreTable; see there."""

    @property
    def slots(self) -> int: ...
    @property
    def start_barrier_open(self) -> bool: ...
    def open_start_barrier(self) -> None: ...
    def assign(self, slot: int, database: str, weight: int) -> None: ...
    def try_vacate(self, slot: int) -> bool: ...
    def try_configure(self, channels: Sequence[ChannelSpec]) -> bool: ...
    def try_after_death(self, slot: int) -> bool: ...
    def try_give_up(self, slot: int) -> bool: ...
    def stuck_owner(self, now_ns: int) -> int | None: ...
    def heartbeat_age_s(self, slot: int, now_ns: int) -> float: ...
    def silent_holders(self, now_ns: int, silence_ns: int) -> Sequence[int]: ...
    def slot_view(self, slot: int) -> Any: ...
    def channel_views(self) -> Iterable[Any]: ...
    def holders(self) -> Mapping[str, Sequence[Any]]: ...


#: run_worker(settings, table, slot, pipe) -> exit code; runs in the child.
RunWorker = Callable[[Any, Any, int, Pipe], int]
#: run_scout(config, pipe) -> exit code; runs in the child.
RunScout = Callable[[Any, Pipe], int]
#: run_monitor(config, table, pipe) -> exit code; runs in the child.
RunMonitor = Callable[[Any, Any, Pipe], int]


class Seams(NamedTuple):
    """What the parts of a running master share."""

    table: Table
    spawner: ChildSpawner
    selector: selectors.BaseSelector
    run_worker: RunWorker
    run_scout: RunScout
    run_monitor: RunMonitor
    kill: Callable[[int, int], None] = os.kill
