"""The workers of all databases: which databases have one, its slot in the shared table, its spawning and its death.

This is policy only: the scan (rescan) says which databases are wanted, and a worker's state is its own state machine
(worker_process). It never waits: calls on the table that need its lock are retried.

After a death: reap -> `try_after_death` (repair, drop its demand) -> only then a new process on that slot, or
`try_vacate` if there will be none. A worker's permits stay with its slot until the new process has read the database,
or nobody could for GIVE_UP_S.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..backoff import GIVE_UP_S
from ..channelspec import Share
from ..control import Message, Pipe
from ..errors import SemaphoreError
from ..logs import get_logger
from ..loop import Alarm
from ..states import RELEASED, Wakefulness, WorkerState
from ..table.stuck_holder import is_stopped
from .ending import Ending
from .parts import MasterParts
from .table_calls import RetriedCalls
from .worker_process import TimeLimits, WorkerProcess

#: How often heartbeats and the owner of the table's lock are checked while any worker is alive.
WATCH_S = 1.0
#: How long a stopped worker may hold permits that others wait for.
STOPPED_NS = 500_000_000
#: If the master is this late for its own check, everything must have stood still (a frozen container, a stopped group,
#: a paused machine), so the workers get time to send a heartbeat first.
LATE_S = 5.0


class Fleet:
    """All workers.

    `pauses_of` returns a database's pauses; `on_gone` is called when a worker's database has vanished; `relog` runs in
    a worker and obeys {"do": "log"}.
    """

    def __init__(
        self,
        parts: MasterParts,
        limits: TimeLimits,
        pauses_of: Callable[[str], Mapping[str, float | None]],
        on_gone: Callable[[float], None],
        relog: Callable[[Message], None],
    ) -> None:
        self.workers: dict[str, WorkerProcess] = {}
        #: Of databases without a worker yet: see keep_let_through.
        self.let_through: dict[str, dict[str, str]] = {}
        self.stopping = False
        #: Until when a database is to be left alone, because an administrator ended our session; it may be gone by now.
        self.away_until_s: dict[str, float] = {}
        self.retried_calls = RetriedCalls(parts.loop)
        self._parts = parts
        self._limits = limits
        #: What the schedule says of channels that are set up in the databases.
        self._channel_limits: dict[str, int] = {}
        self._pauses_of = pauses_of
        self._on_gone = on_gone
        self._relog = relog
        #: Called with what a worker says of its rest, and for each database that no porter is to have any more; where
        #: there are no porters nobody says anything. `has_porter`: whether one has the database's lock, or may have it.
        self.on_rest: Callable[[WorkerProcess, Message, float], None] = lambda _worker, _message, _now_s: None
        self.end_rest: Callable[[str, float], None] = lambda _database, _now_s: None
        self.has_porter: Callable[[str], bool] = lambda _database: False
        #: Called when a rate has counted new starts.
        self.on_starts: Callable[[float], None] = lambda _now_s: None
        self._free_slots = list(range(parts.table.slots - 1, -1, -1))
        self._watch_alarm = Alarm(parts.loop, self._watch)
        #: When the next check is due.
        self._watch_s = math.inf
        self._ending = Ending(parts.loop)
        #: Until then no worker counts as hung.
        self._grace_until_s = 0.0
        self._log = get_logger()

    # -- what others want ------------------------------------------------------------------------------------

    def want(self, database: str, settings: Any, weight: int, now_s: float, share: Share | None = None) -> str | None:
        """Make sure that an eligible database has a worker. Returns why it cannot have one, else None."""
        if self.stopping:
            return "the supervisor is stopping"
        if database in self.workers:
            self.workers[database].leaving = False
            self.workers[database].want_again(now_s)
            return None
        if not self._free_slots:
            return f"max_databases = {self._parts.table.slots}, or what ulimit -n allows, are served already"
        slot = self._free_slots.pop()
        try:
            self._parts.table.assign(slot, database, weight, share or Share())
        except SemaphoreError as error:
            self._free_slots.append(slot)
            return str(error)
        log = self._parts.database_log.of(database, slot=slot)
        worker = WorkerProcess(database, slot, settings, self._limits, self._parts.loop, self._spawn, log)
        worker.set_due(now_s)
        worker.report.modules.kept = self.let_through.pop(database, {})
        self.workers[database] = worker
        return None

    def keep_let_through(self, _now_s: float, _wall_s: float) -> dict[str, dict[str, str]] | None:
        """For the state file: databases that run jobs although modules are in transition, and these modules."""
        told = {name: found for name, worker in self.workers.items() if (found := worker.report.modules.to_keep())}
        return {**self.let_through, **told} or None

    def restore_let_through(self, kept: object) -> bool:
        """Go on with that; False: it is nonsense."""
        if kept is None:
            return True
        if not isinstance(kept, dict) or not all(_are_states(found) for found in kept.values()):
            return False
        self.let_through = {str(name): dict(found) for name, found in kept.items()}
        return True

    def drop(self, database: str, reason: str, now_s: float, *, gone: bool) -> None:
        """Stop and remove the worker of a database that is `gone` or no longer to be served."""
        worker = self.workers.get(database)
        if worker is None:
            return
        self._parts.database_log.of(database).info("database_dropped", reason=reason)
        worker.leaving = True
        self.end_rest(database, now_s)
        worker.stop(now_s, reason=reason, gone=gone)
        if worker.child is None:
            self._retire(worker)

    def replace_settings(self, settings_of: Callable[[str], Any], limits: TimeLimits, now_s: float) -> list[str]:
        """After a reload: restart only the workers whose settings changed; returns their databases."""
        self._limits = limits
        changed = []
        for worker in self.workers.values():
            worker.limits = limits
            settings = settings_of(worker.database)
            unchanged = settings == worker.settings
            worker.settings = settings
            if unchanged:
                continue
            changed.append(worker.database)
            if worker.state not in (WorkerState.FAILED, WorkerState.STOPPING):
                worker.stop(now_s, reason="its settings changed", restart=True)
        return changed

    def leave_alone(self, database: str, until_s: float) -> None:
        """An administrator has it for himself until then; a moment that is past: no more."""
        self.away_until_s[database] = until_s

    def away(self, now_s: float) -> dict[str, float]:
        """The databases that are to be left alone now, and until when."""
        self.away_until_s = {name: until_s for name, until_s in self.away_until_s.items() if until_s > now_s}
        return self.away_until_s

    def send_all(self, message: Mapping[str, Any]) -> None:
        """Send an order to every worker. One that does not take it is in trouble, which its heartbeat shows."""
        for worker in self.workers.values():
            worker.send(message)

    def limit(self, limits: Mapping[str, int]) -> None:
        """Limit channels of the databases' own trees from now on: complete name -> jobs at once, in each database."""
        self._channel_limits = dict(limits)
        self.send_all({"do": "limits", "limits": self._channel_limits})

    def send_pauses(self, now_s: float) -> None:
        """Send every worker its complete set of pauses. One that dozes and is released gets a worker, which says so."""
        for worker in self.workers.values():
            if worker.wakefulness is not Wakefulness.AWAKE and RELEASED in self._pauses_of(worker.database):
                self.end_rest(worker.database, now_s)
                worker.wake(now_s)
            self._send_pauses(worker)

    # -- the end ---------------------------------------------------------------------------------------------

    def stop_all(self, now_s: float) -> None:
        """Drain all workers; nothing is spawned any more."""
        self.stopping = True
        self._ending.stop(self.workers.values(), self._limits.graceful_s, now_s)

    def abort_all(self, now_s: float) -> None:
        """Have all workers write their stacks and die."""
        self.stopping = True
        self._ending.abort(self.workers.values(), now_s)

    def kill_all(self) -> None:
        """SIGKILL all workers."""
        self.stopping = True
        for worker in self.workers.values():
            worker.kill("the supervisor was told to stop at once")

    @property
    def alive(self) -> int:
        """How many workers have a process."""
        return sum(worker.child is not None for worker in self.workers.values())

    @property
    def is_settled(self) -> bool:
        """Whether the start barrier need not wait for any worker."""
        return all(worker.is_settled for worker in self.workers.values())

    def close_in_child(self) -> None:
        """Close the master's ends of all pipes; left open in a child, they would hide the master's death."""
        for worker in self.workers.values():
            if worker.child is not None:
                worker.child.pipe.close()

    # -- the loop's turn -------------------------------------------------------------------------------------

    def reaped(self, pid: int, exit_code: int, now_s: float) -> bool:
        """Handle the exit of a child; False if it was not a worker."""
        worker = next((each for each in self.workers.values() if each.pid == pid), None)
        if worker is None or worker.child is None:
            return False
        if not worker.life.pipe_ended:
            self._parts.loop.unregister(worker.child.pipe)
        worker.reaped(exit_code, now_s)
        slot = worker.slot
        self.retried_calls.add(slot, lambda: self._parts.table.try_after_death(slot) and self._released(worker))
        self._ending.go_on(now_s)
        if worker.state is WorkerState.FAILED and not (self.stopping or worker.leaving):
            self._on_gone(now_s)
        return True

    def _watch(self, now_s: float) -> None:
        """Check all heartbeats and the owner of the table's lock."""
        if not self.alive:
            return
        if now_s > self._watch_s + LATE_S:
            self._grace_until_s = now_s + LATE_S
        self._watch_at(now_s + WATCH_S)
        now_ns = time.monotonic_ns()
        self._end_stuck_owner(now_ns)
        if now_s < self._grace_until_s:
            return
        self._free_held(now_s, now_ns)
        for worker in self.workers.values():
            worker.check(now_s, self._parts.table.heartbeat_age_s(worker.slot, now_ns))

    def _watch_at(self, at_s: float) -> None:
        self._watch_s = at_s
        self._watch_alarm.set(at_s)

    def _spawn(self, worker: WorkerProcess, now_s: float) -> None:
        if self.stopping or not worker.is_due or worker.slot in self.retried_calls:
            return  # spawned when the retried call has succeeded
        table, slot, settings, run = self._parts.table, worker.slot, worker.settings, self._parts.run_worker

        def body(pipe: Pipe) -> int:
            pipe.intercept("log", self._relog)
            return run(settings, table, slot, pipe)

        if worker.spawn(self._parts.spawner, body, now_s, self._first_orders(worker)):
            assert worker.child is not None
            self._parts.loop.register(
                worker.child.pipe, selectors.EVENT_READ, lambda event_s: self._hear(worker, event_s)
            )
            if math.isinf(self._watch_alarm.at_s):
                self._watch_at(now_s + WATCH_S)
            worker.life.told_pauses = bool(self._pauses_of(worker.database))

    def _first_orders(self, worker: WorkerProcess) -> list[Message]:
        """What a new process has to know before it starts a job."""
        pauses = dict(self._pauses_of(worker.database))
        orders: list[tuple[bool, Message]] = [
            (bool(pauses), {"do": "pauses", "pauses": pauses}),
            (bool(self._channel_limits), {"do": "limits", "limits": self._channel_limits}),
            (worker.only_oid is not None, {"do": "only", "oid": worker.only_oid}),
            (worker.report.modules.anyway, {"do": "modules", "anyway": True}),
            (self.has_porter(worker.database), {"do": "take_over"}),
        ]
        return [order for applies, order in orders if applies]

    def _send_pauses(self, worker: WorkerProcess) -> None:
        pauses = self._pauses_of(worker.database)
        if pauses or worker.life.told_pauses:
            worker.life.told_pauses = bool(pauses)
            worker.send({"do": "pauses", "pauses": pauses})

    def _hear(self, worker: WorkerProcess, now_s: float) -> None:
        worker.receive(now_s)
        if worker.report.away_until_s:
            self.leave_alone(worker.database, worker.report.away_until_s)
            worker.report.away_until_s = 0.0
        while worker.rest_news:
            self.on_rest(worker, worker.rest_news.pop(0), now_s)
        if worker.report.has_started:
            worker.report.has_started = False
            self.on_starts(now_s)
        if worker.life.pipe_ended and worker.child is not None:
            self._parts.loop.unregister(worker.child.pipe)

    def _released(self, worker: WorkerProcess) -> bool:
        """The table has processed the death: the next process may start, or a worker that is leaving is removed."""
        if worker.leaving:
            self._retire(worker)
        elif worker.unread_since_s is not None and not math.isinf(worker.unread_since_s):
            self._parts.loop.call_at(worker.unread_since_s + GIVE_UP_S, lambda now_s: self._give_up(worker, now_s))
        worker.await_due()
        return True

    def _retire(self, worker: WorkerProcess) -> None:
        """Forget a worker without a process; its slot is free once the table has vacated it."""
        slot = worker.slot
        self.workers.pop(worker.database, None)

        def vacated() -> bool:
            if not self._parts.table.try_vacate(slot):
                return False
            self._free_slots.append(slot)
            return True

        self.retried_calls.add(slot, vacated)

    def _give_up(self, worker: WorkerProcess, now_s: float) -> None:
        """Release its permits, once, if its database could not be read for too long and no process may be about to."""
        since_s = worker.unread_since_s
        if worker.child is not None or since_s is None or now_s < since_s + GIVE_UP_S:
            return
        if worker.slot in self.retried_calls or self.workers.get(worker.database) is not worker:
            return
        worker.unread_since_s = math.inf
        self._parts.database_log.of(worker.database).error(
            "permits_given_up",
            reason=f"its database could not be read for {GIVE_UP_S:g} s; jobs that still run there are not counted",
        )
        self.retried_calls.add(
            worker.slot, lambda: self._parts.table.try_give_up(worker.slot) and self._released(worker)
        )

    def _free_held(self, now_s: float, now_ns: int) -> None:
        """Recover permits that others wait for and whose worker is stopped or dead, so that it cannot release them.

        A stopped worker is killed; its successor starts sooner than its backoff says.
        """
        silent = self._parts.table.silent_holders(now_ns, STOPPED_NS)
        for worker in self.workers.values() if silent else ():
            if worker.slot not in silent:
                continue
            if worker.child is None:
                worker.expedite_restart(now_s)
            elif is_stopped(worker.child.pid):
                reason = "it is stopped, and holds permits that others wait for"
                self._parts.database_log.of(worker.database).error(
                    "worker_aborted", worker_pid=worker.pid, reason=reason
                )
                worker.kill(reason, no_backoff=True)

    def _end_stuck_owner(self, now_ns: int) -> None:
        """SIGKILL a process that holds the table's lock and does not proceed: everybody else waits for it."""
        pid = self._parts.table.stuck_owner(now_ns)
        if pid is None:
            return
        worker = next((each for each in self.workers.values() if each.pid == pid), None)
        if worker is not None:
            self._log.error("owner_killed", database=worker.database, worker_pid=pid, reason="held the table's lock")
            worker.kill("it held the shared table's lock and did not move")
        elif pid != os.getpid():
            self._log.error("owner_killed", worker_pid=pid, reason="held the table's lock, and is no worker")
            self._parts.kill(pid, signal.SIGKILL)


def _are_states(found: object) -> bool:
    return isinstance(found, dict) and all(isinstance(state, str) for state in found.values())
