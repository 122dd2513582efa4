"""Stand-ins for what the master supervises: no fork, no socket, no shared memory."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.control import Message
from qjsupervisor.master.child import Body
from qjsupervisor.states import TargetState


class FakePipe:
    """The master's end: what the child said, and what it was told."""

    def __init__(self) -> None:
        self.said: list[Message | Exception] = []
        self.told: list[Mapping[str, Any]] = []
        self.full = False
        self.closed = False

    def receive_all(self) -> list[Message]:
        messages: list[Message] = []
        while self.said:
            if isinstance(self.said[0], Exception):
                if messages:
                    break
                raise self.said.pop(0)
            messages.append(self.said.pop(0))  # type: ignore[arg-type]
        return messages

    def send(self, message: Mapping[str, Any]) -> bool:
        if not self.full:
            self.told.append(message)
        return not self.full

    def close(self) -> None:
        self.closed = True


class FakeChild:
    """A process that notes its signals."""

    def __init__(self, pid: int, title: str) -> None:
        self.pid = pid
        self.title = title
        self.pipe = FakePipe()
        self.signals: list[int] = []

    def signal(self, signum: int) -> None:
        self.signals.append(signum)


class FakeNursery:
    """Forks nothing; `error` is raised instead, once each time it is set."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []
        self.error: OSError | None = None
        self._pids = itertools.count(1001)

    def spawn(self, title: str, body: Body) -> FakeChild:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.children.append(FakeChild(next(self._pids), title))
        return self.children[-1]


class FakeSelector:
    """Knows who is listened to."""

    def __init__(self) -> None:
        self.registered: dict[Any, Any] = {}

    def register(self, source: Any, _events: int, data: Any = None) -> None:
        assert source not in self.registered
        self.registered[source] = data

    def unregister(self, source: Any) -> None:
        del self.registered[source]


class View(NamedTuple):
    """As tableviews.SlotView."""

    database: str = ""
    pid: int = 0
    epoch: int = 0
    weight: int = 1
    heartbeat_ns: int = 0
    pending: int = 0
    running: int = 0
    failed: int = 0
    waiting: int = 0
    dispatched: int = 0
    finished: int = 0
    target_state: TargetState = TargetState.UNKNOWN
    target_failures: int = 0
    target_retry_ns: int = 0
    waiting_since_ns: int = 0
    message: str = ""


class ChannelView(NamedTuple):
    """As tableviews.ChannelView."""

    name: str
    capacity: int | None = 1
    running: int = 0
    pending: int = 0
    failed: int = 0
    sequential: bool = False
    throttle_s: float = 0
    paused: bool = False
    retired: bool = False
    throttled_until_ns: int = 0


class Holder(NamedTuple):
    """As tableviews.Holder."""

    database: str
    running: int
    pending: int


class FakeTable:
    """Notes the calls; `busy` says how many `try_...` calls find the lock taken."""

    def __init__(self, slots: int = 4) -> None:
        self.slots = slots
        self.start_barrier_open = False
        self.busy = 0
        self.calls: list[tuple[Any, ...]] = []
        self.ages_s: dict[int, float] = {}
        self.owner: int | None = None
        self.silent: list[int] = []
        self.views: dict[int, View] = {}
        self.channels: list[ChannelView] = []
        self.held: dict[str, list[Holder]] = {}

    def open_start_barrier(self) -> None:
        self.start_barrier_open = True

    def assign(self, slot: int, database: str, weight: int) -> None:
        self.calls.append(("assign", slot, database, weight))

    def _try(self, *call: Any) -> bool:
        if self.busy:
            self.busy -= 1
            return False
        self.calls.append(call)
        return True

    def try_vacate(self, slot: int) -> bool:
        return self._try("vacate", slot)

    def try_configure(self, channels: Sequence[ChannelSpec]) -> bool:
        return self._try("configure", *(each.name for each in channels))

    def try_after_death(self, slot: int) -> bool:
        return self._try("after_death", slot)

    def try_give_up(self, slot: int) -> bool:
        return self._try("give_up", slot)

    def stuck_owner(self, now_ns: int) -> int | None:
        return self.owner

    def heartbeat_age_s(self, slot: int, now_ns: int) -> float:
        return self.ages_s.get(slot, 0.0)

    def silent_holders(self, now_ns: int, silence_ns: int) -> list[int]:
        return self.silent

    def slot_view(self, slot: int) -> View:
        return self.views.get(slot, View())

    def channel_views(self) -> list[ChannelView]:
        return self.channels

    def holders(self) -> dict[str, list[Holder]]:
        return self.held
