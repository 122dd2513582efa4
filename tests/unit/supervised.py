"""Stand-ins for what the master supervises: no fork, no socket, no shared memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.control import Message
from qjsupervisor.errors import ConfigError, SemaphoreError
from qjsupervisor.loop import Timers
from qjsupervisor.master.child import Body
from qjsupervisor.master.control_requests import ControlRequests
from qjsupervisor.master.control_socket import Deferred, Peer
from qjsupervisor.master.database_log import DatabaseLog
from qjsupervisor.master.operations import Operations
from qjsupervisor.master.parts import MasterParts
from qjsupervisor.master.pauses import Pauses
from qjsupervisor.states import TargetState, WorkerState


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

    def __init__(self, pid: int, title: str, body: Body) -> None:
        self.pid = pid
        self.title = title
        self.body = body
        self.pipe = FakePipe()
        self.signals: list[int] = []
        #: What it found in its pipe.
        self.orders: list[Message] = []

    def signal(self, signum: int) -> None:
        self.signals.append(signum)


class FakeSpawner:
    """Forks nothing; `error` is raised instead, once each time it is set."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []
        self.error: OSError | None = None
        self._pids = itertools.count(1001)

    def spawn(self, title: str, body: Body, orders: Sequence[Message] = ()) -> FakeChild:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        child = FakeChild(next(self._pids), title, body)
        child.pipe.told += orders
        child.orders = list(orders)
        self.children.append(child)
        return child


class FakeLoop(Timers):
    """Knows who is listened to; its timers run when a test says so."""

    def __init__(self, on_error: Callable[[Exception], None] | None = None) -> None:
        super().__init__(on_error)
        self.registered: dict[Any, Any] = {}

    def register(self, source: Any, _events: int, callback: Any) -> None:
        assert source not in self.registered
        self.registered[source] = callback

    def unregister(self, source: Any) -> None:
        del self.registered[source]

    def run_until(self, now_s: float) -> None:
        """Run all that is due, and what that makes due at once."""
        while self.next_s() <= now_s:
            self.run_due(now_s)


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
    waiting_since_ns: int = 0
    message: str = ""
    not_due: int = 0
    oldest_us: int = 0
    rate_since_ns: int = 0
    rate_finished: int = 0
    held: int = 0
    minimum: int = 0
    maximum: int = 0
    reserve: bool = False
    outcomes: tuple[int, ...] = (0,) * 6


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
    rate: int = 0
    rate_period_s: float = 0
    minimum: int = 0
    reserve: bool = False
    weight: int = 0
    rate_used: int = 0
    rate_opens_ns: int = 0
    stopped_by: tuple[str, ...] = ()


class ServerView(NamedTuple):
    """As views.ServerView."""

    name: str
    state: TargetState = TargetState.UNKNOWN
    failures: int = 0
    since_ns: int = 0
    retry_ns: int = 0
    reason: str = ""
    users: int = 1
    unanswered: int = 0


class Holder(NamedTuple):
    """As tableviews.Holder."""

    database: str
    running: int
    pending: int


class FakeTable:
    """Notes the calls; `busy` says how many `try_...` calls find the lock taken."""

    def __init__(self, slots: int = 4) -> None:
        self.slots = slots
        self.room = 100
        self.start_barrier_open = False
        self.busy = 0
        self.calls: list[tuple[Any, ...]] = []
        self.ages_s: dict[int, float] = {}
        self.servers: list[ServerView] = []
        self.owner: int | None = None
        self.silent: list[int] = []
        self.views: dict[int, View] = {}
        self.channels: list[ChannelView] = []
        self.held: dict[str, list[Holder]] = {}

    def open_start_barrier(self) -> None:
        self.start_barrier_open = True

    def try_share(self, shares: Any) -> bool:
        return self._try("share", shares)

    def assign(self, slot: int, database: str, weight: int, _share: Any = None) -> None:
        self.calls.append(("assign", slot, database, weight))

    def _try(self, *call: Any) -> bool:
        if self.busy:
            self.busy -= 1
            return False
        self.calls.append(call)
        return True

    def try_vacate(self, slot: int) -> bool:
        return self._try("vacate", slot)

    def kept_starts(self, _now_s: float, _wall_s: float) -> Any:
        return None

    def restore_starts(self, kept: Any, _now_s: float, _wall_s: float) -> bool:
        return kept is None

    def check_room(self, channels: Sequence[ChannelSpec]) -> None:
        if len(channels) > self.room:
            raise SemaphoreError("no room")

    def try_configure(self, channels: Sequence[ChannelSpec]) -> bool:
        return self._try("configure", *(each.name for each in channels))

    def try_adjust(self, channels: Sequence[ChannelSpec]) -> bool:
        return self._try("adjust", *((each.name, each.capacity, each.paused) for each in channels))

    def try_after_death(self, slot: int) -> bool:
        return self._try("after_death", slot)

    def try_give_up(self, slot: int) -> bool:
        return self._try("give_up", slot)

    def stuck_owner(self, now_ns: int) -> int | None:
        return self.owner

    def heartbeat_age_s(self, slot: int, now_ns: int) -> float:
        return self.ages_s.get(slot, 0.0)

    def broker_age_s(self, now_ns: int) -> float:
        return 0.0

    def silent_holders(self, now_ns: int, silence_ns: int) -> list[int]:
        return self.silent

    def slot_view(self, slot: int) -> View:
        return self.views.get(slot, View())

    def channel_views(self) -> list[ChannelView]:
        return self.channels

    def server_views(self) -> list[ServerView]:
        return self.servers

    def holders(self) -> dict[str, list[Holder]]:
        return self.held


CONFIG = load({}, {"ODOO_QUEUE_JOB_CHANNELS": "root:4", "ODOO_RC": "/dev/null"})


class Rig:
    """Everything but the master's loop, at a time that the test sets."""

    def __init__(
        self, config: Config = CONFIG, slots: int = 4, on_error: Callable[[Exception], None] | None = None
    ) -> None:
        """`on_error`: takes what a callback raises, as in the master."""
        self.now_s = 1000.0
        #: UTC, at the same moment.
        self.wall_offset_s = 1_790_000_000.0
        self.table = FakeTable(slots)
        self.table.channels = [ChannelView("root", capacity=4)]
        self.spawner = FakeSpawner()
        self.loop = FakeLoop(on_error)
        #: For lines about databases, which wait for others like them.
        self.log_loop = FakeLoop()
        self.killed: list[tuple[int, int]] = []
        self.next_config: Config | ConfigError = config
        self.stops = 0
        parts = MasterParts(
            run_worker=lambda *_: 0,
            run_scout=lambda *_: 0,
            run_monitor=lambda *_, **_named: 0,
            kill=lambda pid, signum: self.killed.append((pid, signum)),
            clock=lambda: self.now_s,
            wall=lambda: self.wall_s,
            watch_clock=self._watch_clock,
        )
        self.parts = parts
        parts.table = self.table
        parts.spawner = self.spawner  # type: ignore[assignment]
        parts.loop = self.loop  # type: ignore[assignment]
        self.database_log = parts.database_log = DatabaseLog(self.log_loop, lambda: self.now_s)
        self.operations = Operations(config, self._load_again, parts, Pauses())
        self.fleet, self.rescan = self.operations.fleet, self.operations.rescan
        self.orders = ControlRequests(self.operations, lambda _: None, lambda: self.now_s, lambda: Peer(4711, 1000))

    def _watch_clock(self, _loop: Any, on_change: Any) -> Any:
        self.clock_changed = on_change
        return self

    def close(self) -> None:
        """As ClockWatch."""
        del self.clock_changed

    @property
    def wall_s(self) -> float:
        return self.now_s + self.wall_offset_s

    def _load_again(self) -> Config:
        if isinstance(self.next_config, ConfigError):
            raise self.next_config
        return self.next_config

    def order(self, do: str, **details: object) -> Message:
        """What the control socket answers at once."""
        answer = self.orders.handle({"do": do, **details})
        assert not isinstance(answer, Deferred)
        return answer

    def reload(self) -> Message:
        """Ask for it, and let its child read; the answer."""
        answers: list[Message] = []
        self.operations.reload(answers.append, self.now_s)
        assert answers == []
        self.end_read()
        return answers[0]

    def end_read(self) -> None:
        """What the child that reads the configuration does, here."""
        reader = next(each for each in reversed(self.spawner.children) if each.title == "qjsupervisor: configuration")
        exit_code = reader.body(reader.pipe)  # type: ignore[arg-type]
        assert self.operations.config_reader.reaped(reader.pid, exit_code, self.now_s)

    def step(self, after_s: float = 0.0) -> None:
        """Let time pass, in one go, and do what is due."""
        self.now_s += after_s
        self.loop.run_until(self.now_s)
        self.log_loop.run_until(self.now_s)

    @property
    def next_scan_in_s(self) -> float | None:
        return self.rescan.next_in_s(self.now_s)

    @property
    def scout(self) -> FakeChild:
        return next(each for each in reversed(self.spawner.children) if each.title == "qjsupervisor: scout")

    def scan(self, ended: bool = True, **verdicts: str) -> None:
        """One whole scan that finds these."""
        self.rescan.request(self.now_s)
        self.step()
        scout = self.scout
        messages: list[Any] = [{"listed": list(verdicts)}]
        messages += [{"database": name, "verdict": each, "reason": f"is {each}"} for name, each in verdicts.items()]
        scout.pipe.said += [*messages, *([{"done": True}] if ended else [])]
        self.loop.registered[scout.pipe](self.now_s)
        assert self.rescan.reaped(scout.pid, 0, self.now_s)
        self.step()

    def child(self, database: str) -> FakeChild:
        title = f"qjsupervisor: worker {database}"
        return next(each for each in reversed(self.spawner.children) if each.title == title)

    def state(self, database: str) -> WorkerState:
        return self.fleet.workers[database].state

    def hear(self, database: str, *messages: dict[str, Any]) -> None:
        child = self.child(database)
        child.pipe.said += messages
        self.loop.registered[child.pipe](self.now_s)

    def reap(self, database: str, exit_code: int) -> None:
        assert self.fleet.reaped(self.child(database).pid, exit_code, self.now_s)

    def workers(self) -> list[str]:
        return sorted(self.fleet.workers)
