"""The master: forks, watches and ends all other processes. Only it handles signals and the control socket.

It is so simple that it does not fail: it opens no database or HTTP connection, starts no thread, waits only in its own
loop, and never waits for a lock that another process can hold. Whatever can hang or break runs in a child:

    scout    lists and probes the databases                              rescan
    reader   reads the configuration again                               config_reader
    worker   one per database, runs its jobs                             fleet, process
    porter   attends to databases that doze and have no worker           resting
    monitor  metrics and health; asks the control socket like anybody    service

Everything happens in callbacks of its loop, which survives their exceptions. A kill -9 of the master ends everything:
each child sees EOF on its pipe and gets SIGTERM.
"""

from __future__ import annotations

import faulthandler
import functools
import math
import resource
import selectors
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from .. import logs
from ..config.settings import Config
from ..control import Message, Pipe
from ..loop import Alarm, Loop
from ..states import EX_OK
from ..version import __version__
from . import memory
from .child import ChildSpawner, exited_children, wait_for
from .control_requests import ControlRequests
from .control_socket import ControlSocket, Deferred
from .database_log import DatabaseLog
from .operations import Operations
from .packing import all_functions
from .parts import MasterParts
from .pauses import Pauses
from .pidfile import Pidfile
from .session_mark import session_mark
from .signals import SignalQueue

#: The start barrier opens at most this long after the last database was found; of very many that takes a while.
START_BARRIER_TIMEOUT_S = 10.0
#: From the first of SIGQUIT's stacks to SIGKILL, and from there to giving up on a process that does not end.
_REAP_TIMEOUT_S = 2.0
#: What removing our files may take.
_REMOVE_S = 3.0
#: Descriptors of the master, and of a worker, beside one for each place in the table and one for each pipe.
_SPARE_DESCRIPTORS = 128
_STDERR = 2
_SIGNALS = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)


class Master:
    """One supervisor. `load_again` rereads the configuration and raises ConfigError if it is wrong."""

    def __init__(self, config: Config, load_again: Callable[[], Config], parts: MasterParts | None = None) -> None:
        self._config = config
        self._load_again = load_again
        self._parts = parts or MasterParts()
        self._loop = self._parts.loop = Loop(self._parts.clock, self._note_fault)
        self._database_log = self._parts.database_log = DatabaseLog(self._loop, self._parts.clock)
        self._signals = SignalQueue(_SIGNALS)
        self._pidfile = Pidfile(config.pidfile) if config.pidfile else None
        self._control = ControlSocket(config.control_socket, self._handle)
        #: SIGKILL after the graceful stop; and the end of waiting even for that.
        self._kill_alarm = Alarm(self._loop, self._kill_all)
        self._leave_s = math.inf
        #: The next child removes our files, and so keeps them open.
        self._is_removing = False
        self._barrier_alarm = Alarm(self._loop, _wake)
        self._log = logs.get_logger()

    def run(self) -> int:
        """Run until stopped; returns the exit status. Raises AlreadyRunning or ConfigError before starting anything."""
        with ExitStack() as stack:
            if self._pidfile is not None:
                stack.enter_context(self._pidfile)
            self._control.open()
            stack.callback(self._control.close)
            self._config = replace(self._config, session_mark=session_mark(f"{self._control.path}.mark"))
            stack.enter_context(self._loop)
            self._set_up()
            stack.enter_context(self._signals)
            self._loop.register(self._signals, selectors.EVENT_READ, self._take_signals)
            self._control.register(self._loop)
            slots, mode = self._table.slots, self._config.mode.value
            self._log.info("master_started", version=__version__, mode=mode, slots=slots)
            self._operations.log_warnings()
            self._start_services()
            self._parts.notifier.ready(self._operations.status_line())
            self._parts.notifier.feed(self._loop, self._operations.status_line)
            self._run_loop()
            self._database_log.flush()
            self._remove_files()
            self._log.info("master_stopped")
            self._operations.log_writer.finish()
        return EX_OK

    # -- set up --------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        """Create the table and everything that forks; nothing is forked yet."""
        parts, config = self._parts, self._config
        slots = _affordable_slots(config.max_databases)
        if slots < config.max_databases:
            self._log.warning("slots_limited", slots=slots, reason="too few descriptors, see ulimit -n")
        self._table = parts.table = parts.table_factory(
            config.schedule.applied(config.channels, parts.wall()),
            slots=slots,
            fairness=config.fairness,
            leased=config.cluster is not None,
        )
        parts.spawner = ChildSpawner(self._close_in_child, parts.fork, parts.kill)
        self._operations = Operations(config, self._load_again, parts, Pauses())
        self._orders = ControlRequests(self._operations, self.stop, parts.clock, lambda: self._control.peer)
        self._fleet, self._rescan = self._operations.fleet, self._operations.rescan
        self._monitor, self._broker = self._operations.monitor, self._operations.broker
        self._resting = self._operations.resting
        self._config_reader, self._state = self._operations.config_reader, self._operations.state
        #: All that have children.
        self._parents = (
            self._fleet,
            self._rescan,
            self._monitor,
            self._broker,
            self._resting,
            self._config_reader,
            self._state,
            self._operations.log_writer,
        )
        self._operations.restore(parts.clock())

    def _start_services(self) -> None:
        """Log, monitor and scout; then, while the scout looks around, make ready what all workers will share."""
        functions = all_functions()
        self._operations.log_writer.follow(self._config.log_file, self._parts.clock())
        self._operations.start_monitor(self._parts.clock())
        self._rescan.begin(self._parts.clock())
        memory.make_ready(self._config, functions)
        self._operations.start_broker(self._parts.clock())

    def _close_in_child(self) -> None:
        """In a forked child: close every descriptor that only the master may have."""
        if not self._is_removing:
            self._control.close_in_child()
            if self._pidfile is not None:
                self._pidfile.close()
        for part in (*self._parents, self._operations.timetable):
            part.close_in_child()
        self._signals.close()
        self._loop.close()

    def _handle(self, request: Message) -> Message | Deferred:
        return self._orders.handle(request)

    # -- the loop ------------------------------------------------------------------------------------------------

    def _run_loop(self) -> None:
        clock = self._parts.clock
        while not self._is_over(clock()):
            self._loop.turn()
            self._look(clock())

    def _look(self, now_s: float) -> None:
        """After each turn: act on the new state of everything."""
        if not self._fleet.stopping:
            self._try_start_barrier(now_s)
        elif not self._fleet.alive:
            self._end_services(now_s)

    def _is_over(self, now_s: float) -> bool:
        """Whether we are stopped and no process is left, except one that not even SIGKILL ends."""
        if not self._fleet.stopping:
            return False
        left = (
            self._fleet.alive
            or self._rescan.is_running
            or self._monitor.pid is not None
            or self._broker.pid is not None
            or self._resting.pids
            or self._state.is_busy
        )
        return not left or now_s >= self._leave_s

    def _remove_files(self) -> None:
        """Remove pid file and control socket. Their file systems may hang, so a child does it, with a limit."""

        def remove(_pipe: Pipe) -> int:
            self._control.close()
            if self._pidfile is not None:
                self._pidfile.release()
            return EX_OK

        self._is_removing = True
        try:
            child = self._parts.spawner.spawn("qjsupervisor: end", remove)
        except OSError:
            return  # then they are removed here, at last
        if wait_for(child.pid, _REMOVE_S) is None:
            child.signal(signal.SIGKILL)
            self._log.warning("files_left", reason="the pid file or the control socket: does its file system answer?")
        self._control.close_in_child()
        if self._pidfile is not None:
            self._pidfile.close()

    def _note_fault(self, error: Exception) -> None:
        """A callback raised. That is a bug of ours; it costs that callback's work and nothing else."""
        self._log.error("callback_failed", reason=f"{type(error).__name__}: {error}", exc_info=error)

    def _try_start_barrier(self, now_s: float) -> None:
        """Open the start barrier once each database has been read or has failed, or it takes too long."""
        if self._table.start_barrier_open:
            return
        until_s = self._rescan.barrier_until_s(START_BARRIER_TIMEOUT_S)
        self._barrier_alarm.set(until_s)
        settled = self._rescan.has_listed and not self._rescan.unreachable and self._fleet.is_settled
        if not settled and now_s >= until_s:
            self._say_unread()
        if settled or now_s >= until_s:
            self._table.open_start_barrier()
            self._log.info("master_ready", databases=len(self._fleet.workers))
            self._parts.notifier.ready(self._operations.status_line())

    def _say_unread(self) -> None:
        """Log the databases whose running jobs are not counted although the others start now."""
        for worker in self._fleet.workers.values():
            if not worker.is_settled:
                reason = (
                    f"not read within {START_BARRIER_TIMEOUT_S:g} s: {worker.reason or 'no answer of its worker yet'}"
                )
                self._database_log.of(worker.database).warning("database_not_counted", reason=reason)
        for database, reason in self._rescan.unreachable.items():
            self._database_log.of(database).warning("database_not_counted", reason=reason)

    # -- signals -------------------------------------------------------------------------------------------------

    def _take_signals(self, now_s: float) -> None:
        for signum in self._signals.drain():
            self._loop.call(functools.partial(self._obey, signum), now_s)

    def _obey(self, signum: int, now_s: float) -> None:
        if signum == signal.SIGCHLD:
            self._reap(now_s)
            return
        self._log.info("signal_received", signal=signal.Signals(signum).name)
        if signum == signal.SIGHUP:
            self._operations.reload_logged(now_s)
        elif signum in (signal.SIGTERM, signal.SIGINT):
            self.stop(now_s)
        elif signum == signal.SIGQUIT:
            self._quit(now_s)
        elif signum == signal.SIGUSR1:
            logs.reopen()
            self._operations.log_writer.reopen()
        elif signum == signal.SIGUSR2:
            self._operations.describe(now_s)

    def _reap(self, now_s: float) -> None:
        for pid, exit_code in exited_children():
            # One by one: what goes wrong with one does not keep the others from being noticed.
            self._loop.call(functools.partial(self._note_exit, pid, exit_code), now_s)

    def _note_exit(self, pid: int, exit_code: int, now_s: float) -> None:
        if not any(parent.reaped(pid, exit_code, now_s) for parent in self._parents):
            self._log.debug("orphan_reaped", worker_pid=pid, exit_code=exit_code)

    # -- the end -------------------------------------------------------------------------------------------------

    def stop(self, now_s: float) -> None:
        """Drain and exit within graceful_timeout; when called again, at once."""
        if self._fleet.stopping:
            self._kill_all(now_s)
            return
        self._log.info("master_stopping", databases=len(self._fleet.workers))
        self._parts.notifier.stopping(f"stopping, for {self._operations.config.graceful_timeout_s:g} s at most")
        self._kill_alarm.set(now_s + self._operations.config.graceful_timeout_s)
        self._rescan.kill()
        self._config_reader.kill()
        self._resting.dismiss()
        self._fleet.stop_all(now_s)

    def _quit(self, now_s: float) -> None:
        """Have all processes write their stacks to standard error, then exit."""
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        self._rescan.kill()
        self._config_reader.kill()
        self._resting.kill()
        self._fleet.abort_all(now_s)
        self._kill_alarm.set(now_s + _REAP_TIMEOUT_S)

    def _kill_all(self, now_s: float) -> None:
        self._kill_alarm.clear()
        self._leave_at(now_s + _REAP_TIMEOUT_S)
        self._fleet.kill_all()
        self._resting.kill()
        self._monitor.kill()
        self._broker.kill()

    def _end_services(self, now_s: float) -> None:
        """End monitor and broker after the workers: the monitor shows the drain, the broker hands over what runs."""
        self._kill_alarm.clear()
        self._leave_at(min(self._leave_s, now_s + _REAP_TIMEOUT_S))
        self._monitor.kill()
        self._broker.dismiss()
        self._state.finish(now_s)

    def _leave_at(self, at_s: float) -> None:
        self._leave_s = at_s
        self._loop.call_at(at_s, _wake)


def _wake(_now_s: float) -> None:
    """Do nothing: the loop merely has to turn, since _look runs after each turn."""


def _affordable_slots(wanted: int) -> int:
    """How many databases the descriptor limit allows after raising it as far as possible: each takes an eventfd and a
    pipe."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (soft - _SPARE_DESCRIPTORS) // 2))
