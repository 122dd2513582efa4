"""What the master is built on: the table, the loop, forks, signals, what children run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..channelspec import ChannelSpec, Share
from ..control import Pipe
from ..loop import Loop
from ..monitor.monitor import run_monitor
from ..porter.settings import PorterSettings
from ..scout.scout import run_scout
from ..table.semaphore import SemaphoreTable
from ..worker.worker import run_worker
from .child import ChildSpawner
from .clock_watch import ClockWatch
from .database_log import DatabaseLog
from .notify import Notifier


class Table(Protocol):
    """What the master uses of table.semaphore.SemaphoreTable; see there."""

    @property
    def slots(self) -> int: ...
    @property
    def start_barrier_open(self) -> bool: ...
    def open_start_barrier(self) -> None: ...
    def assign(self, slot: int, database: str, weight: int, share: Share) -> None: ...
    def try_share(self, shares: Mapping[int, Share]) -> bool: ...
    def try_vacate(self, slot: int) -> bool: ...
    def check_room(self, channels: Sequence[ChannelSpec]) -> None: ...
    def try_configure(self, channels: Sequence[ChannelSpec]) -> bool: ...
    def try_adjust(self, channels: Sequence[ChannelSpec]) -> bool: ...
    def kept_starts(self, now_s: float, wall_s: float) -> Any: ...
    def restore_starts(self, kept: Any, now_s: float, wall_s: float) -> bool: ...
    def try_after_death(self, slot: int) -> bool: ...
    def try_give_up(self, slot: int) -> bool: ...
    def stuck_owner(self, now_ns: int) -> int | None: ...
    def heartbeat_age_s(self, slot: int, now_ns: int) -> float: ...
    def broker_age_s(self, now_ns: int) -> float: ...
    def silent_holders(self, now_ns: int, silence_ns: int) -> Sequence[int]: ...
    def slot_view(self, slot: int) -> Any: ...
    def channel_views(self) -> Iterable[Any]: ...
    def server_views(self) -> Iterable[Any]: ...
    def holders(self) -> Mapping[str, Sequence[Any]]: ...


#: run_worker(settings, table, slot, pipe) -> exit code; runs in the child.
RunWorker = Callable[[Any, Any, int, Pipe], int]
#: run_broker(settings, table, pipe) -> exit code; runs in the child.
RunBroker = Callable[[Any, Any, Pipe], int]
#: run_porter(settings, pipe) -> exit code; runs in the child.
RunPorter = Callable[[PorterSettings, Pipe], int]
#: run_scout(config, pipe, first) -> exit code; runs in the child.
RunScout = Callable[[Any, Pipe, Sequence[str]], int]
#: run_monitor(config, table, pipe, listener=socket or None) -> exit code; runs in the child.
RunMonitor = Callable[..., int]


def _run_porter(settings: PorterSettings, pipe: Pipe) -> int:
    """Imported in the porter alone: most supervisors have none."""
    from ..porter.porter import run_porter

    return run_porter(settings, pipe)


@dataclass(eq=False, repr=False, kw_only=True)
class MasterParts:
    """The collaborators of a master; tests replace some. The master adds the last four at its start."""

    run_worker: RunWorker = run_worker
    run_scout: RunScout = run_scout
    run_monitor: RunMonitor = run_monitor
    #: None: the broker's own; nothing of the broker is imported where there is no cluster.
    run_broker: RunBroker | None = None
    run_porter: RunPorter = _run_porter
    table_factory: Callable[..., Table] = SemaphoreTable
    fork: Callable[[], int] = os.fork
    kill: Callable[[int, int], None] = os.kill
    clock: Callable[[], float] = time.monotonic
    #: UTC seconds.
    wall: Callable[[], float] = time.time
    #: See ClockWatch.
    watch_clock: Callable[[Loop, Callable[[float], None]], ClockWatch] = ClockWatch
    notifier: Notifier = field(default_factory=Notifier)

    loop: Loop = field(init=False)
    #: For lines about single databases.
    database_log: DatabaseLog = field(init=False)
    table: Table = field(init=False)
    spawner: ChildSpawner = field(init=False)
