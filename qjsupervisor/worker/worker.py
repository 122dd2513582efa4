"""The worker: one process for one database, from its first connect to its stop.

A worker connects, stands by while another runner leads the database, reads it, serves it (serving.py), and begins
again when the connection is lost. One thread, one loop; nothing is polled but the leader lock in standby
(waiting for it inside PostgreSQL would hold a snapshot open, for days perhaps).

It must not touch another database, start another process, or end because its database is in trouble: it ends when
it is told to, when its master is gone, or when the database is (EXIT_GONE).
"""

from __future__ import annotations

import math
import selectors
import time

from .. import logs
from ..backlog.backlog import Backlog
from ..backoff import GIVE_UP_S
from ..config.settings import WorkerSettings
from ..control import Pipe
from ..errors import DatabaseError, DatabaseGone, DatabaseUnavailable, DatabaseUnfit
from ..loop import Loop
from ..odoo.dispatcher import Dispatcher
from ..postgres import queries
from ..postgres.database import Database
from ..postgres.failures import LOCK_NOT_AVAILABLE
from ..postgres.leadership import Lead
from ..postgres.reader import READ_TIMEOUT_S
from ..postgres.waiter import STATEMENT_TIMEOUT_S, Waiter
from ..states import EXIT_GONE, EXIT_STOPPED, RELEASED, Mode, Phase
from ..table.semaphore import SemaphoreTable
from ..table.slot import WorkerSlot
from .comeback import AWAY_S, Comeback
from .jobs import OVER_S
from .listening import Listening
from .long_runs import LongRuns
from .module_gate import ModuleGate
from .orders import Instructions
from .read_times import ReadTimes
from .reading import Loaded, Reading
from .reporting import Reporting
from .serving import Serving
from .trees import build_tree

#: How often the leader lock is tried while another runner has it; one that lets it go says so.
STANDBY_S = 5.0
#: However often it is said.
STANDBY_AGAIN_S = 0.05
#: How often while a former session of ours still has it, which was told to end.
FORMER_S = 0.25
#: How often a database that cannot be served as it is is looked at again.
BLOCKED_S = 5.0
#: A connection is a good one when jobs were claimed on it, or when it went on for so long.
PROVED_S = 60.0
#: How often a table that somebody has locked is tried again.
LOCKED_S = 1.0


def run_worker(settings: WorkerSettings, table: SemaphoreTable, slot: int, pipe: Pipe) -> int:
    """Serve one database until told otherwise; returns the exit code. In the child, after the fork."""
    return Worker(settings, table.worker_slot(slot), pipe).run()


class Worker:
    """One database's worker."""

    def __init__(self, settings: WorkerSettings, worker_slot: WorkerSlot, pipe: Pipe) -> None:
        self._settings = settings
        self._worker_slot = worker_slot
        self._log = logs.bound_logger(database=settings.database)
        self._loop = Loop()
        self._database = Database(
            settings.database,
            settings.connect_kwargs,
            Waiter(lambda: worker_slot.heartbeat(time.monotonic_ns())),
            settings.session_mark,
        )
        self._database.dead_after_restart_s = settings.dead_after_restart_s
        self._listening = Listening(self._database, self._loop, self._hear_database, settings.leader_timeout_s)
        self._instructions = Instructions(
            pipe, worker_slot.wakeup, self._log, on_pauses=self._apply_pauses, on_rules=self._apply_rules
        )
        self._instructions.rules = settings.rules
        self._database.ageing_s = settings.rules.ageing_s
        self._reading = Reading(self._database, self._loop, settings.window)
        self._dispatcher = Dispatcher(
            self._loop,
            settings.targets,
            settings.database,
            worker_slot.attach_servers([target.url for target in settings.targets]),
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
        )
        self._reporting = Reporting(worker_slot, pipe, self._dispatcher, self._log)
        self._module_gate = ModuleGate(self._database, self._reporting.tell)
        self._long_runs = LongRuns(self._database, self._dispatcher, self._log, self._reporting.tell)
        self._long_runs.apply(settings.rules)
        self._serving: Serving | None = None
        self._phase = Phase.APART
        #: What was told of the phase.
        self._shown = (Phase.APART, "")
        self._comeback = Comeback()
        #: When a connection that goes on counts as a good one, unless a job is claimed on it before.
        self._proved_s = math.inf
        #: When the leader lock was tried last, in standby.
        self._tried_s = -math.inf
        #: When the next step towards serving is due.
        self._due_s = 0.0
        #: Since when the database was not read, as long as permits may be held for it: those of a predecessor at first.
        self._unread_since_s = time.monotonic()
        self._read_times = ReadTimes(settings.reconcile_interval_s)
        #: Since when there is no such database.
        self._gone_since_s = math.inf
        #: What to add to the reason, as long as permits were given up.
        self._given_up = ""
        #: When to wake for more than to listen to the database again.
        self._turn_due_s = 0.0
        #: It has no connection, because an administrator wants the database for himself.
        self._is_released = False
        self._exit_code: int | None = None

    # -- the loop ----------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until the exit code is known."""
        self._instructions.attach(self._loop)
        self._worker_slot.attach()
        slot = self._worker_slot
        self._loop.register(slot.wakeup, selectors.EVENT_READ, lambda _now_s: slot.drain_wakeup())
        more = True
        while self._exit_code is None:
            now_s = time.monotonic()
            timeout_s = 0.0 if more else max(0.0, self._next_deadline_s(now_s) - now_s)
            ready = self._loop.turn(timeout_s)
            if ready or more or time.monotonic() >= self._turn_due_s:
                more = self._step(time.monotonic())
            else:
                self._watch(time.monotonic())
        self._close()
        return self._exit_code

    def _step(self, now_s: float) -> bool:
        """One turn; True if there is more to do at once."""
        self._worker_slot.heartbeat(time.monotonic_ns())
        self._instructions.end_pauses(now_s)
        more = False
        try:
            if self._instructions.stop:
                self._stop(now_s)
            elif self._instructions.is_released:
                self._keep_away(now_s)
            elif self._phase is Phase.SERVING:
                more = self._serve(now_s)
            else:
                self._wait(now_s)
                if now_s >= self._due_s:
                    more = self._approach(now_s)
        except DatabaseError as error:
            self._lose(error, now_s)
        self._watch(now_s)
        if self._serving is not None:
            self._reporting.write(self._serving, now_s, more=more)
        self._reporting.flush()
        return more

    def _next_deadline_s(self, now_s: float) -> float:
        """When to wake at the latest; `_turn_due_s`: when for more than to listen to the database again."""
        moments = [now_s + self._settings.heartbeat_s, self._reporting.due_s]
        if self._phase is Phase.SERVING and self._serving is not None:
            times = self._read_times
            moments += [times.reconcile_due_s, self._listening.sign_due_s, self._serving.next_deadline_s(now_s)]
            moments.append(self._reading.retry_s)
            moments += [*self._instructions.pauses.values(), self._module_gate.due_s]
            moments.append(self._long_runs.due_s(any_held=self._serving.backlog.holds_any))
            if self._awaits_reload:
                moments.append(times.reload_due_s)
        else:
            # Nothing is started: neither the end of a pause nor a target that may be asked again is worth a turn.
            moments += [self._due_s, self._unread_since_s + GIVE_UP_S]
            moments.append(self._instructions.pauses.get(RELEASED))
            if self._serving is not None:
                moments += [self._dispatcher.tick_due_s, self._serving.offline.due_s]
        self._turn_due_s = due_s = min([moment for moment in moments if moment is not None])
        return self._listening.wake_s(due_s)

    def _watch(self, now_s: float) -> None:
        self._listening.watch(now_s, busy=self._dispatcher.open > 0)

    def _hear_database(self, now_s: float) -> None:
        if self._database.connected:
            try:
                self._database.receive()
            except DatabaseError as error:
                self._lose(error, now_s)
            if self._phase is Phase.STANDBY and self._database.notified.let_go:
                self._database.notified.let_go = False
                self._due_s = max(now_s, self._tried_s + STANDBY_AGAIN_S)

    # -- towards serving -----------------------------------------------------------------------------------

    def _approach(self, now_s: float) -> bool:
        """Connect, look, lead, read. True when serving; raises DatabaseError where that cannot be done now."""
        database = self._database
        if self._phase is Phase.STANDBY and database.connected and not self._lead(now_s):
            return False
        if not database.connected and not self._connect(now_s):
            return False
        self._check(now_s)
        if self._serving is not None and not self._serving.backlog.holding():
            database.check_trigger()  # nothing to be counted: no need to read it all before
        if not self._lead(now_s):
            return False
        tenure = self._begin_tenure()
        database.listen()
        self._dispatcher.encode_uuids(database.encoding)
        self._begin_reading()
        if tenure is not None:
            self._worker_slot.begin_tenure(tenure)
        database.check_trigger()  # only now: what runs here holds its permits, whether we hear of the rest or not
        self._comeback.arrived()
        self._proved_s = now_s + PROVED_S
        if self._settings.leader_timeout_s is not None:
            database.limit_leadership(self._settings.leader_timeout_s)
        self._gone_since_s, self._given_up = math.inf, ""
        self._listening.begin_signs()
        self._phase = Phase.SERVING
        self._show_gate()
        return True

    def _connect(self, now_s: float) -> bool:
        """Connect. False: somebody else goes first, and we come back later."""
        database = self._database
        database.connect()
        assert database.about is not None
        until_s = self._comeback.stays_away_until_s(database.about.started, now_s)
        if until_s is not None:
            database.close()
            self._enter(Phase.APART, f"an administrator ended its session: left alone for {AWAY_S:g} s")
            self._due_s = until_s
            return False
        may_lead_s = self._comeback.may_lead_at_s(now_s)
        if may_lead_s > now_s:
            self._enter(Phase.STANDBY, "the connection was lost: whoever led this database before goes first")
            self._due_s = may_lead_s
        return may_lead_s <= now_s

    def _lead(self, now_s: float) -> bool:
        """Try to become the one runner; where that is not to be now, it is tried again later."""
        lead = self._database.lead()
        if lead is Lead.ANOTHER:
            if self._worker_slot.is_leased and self._worker_slot.holds_any:
                self._worker_slot.hand_over()
            self._let_go(now_s)
            self._enter(Phase.STANDBY, "another runner holds the leader lock of this database")
            self._tried_s = now_s
            self._due_s = now_s + STANDBY_S
        elif lead is Lead.FORMER:
            # Its jobs are ours, and go on counting.
            who = ", ".join(str(pid) for pid in self._database.leadership.former)
            self._enter(Phase.APART, f"waits for a former session of ours to end (server process {who})")
            self._due_s = now_s + FORMER_S
        return lead is Lead.OURS

    def _begin_tenure(self) -> int | None:
        """In a cluster: the number of this tenure, larger than any former leader's; else None, and no statement."""
        if not self._worker_slot.is_leased:
            return None
        self._worker_slot.take_back()
        return int(self._database.rows(queries.TENURE)[0][0])

    def _check(self, now_s: float) -> None:
        """Whether the database may be served, and its jobs may run now. Raises DatabaseError."""
        self._database.refuses_neutralized = not self._instructions.rules.serve_neutralized
        self._database.check()
        self._note_modules(now_s)

    def _look(self, serving: Serving, now_s: float) -> None:
        """See what may run, and what runs for too long, where it is time for that. Raises DatabaseError."""
        if self._instructions.look:
            self._instructions.look = False
            self._check(now_s)
        elif self._module_gate.is_due(now_s):
            self._database.check_modules()
            self._note_modules(now_s)
        long_runs_s = self._long_runs.due_s(any_held=serving.backlog.holds_any)
        if long_runs_s is not None and now_s >= long_runs_s:
            self._long_runs.look(serving.backlog.holding(), serving.jobs, now_s)

    def _note_modules(self, now_s: float) -> None:
        """Modules were looked at: jobs may run now, or have to wait."""
        self._module_gate.let_through(self._instructions.anyway)
        self._module_gate.looked(now_s)
        self._instructions.anyway = self._database.ignores_modules
        if self._phase is Phase.SERVING:
            self._show_gate()

    def _show_gate(self) -> None:
        """Tell whether jobs are run, or wait for a module; what runs in Odoo goes on either way."""
        reason = self._module_gate.reason
        self._show(Phase.BLOCKED if reason else Phase.SERVING, reason)

    def _begin_reading(self) -> None:
        """Make the channel tree afresh, and fill it, or of a big table its head; the loop waits."""
        self._instructions.rebuild = self._database.notified.reload = False
        if self._serving is not None:
            # The table may have grown big, queue_job be another version, or all of it another database.
            self._serving.recognise(self._database.look().oid)
        backlog = build_tree(self._settings, self._worker_slot, self._database, self._note_full)
        backlog.set_paused(self._instructions.paused_channels)
        if self._serving is not None:
            backlog.inherit(self._serving.backlog)
        self._database.limit_statements(READ_TIMEOUT_S)
        if self._serving is None:
            self._note_last_starts(backlog)
        loaded = self._reading.read_first(backlog)  # where that fails, the old tree goes on holding its permits
        self._database.limit_statements(STATEMENT_TIMEOUT_S)
        if self._serving is None:
            self._serving = Serving(self._database, self._worker_slot, backlog, self._dispatcher, self._log)
        else:
            self._serving.replace(backlog)
        self._after_load(loaded)
        self._unread_since_s = math.inf
        # Running jobs hold their permits in the table before the master hears of it, and opens the start barrier.
        self._serving.settle()
        self._reporting.tell({"is": "read"})

    def _note_last_starts(self, backlog: Backlog) -> None:
        """Throttles go on where a former supervisor left them."""
        within_s = backlog.longest_throttle_s
        for channel, age_s in self._database.rows(queries.LAST_STARTS, {"within_s": within_s}) if within_s else ():
            shared = backlog.note_start(channel, time.time_ns() // 1000 + self._database.clock_us - int(age_s * 1e6))
            self._worker_slot.note_start(shared, int(age_s * 1e9))

    def _note_full(self, channel: str) -> None:
        reason = "the shared table has no room for more channels: this one is limited in each database, not over all"
        self._log.warning("channel_not_shared", channel=channel, reason=f"{reason}; configure those that matter")

    def _after_load(self, loaded: Loaded) -> None:
        assert self._serving is not None
        self._serving.after_load(loaded.held, loaded.conflicting)
        self._reporting.wait_dependencies = loaded.wait_dependencies
        self._read_times.was_read(loaded.took_s, time.monotonic())

    # -- serving -------------------------------------------------------------------------------------------

    def _serve(self, now_s: float) -> bool:
        serving, reading = self._serving, self._reading
        assert serving is not None
        if self._instructions.rebuild or (self._awaits_reload and now_s >= self._read_times.reload_due_s):
            self._begin_reading()
            self._log.info("channels_read", channels=len(serving.backlog.nodes))
        if self._instructions.server:
            self._see_server()
        if now_s >= self._listening.sign_due_s:
            self._listening.give_sign(now_s)
        self._look(serving, now_s)
        if now_s >= self._read_times.reconcile_due_s or self._database.notified.overflowed:
            self._reconcile(now_s)
        reading.tick(now_s)
        if reading.loaded is not None:
            self._after_load(reading.loaded)
            reading.loaded = None
        if reading.error is not None:
            self._log.warning("table_read_failed", reason=str(reading.error))
            reading.error = None
        if reading.overtaken:
            self._complete(serving.backlog)
        self._reporting.remark = reading.trouble
        more = serving.turn(now_s, start=not self._module_gate.is_closed and self._worker_slot.is_served)
        more |= self._database.modules_suspected
        self._prove(serving, now_s)
        self._listening.note_started(serving.dispatched, now_s, full=self._worker_slot.is_full())
        return self._read_more(serving.backlog, now_s) or more

    def _see_server(self) -> None:
        """Whether new connections lead elsewhere: an old primary may live on behind an address that has moved."""
        found, self._instructions.server = self._instructions.server, ""
        about = self._database.about
        if about is not None and found != about.started:
            raise DatabaseUnavailable(self._database.name, "new connections lead to another server: connects anew")

    def _prove(self, serving: Serving, now_s: float) -> None:
        """The connection is a good one, if it is: a pause after it begins anew."""
        if serving.has_claimed or now_s >= self._proved_s:
            serving.has_claimed, self._proved_s = False, math.inf
            self._comeback.proved()

    def _read_more(self, backlog: Backlog, now_s: float) -> bool:
        """See that the windows are filled. True: that was done here, and something may start."""
        nodes = None if backlog.partial else backlog.unread()
        if nodes == []:
            return False
        self._reading.start(backlog, nodes, now_s)
        if not self._reading.is_refused(now_s):
            return False
        self._check(now_s)  # a server that is silent altogether is given up sooner than in a long read
        self._complete(backlog)
        return True

    def _complete(self, backlog: Backlog) -> None:
        """Read here what cannot be read aside: more changes meanwhile than is worth remembering, or no connection."""
        self._database.limit_statements(READ_TIMEOUT_S)
        self._after_load(self._reading.read_all(backlog))
        self._database.limit_statements(STATEMENT_TIMEOUT_S)

    @property
    def _awaits_reload(self) -> bool:
        """Whether the database's own tree is to be read again. Anybody can ask for that, as often as he likes."""
        return self._database.notified.reload and self._settings.mode is not Mode.SERVER_WIDE

    def _reconcile(self, now_s: float) -> None:
        """See whether the database may still be served, and read it afresh: notifications can have been missed."""
        assert self._serving is not None
        self._check(now_s)
        self._database.check_trigger()
        self._read_times.begin(now_s)
        if self._read_times.is_quick and not self._reading.busy:
            self._after_load(self._reading.read_all(self._serving.backlog))
        else:
            self._reading.start(self._serving.backlog, None, now_s)

    # -- trouble -----------------------------------------------------------------------------------------

    def _lose(self, error: DatabaseError, now_s: float) -> None:
        """A statement or the connection failed. What runs in Odoo runs on; the rest begins again."""
        self._reading.close()
        if self._worker_slot.is_leased:
            self._worker_slot.end_tenure()
        if self._serving is not None:
            self._serving.offline.lost(now_s)
            self._unread_since_s = min(self._unread_since_s, now_s)
        if isinstance(error, DatabaseGone) and not self._awaits_end(now_s):
            self._log.warning("database_gone", reason=str(error))
            self._reporting.tell({"is": "error", "reason": str(error)})
            self._exit_code = EXIT_GONE
            return
        if error.sqlstate == LOCK_NOT_AVAILABLE and self._database.connected:
            self._wait_for_lock(error, now_s)
            return
        was = self._phase
        server = "" if self._database.about is None else self._database.about.started
        self._database.close()
        if isinstance(error, DatabaseUnfit):
            self._enter(Phase.BLOCKED, f"{error}; looked at again every {BLOCKED_S:g} s")
            self._due_s = now_s + BLOCKED_S
        else:
            self._enter(Phase.APART, str(error))
            led, stood_by = was is Phase.SERVING, was is Phase.STANDBY
            self._due_s = self._comeback.lost(error, now_s, led=led, stood_by=stood_by, server=server)

    def _wait_for_lock(self, error: DatabaseError, now_s: float) -> None:
        """Somebody has locked a table, for an upgrade perhaps: the connection stays, and nobody else can lead."""
        try:
            holders = self._database.lock_holders()
        except DatabaseError as lost:
            self._lose(lost, now_s)
            return
        what = "; ".join(holders) or str(error)
        self._enter(Phase.BLOCKED, f"{what}; its running jobs keep their permits, which other databases may wait for")
        self._due_s = now_s + LOCKED_S

    def _keep_away(self, now_s: float) -> None:
        """An administrator has the database for himself: no connection. Requests go on, and count."""
        if not self._is_released:
            self._is_released, self._due_s = True, math.inf
            self._reading.close()
            if self._serving is not None:
                self._serving.offline.lost(now_s)
                self._unread_since_s = min(self._unread_since_s, now_s)
            self._database.close()
            self._enter(Phase.BLOCKED, "released by order: `qjsupervisor resume DATABASE` ends that")
        self._wait(now_s)

    def _awaits_end(self, now_s: float) -> bool:
        """A database that is gone may still have jobs in Odoo: whether they are to be counted for a moment more."""
        self._gone_since_s = min(self._gone_since_s, now_s)
        return self._dispatcher.open > 0 and now_s < self._gone_since_s + OVER_S

    def _wait(self, now_s: float) -> None:
        """Not serving: requests go on, and count; what only the database could speak for is given up after a while."""
        if self._serving is not None:
            self._dispatcher.tick(now_s)
            self._serving.offline.settle_unread(now_s, gave_up=math.isinf(self._unread_since_s))
        if now_s >= self._unread_since_s + GIVE_UP_S:
            self._give_up(now_s)

    def _give_up(self, now_s: float) -> None:
        """Hold permits only for open requests any more."""
        self._unread_since_s = math.inf
        if self._serving is not None:
            given_up = self._serving.offline.give_up(now_s)
            what = f"{given_up} permits were given up" if given_up else ""
        else:
            what = "the permits of its running jobs were given up" if self._worker_slot.holds_any else ""
            self._worker_slot.let_go()
        if what:
            reason = f"its database was not served for {GIVE_UP_S:g} s; jobs that still run there are not counted"
            self._log.error("permits_given_up", reason=f"{what}: {reason}")
            self._given_up = f"; {what}, as it was not served for {GIVE_UP_S:g} s"
            phase, shown = self._shown
            self._show(phase, shown + self._given_up)

    def _let_go(self, now_s: float) -> None:
        """Hold no permit any more: another runner leads."""
        if math.isinf(self._unread_since_s):
            return
        self._unread_since_s = math.inf
        if self._serving is not None:
            self._serving.offline.let_go(now_s)
        else:
            self._worker_slot.let_go()

    def _enter(self, phase: Phase, reason: str) -> None:
        """Change the phase."""
        self._phase = phase
        self._show(phase, reason + self._given_up)

    def _show(self, phase: Phase, reason: str) -> None:
        """Tell the phase; once for each change."""
        if (phase, reason) != self._shown:
            self._shown = (phase, reason)
            self._reporting.enter(phase, reason)

    def _apply_pauses(self) -> None:
        if self._is_released and not self._instructions.is_released:
            self._is_released, self._due_s = False, 0.0
        paused = self._instructions.paused_channels
        if self._serving is not None and self._serving.backlog.set_paused(paused):
            self._instructions.rebuild = True

    def _apply_rules(self) -> None:
        self._long_runs.apply(self._instructions.rules)
        if self._database.ageing_s != self._instructions.rules.ageing_s:
            self._database.ageing_s = self._instructions.rules.ageing_s
            self._instructions.rebuild = True  # all that waits is in another order
        self._instructions.look = True

    # -- the end -----------------------------------------------------------------------------------------

    def _stop(self, now_s: float) -> None:
        """Start nothing more, settle what is known, give back what nobody was asked to run."""
        self._exit_code = EXIT_STOPPED
        if self._serving is not None:
            self._serving.drain(now_s, connected=self._phase is Phase.SERVING)
        if not self._instructions.returns:
            self._database.let_go()

    def _close(self) -> None:
        self._reading.close()
        self._dispatcher.close()
        self._database.close()
        self._loop.close()
