"""WorkerProcess: the master's handle on one database's worker, across all its processes.

A state machine over WorkerState, with the deadlines of each state. Only `_enter` assigns a state. It does not decide
which databases have a worker (fleet), and of the shared table it knows only the age of a heartbeat.

    READY, its process gone: it dozes (`wakefulness`) --wake--> BACKING_OFF
    BACKING_OFF --doze_unread--> STARTING, without a process --doze_well--> READY
    BACKING_OFF --spawn--> STARTING <--> STANDBY, READY, BLOCKED      as the worker reports
    any with a process --stop--> STOPPING --reaped--> FAILED, or BACKING_OFF if a restart is wanted
    any with a process --reaped--> BACKING_OFF, or FAILED where the database is gone
    FAILED --wanted again--> BACKING_OFF
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..backoff import RestartPolicy
from ..control import Message
from ..errors import ProtocolError
from ..loop import Alarm, Timers
from ..states import EXIT_GONE, EXIT_STOPPED, Wakefulness, WorkerState
from ..text import printable, seconds
from .child import Body, Child, ChildSpawner, exit_reason
from .database_log import LEVELS, OneDatabase
from .worker_report import WorkerReport

_ALIVE = frozenset({WorkerState.STARTING, WorkerState.STANDBY, WorkerState.READY, WorkerState.BLOCKED})
_OVER = frozenset({WorkerState.STOPPING, WorkerState.BACKING_OFF, WorkerState.FAILED})

TRANSITIONS: Mapping[WorkerState, frozenset[WorkerState]] = {
    WorkerState.STARTING: _ALIVE - {WorkerState.STARTING} | _OVER,
    WorkerState.STANDBY: _ALIVE - {WorkerState.STANDBY} | _OVER,
    WorkerState.READY: _ALIVE - {WorkerState.READY} | _OVER,
    WorkerState.BLOCKED: _ALIVE - {WorkerState.BLOCKED} | _OVER,
    WorkerState.STOPPING: frozenset({WorkerState.BACKING_OFF, WorkerState.FAILED}),
    WorkerState.BACKING_OFF: frozenset({WorkerState.STARTING, WorkerState.FAILED}),
    WorkerState.FAILED: frozenset({WorkerState.BACKING_OFF}),
}

#: The states that a worker reports itself, by name.
_SAID = {state.value: state for state in _ALIVE}
#: Messages about moving to and from a porter.
_OF_REST = ("idle", "stays", "dozes", "door")
#: From SIGABRT, which writes the stacks, to SIGKILL.
ABORT_GRACE_S = 1.0
#: Added to a worker's time to stop if its database is gone: its open requests may go on for OVER_S.
GONE_LIMIT_S = 10.0
#: Pause between the end of a database and a worker for a new one of the same name.
GONE_PAUSE_S = 1.0
#: If others wait for a dead worker's permits, its successor starts at the latest this long after the death.
EXPEDITE_S = 2.0


class TimeLimits(NamedTuple):
    """Time limits for a worker, in seconds."""

    boot_s: float
    graceful_s: float
    hang_s: float
    #: How long a module may be in transition before that is reported.
    upgrade_s: float = math.inf


@dataclass(eq=False, repr=False, slots=True)
class Life:
    """What the master knows about one process of a worker; reset for the next one."""

    spawned_s: float
    healthy_since_s: float | None = None
    #: It has been sent the pauses.
    told_pauses: bool = False
    #: The pipe reached EOF and must not be registered any more.
    pipe_ended: bool = False
    #: Another process follows after its stop.
    restart_wanted: bool = False
    #: Why we end it, if we decided so.
    cause: str | None = None
    #: We ended it without any fault of its own.
    no_backoff: bool = False
    #: The last fault it reported.
    told: str | None = None
    #: The porter has its lock, and it is about to exit.
    dozes: bool = False
    #: A new process is wanted as soon as it dozes.
    is_called: bool = False


class WorkerProcess:
    """One database's worker: at most one process at a time. `limits` and `settings` may be replaced.

    `on_due` is called when a worker without a process is to be spawned, at `due_s` or, after `await_due`, later.
    """

    def __init__(
        self,
        database: str,
        slot: int,
        settings: Any,
        limits: TimeLimits,
        timers: Timers,
        on_due: Callable[[WorkerProcess, float], None],
        log: OneDatabase,
        policy: RestartPolicy | None = None,
    ) -> None:
        self.database = database
        self.slot = slot
        self.settings, self.limits = settings, limits
        self.state = WorkerState.BACKING_OFF
        self.child: Child | None = None
        self.restarts = 0
        #: Why it is in standby, blocked, starting or failed; None if there is nothing to say.
        self.reason: str | None = None
        #: The last error that it reported or died of; kept after it recovers.
        self.last_error: str | None = None
        self.last_error_s = 0.0
        #: Its reports besides its state.
        self.report = WorkerReport()
        self.life = Life(0.0)
        #: DOZING, ASLEEP: it has no process, and a porter looks after its database.
        self.wakefulness = Wakefulness.AWAKE
        #: What it said of its rest since somebody took it.
        self.rest_news: list[Message] = []
        #: The oid of the only database of its name that may be served; None: any.
        self.only_oid: int | None = None
        #: The database is no longer to be served: the fleet forgets this worker once it has no process.
        self.leaving = False
        #: When a worker without a process is due to be spawned.
        self.due_s = 0.0
        #: Since which death no new life has read the database; None while one has, and before the first death;
        #: infinity once its permits were given up.
        self.unread_since_s: float | None = None
        self._policy = policy or RestartPolicy()
        #: Where a new connection led to, as the worker was told last.
        self._server: str | None = None
        self._timers = timers
        self._due_alarm = Alarm(timers, lambda now_s: on_due(self, now_s))
        self._boot_alarm = Alarm(timers, self._boot_overdue)
        self._kill_alarm = Alarm(timers, self._end_overdue)
        self._log = log

    @property
    def pid(self) -> int | None:
        return None if self.child is None else self.child.pid

    @property
    def is_due(self) -> bool:
        """Waits only for its time to be spawned."""
        return self.state is WorkerState.BACKING_OFF and self.child is None

    @property
    def is_aborting(self) -> bool:
        """We have begun to end it."""
        return self.life.cause is not None

    @property
    def is_settled(self) -> bool:
        """The start barrier need not wait for it: its running jobs are counted, or it has none that count.

        One death says nothing of the database: its next worker is there in a second, and until then nobody knows of
        the jobs that run. From the second one on, the others have waited long enough.
        """
        if self.wakefulness is not Wakefulness.AWAKE:
            return True  # a probe or its worker found nothing that runs
        unable = (WorkerState.STANDBY, WorkerState.BLOCKED, WorkerState.STOPPING, WorkerState.FAILED)
        return self.report.has_read or self.restarts > 1 or self.state in unable

    def await_due(self) -> None:
        """See that `on_due` is called, at once where `due_s` has passed; it was perhaps called too soon."""
        self._due_alarm.set(self.due_s if self.is_due else math.inf)

    def set_due(self, due_s: float) -> None:
        """Spawn a worker without a process then."""
        self.due_s = due_s
        self.await_due()

    def spawn(self, spawner: ChildSpawner, body: Body, now_s: float, orders: Sequence[Message] = ()) -> bool:
        """Start a process, which finds `orders`. False where the system has no room: due again after a pause."""
        try:
            self.child = spawner.spawn(f"qjsupervisor: worker {printable(self.database)}", body, orders)
        except OSError as error:
            self.reason = f"no process could be started: {error.strerror}"
            self._fault(self.reason, now_s)
            self.set_due(now_s + self._policy.delay_s(0.0))
            self._log.error("fork_failed", reason=error.strerror, retry_in_s=round(self.due_s - now_s, 1))
            return False
        self.life = Life(now_s)
        self.rest_news.clear()
        self._boot_alarm.set(now_s + self.limits.boot_s)
        self.report.begin()
        self._enter(WorkerState.STARTING, None, is_told=True)
        self._log.info("worker_spawned", worker_pid=self.pid, restarts=self.restarts)
        return True

    def receive(self, now_s: float) -> None:
        """Take what the worker says of itself."""
        if self.child is None or self.life.pipe_ended:
            return
        try:
            for message in self.child.pipe.receive_all():
                self._take(message, now_s)
        except EOFError:
            self.life.pipe_ended = True
            # It is about to exit, or hangs on its way out: SIGCHLD tells, this is for the case that it does not.
            self._kill_alarm.set_earlier(now_s + self.limits.graceful_s)
        except ProtocolError as error:
            self.abort(f"it sent nonsense: {error}", now_s)

    def send(self, message: Mapping[str, Any]) -> bool:
        """Send an order; False if it has no process, or does not listen."""
        return self.child is not None and self.child.pipe.send(message)

    def tell_only(self, oid: int | None) -> None:
        """Let it know which database of its name it may serve; None: any."""
        if oid != self.only_oid and (self.child is None or self.send({"do": "only", "oid": oid})):
            self.only_oid = oid

    def tell_server(self, details: object) -> None:
        """Let it know where a new connection of the scout's led to; once for each change, most often never."""
        started = details.get("started") if isinstance(details, Mapping) and not details.get("in_recovery") else None
        if started and started != self._server and self.send({"do": "server", "started": str(started)}):
            self._server = str(started)

    def check(self, now_s: float, heartbeat_age_s: float) -> None:
        """End it where it hangs; say once that modules have been in transition for too long."""
        if self.child is None:
            return
        if self.report.modules.is_overdue(now_s, self.limits.upgrade_s):
            reason = f"for {seconds(self.limits.upgrade_s)} now: {self.reason}"
            self._log.error("modules_hang", modules=dict(self.report.modules.states), reason=reason)
        # A heartbeat may be that of the life before.
        age_s = min(heartbeat_age_s, now_s - self.life.spawned_s)
        if self.life.cause is None and age_s > self.limits.hang_s:
            self.abort(f"no sign of life for {self.limits.hang_s:g} s", now_s)

    def _boot_overdue(self, now_s: float) -> None:
        if self.life.cause is None:
            said = f": {self.reason}" if self.reason else ""
            self.abort(f"not ready within {self.limits.boot_s:g} s{said}", now_s)

    def _end_overdue(self, _now_s: float) -> None:
        """The second half of an end that was begun."""
        if self.child is not None:
            self.child.signal(signal.SIGKILL)
            self._log.warning("worker_killed", worker_pid=self.pid, reason=self.life.cause or "it did not stop in time")

    def stop(self, now_s: float, *, reason: str, restart: bool = False, gone: bool = False) -> None:
        """Drain and end; with `restart` a new life follows. Without a process: FAILED, or due at once.

        Where its database is `gone`, it may wait for open requests of its jobs before it ends.
        """
        self.life.restart_wanted = restart
        if self.state is WorkerState.STOPPING:
            if not gone:
                self.send({"do": "stop"})  # it may be waiting
            return
        if self.child is None:
            if restart:
                self.wake(now_s)
                self.want_again(now_s, at_once=True)
            elif self.state is not WorkerState.FAILED:
                self._enter(WorkerState.FAILED, reason)
            return
        if not self.send({"do": "stop", **({"restart": True} if restart else {}), **({"gone": True} if gone else {})}):
            self.child.signal(signal.SIGTERM)
        self._kill_alarm.set_earlier(now_s + self.limits.graceful_s + (GONE_LIMIT_S if gone else 0.0))
        self._enter(WorkerState.STOPPING, reason)

    def abort(self, cause: str, now_s: float) -> None:
        """End it now, stacks first: SIGABRT does that, and means nothing to a stopped process; SIGKILL follows."""
        if self.child is None:
            return
        self.life.cause = cause
        self._kill_alarm.set_earlier(now_s + ABORT_GRACE_S)
        self._log.error("worker_aborted", worker_pid=self.pid, reason=cause)
        self.child.signal(signal.SIGABRT)

    def kill(self, cause: str, *, no_backoff: bool = False) -> None:
        """End it at once; with `no_backoff` the next life follows at once, too."""
        if self.child is not None:
            self.life.cause, self.life.no_backoff = cause, no_backoff
            self.child.signal(signal.SIGKILL)

    def expedite_restart(self, now_s: float) -> None:
        """Others wait for permits that its last life held: if that one had read its database, the next one can, too."""
        if self.is_due and self.report.has_read and now_s >= (self.unread_since_s or 0.0) + EXPEDITE_S:
            self.set_due(min(self.due_s, now_s))

    def want_again(self, now_s: float, *, at_once: bool = False) -> None:
        """The scan found its database fit: a failed worker becomes due, one that stops will start again."""
        if self.state is WorkerState.STOPPING:
            self.life.restart_wanted = True
        if self.state is WorkerState.FAILED:
            self._enter(WorkerState.BACKING_OFF, self.reason)
        if self.is_due and at_once:
            self.set_due(now_s)

    def wake(self, now_s: float, reason: str | None = None) -> None:
        """Start a process again if the database dozes or is about to; no effect otherwise."""
        if self.child is not None:
            self.life.is_called = True
        elif self.wakefulness is not Wakefulness.AWAKE:
            self.wakefulness = Wakefulness.AWAKE
            self.due_s = now_s
            self._enter(WorkerState.BACKING_OFF, reason, is_told=True)

    def doze_unread(self, how: Wakefulness) -> None:
        """A probe found that it needs no worker: a porter is about to look after it from the start."""
        self.wakefulness = how
        self._enter(WorkerState.STARTING, "a porter is about to look after it", is_told=True)

    def doze_well(self, how: Wakefulness = Wakefulness.DOZING) -> None:
        """The porter holds its lock, or watches its sleep."""
        if self.wakefulness is not Wakefulness.AWAKE:
            self.wakefulness = how
            if self.state is not WorkerState.READY:
                self._enter(WorkerState.READY, None)

    def doze_troubled(self, reason: str) -> None:
        """The porter has no connection to it at the moment."""
        if self.wakefulness is not Wakefulness.AWAKE:
            if self.state is WorkerState.READY:
                self._enter(WorkerState.STARTING, reason)
            self.reason = reason

    def fail(self, reason: str) -> None:
        """The scan found its database unfit while it has no process."""
        if self.state is WorkerState.BACKING_OFF:
            self._enter(WorkerState.FAILED, reason)
        elif self.state is WorkerState.FAILED:
            self.reason = reason

    def reaped(self, exit_code: int, now_s: float) -> None:
        """Its process has ended, and waitpid told so."""
        self._timers.call(self.receive, now_s)  # its last words, which may be nonsense
        assert self.child is not None
        pid, asked = self.child.pid, self.state is WorkerState.STOPPING
        self.child.pipe.close()
        self.child = None
        self._boot_alarm.clear()
        self._kill_alarm.clear()
        if self.unread_since_s is None:
            self.unread_since_s = now_s
        healthy_s = 0.0 if self.life.healthy_since_s is None else now_s - self.life.healthy_since_s
        if exit_code == EXIT_STOPPED and (asked or self.life.dozes):
            self._log.info("worker_reaped", worker_pid=pid, exit_code=exit_code)
        else:
            self._record_death(pid, exit_code, now_s)
        self._after_death(asked, exit_code, healthy_s, now_s)

    def _record_death(self, pid: int, exit_code: int, now_s: float) -> None:
        how = exit_reason(exit_code)
        said = self.life.cause or self.life.told or self.reason
        self._fault(f"{how}: {said}" if said else how, now_s)
        self._log.warning("worker_reaped", worker_pid=pid, exit_code=exit_code, reason=self.last_error)

    def _after_death(self, asked: bool, exit_code: int, healthy_s: float, now_s: float) -> None:
        if self.life.dozes and not asked and exit_code == EXIT_STOPPED and self.state is WorkerState.READY:
            self.wakefulness, self.unread_since_s = Wakefulness.DOZING, None
            if self.life.is_called:
                self.wake(now_s)
            return
        if asked:
            self.due_s = now_s
            again = self.life.restart_wanted
        elif exit_code == EXIT_GONE and self.report.has_read:
            # It is no failure that a database is gone; one that is made anew is served without a growing pause.
            self.due_s = now_s + GONE_PAUSE_S
            again = False
        else:
            self.restarts += 1
            # Also where the database is gone: should the scan disagree, the two must not chase each other.
            self.due_s = now_s + (0.0 if self.life.no_backoff else self._policy.delay_s(healthy_s))
            again = exit_code != EXIT_GONE
        state = WorkerState.BACKING_OFF if again else WorkerState.FAILED
        self._enter(state, self.reason if asked else self.last_error)

    def _take(self, message: Mapping[str, Any], now_s: float) -> None:
        said = message.get("is")
        reason = message.get("reason")
        reason = reason if isinstance(reason, str) else None
        if said == "error":
            self.life.told = reason or "unknown"
            self._fault(self.life.told, now_s)
        elif said == "log":
            self._write(message)
        elif isinstance(said, str) and said in _SAID:
            self._say(_SAID[said], reason, now_s)
        elif self._note(message, now_s):
            if said == "read":
                self.unread_since_s = None
        elif said in _OF_REST:
            self.life.dozes = said == "dozes"
            self.life.is_called = self.life.is_called and said != "idle"
            self.rest_news.append(dict(message))
        else:
            raise ProtocolError(f"unknown message {str(said)[:80]!r}")

    def _note(self, message: Mapping[str, Any], now_s: float) -> bool:
        """Note a report; where a former supervisor's operator let these jobs run, the worker is told so again."""
        modules = self.report.modules
        is_let_through = modules.anyway
        known = self.report.take(message, now_s)
        if modules.anyway and not is_let_through:
            self.send({"do": "modules", "anyway": True})
        return known

    def _write(self, message: Mapping[str, Any]) -> None:
        """A line of the worker's, which many databases may have."""
        level, event, facts = (message.get(key) for key in ("level", "event", "facts"))
        if level not in LEVELS or not isinstance(event, str) or not isinstance(facts, dict):
            raise ProtocolError("a line is a level, an event and facts")
        getattr(self._log, level)(event, **{str(name): value for name, value in facts.items()})

    def _say(self, state: WorkerState, reason: str | None, now_s: float) -> None:
        """The worker tells its state; one that we are stopping may still talk, it changes nothing."""
        if self.state not in _ALIVE:
            return
        if state is WorkerState.STARTING:
            self.life.healthy_since_s = None
        else:
            self._boot_alarm.clear()
            self.life.healthy_since_s = self.life.healthy_since_s or now_s
        if state is WorkerState.STANDBY:
            self.unread_since_s = None  # its jobs are another runner's to count
        if state is self.state:
            self.reason = reason
        else:
            self._enter(state, reason, is_told=True)

    def _fault(self, reason: str, now_s: float) -> None:
        self.last_error, self.last_error_s = reason, now_s

    def _enter(self, state: WorkerState, reason: str | None, *, is_told: bool = False) -> None:
        """The only place where the state changes. `is_told`: the worker has logged the change itself."""
        assert state in TRANSITIONS[self.state], f"{self.database}: {self.state} -> {state}"
        note = self._log.debug if is_told or self.state is WorkerState.STOPPING else self._log.info
        former = self.state.value
        note("worker_state_changed", worker_pid=self.pid, state=state.value, former_state=former, reason=reason)
        self.state, self.reason = state, reason
        self.await_due()
