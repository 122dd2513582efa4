"""The worker: one process for one database, from its first connect to its stop.

A worker connects, stands by while another runner leads the database, reads it, serves it (serving.py), and begins
again when the connection is lost. One thread, one selector; nothing is polled but the leader lock in standby
(waiting for it inside PostgreSQL would hold a snapshot open, for days perhaps).

It must not touch another database, start another process, or end because its database is in trouble: it ends when
it is told to, when its master is gone, or when the database is (EXIT_GONE).
"""

from __future__ import annotations

import enum
import math
import random
import selectors
import signal
import time
from typing import Any

from structlog.typing import FilteringBoundLogger

from . import logs, queries
from .backlog import Backlog
from .control import Message, Pipe
from .database import Database
from .dispatch import Dispatcher
from .errors import DatabaseError, DatabaseGone, DatabaseUnavailable, DatabaseUnfit, ProtocolError
from .policy import GIVE_UP_S, Backoff
from .reader import READ_TIMEOUT_S
from .reading import Loaded, Reading
from .reporting import Reporting
from .seat import Seat
from .semaphore import SemaphoreTable
from .serving import Serving
from .settings import WorkerSettings
from .states import EXIT_GONE, EXIT_STOPPED, Mode
from .trees import build_tree
from .waiter import STATEMENT_TIMEOUT_S, Waiter

#: How often it sees that its connection does; with SIGN_LIMIT_S, a dead one is noticed within 30 s.
SIGN_S = 20.0
#: How often the leader lock is tried while another runner has it.
STANDBY_S = 2.0
#: How often a database that cannot be served as it is is looked at again.
BLOCKED_S = 5.0
#: A full read of the table takes no more than this part of the time.
RECONCILE_SHARE = 0.01
#: A tree in the database is read again no sooner than this after the last read, and takes no more than this part of the
#: time.
RELOAD_S, RELOAD_SHARE = 0.5, 0.2
#: Reads up to this long may be repeated on the main connection.
QUICK_READ_S = 0.05
#: While jobs are being started, their own notifications (started, done) come in one after the other. They are left to
#: lie for this long after a start, or until the next statement, which brings them along: a new job waits no longer.
QUIET_S = 0.008
#: A worker that does not get to its end after its master died is ended by the kernel.
ORPHAN_LIMIT_S = 4


class Phase(enum.Enum):
    """Where a worker is with its database."""

    APART = "not connected"
    STANDBY = "another runner leads"
    BLOCKED = "not to be served as it is"
    SERVING = "serving"


def run_worker(settings: WorkerSettings, table: SemaphoreTable, slot: int, pipe: Pipe) -> int:
    """Serve one database until told otherwise; returns the exit code. In the child, after the fork."""
    return Worker(settings, table.seat(slot), pipe).run()


class Worker:
    """One database's worker."""

    def __init__(self, settings: WorkerSettings, seat: Seat, pipe: Pipe) -> None:
        self._settings = settings
        self._seat = seat
        self._pipe = pipe
        self._log: FilteringBoundLogger = logs.get_logger(database=settings.database)
        self._selector = selectors.DefaultSelector()
        self._database = Database(
            settings.database, settings.connect_kwargs, Waiter(lambda: seat.stamp(time.monotonic_ns()))
        )
        self._reading = Reading(self._database, self._selector, settings.window)
        self._dispatcher = Dispatcher(
            self._selector,
            settings.targets,
            settings.database,
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
        )
        self._reporting = Reporting(seat, pipe, self._dispatcher)
        self._serving: Serving | None = None
        self._phase = Phase.APART
        self._backoff = Backoff(first_s=0.5, limit_s=30)
        #: When the next step towards serving is due.
        self._due_s = 0.0
        #: Since when the database was not read any more, as long as permits are held for it.
        self._unread_since_s = math.inf
        #: Not to be read afresh before, whoever asks for it.
        self._reload_due_s = 0.0
        self._reconcile_due_s = 0.0
        self._last_read_s = 0.0
        self._sign_due_s = 0.0
        self._sign_expected = False
        self._watched_fd = -1
        self._quiet_until_s = 0.0
        self._turn_due_s = 0.0
        self._dispatched = 0
        self._pauses: dict[str, float | None] = {}
        self._rebuild = False
        self._stopping = False
        self._exit_code: int | None = None

    # -- the loop ----------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until the exit code is known."""
        signal.signal(signal.SIGTERM, self._note_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._database.waiter.install()
        self._seat.attach()
        self._selector.register(self._pipe, selectors.EVENT_READ, self._hear_master)
        self._selector.register(self._seat.wakeup, selectors.EVENT_READ, self._seat.drain_wakeup)
        more = True
        while self._exit_code is None:
            now_s = time.monotonic()
            timeout_s = 0.0 if more else max(0.0, self._next_deadline_s(now_s) - now_s)
            ready = self._selector.select(timeout_s)
            for key, _events in ready:
                key.data()
            if ready or more or time.monotonic() >= self._turn_due_s:
                more = self._step(time.monotonic())
            else:
                self._watch(time.monotonic())
        self._close()
        return self._exit_code

    def _note_stop(self, _signum: int, _frame: object) -> None:
        """SIGTERM: from an operator, or because the master died."""
        self._stopping = True
        signal.alarm(ORPHAN_LIMIT_S)

    def _step(self, now_s: float) -> bool:
        """One turn; True if there is more to do at once."""
        self._seat.stamp(time.monotonic_ns())
        more = False
        try:
            if self._stopping:
                self._stop(now_s)
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
            moments += [self._reconcile_due_s, self._sign_due_s, self._serving.next_deadline_s(now_s)]
            if self._awaits_reload:
                moments.append(self._reload_due_s)
        else:
            moments += [self._due_s, self._dispatcher.next_deadline_s(now_s)]
        moments += self._pauses.values()
        self._turn_due_s = due_s = min(moment for moment in moments if moment is not None)
        return min(due_s, self._quiet_until_s) if self._quiet_until_s > now_s else due_s

    def _watch(self, now_s: float) -> None:
        """Keep the selector in line with the connection, which comes and goes and is left alone for moments."""
        fd = self._database.fileno() if self._database.connected else -1
        if now_s < self._quiet_until_s and self._dispatcher.open:
            fd = -1
        if fd == self._watched_fd:
            return
        if self._watched_fd >= 0:
            self._selector.unregister(self._watched_fd)
        if fd >= 0:
            self._selector.register(fd, selectors.EVENT_READ, self._hear_database)
        self._watched_fd = fd

    def _hear_database(self) -> None:
        if self._database.connected:
            try:
                self._database.receive()
            except DatabaseError as error:
                self._lose(error, time.monotonic())

    # -- towards serving -----------------------------------------------------------------------------------

    def _approach(self, now_s: float) -> bool:
        """Connect, look, lead, read. True when serving; raises DatabaseError where that cannot be done now."""
        database = self._database
        if not database.connected:
            database.connect()
        database.check()
        if not database.lead():
            self._let_go(now_s)
            self._enter(Phase.STANDBY, "standby", "another runner holds the leader lock of this database")
            self._due_s = now_s + STANDBY_S * random.uniform(0.9, 1.1)
            return False
        database.listen()
        self._dispatcher.encode_uuids(database.encoding)
        database.limit_statements(READ_TIMEOUT_S)
        self._read_all()
        database.limit_statements(STATEMENT_TIMEOUT_S)
        self._backoff.reset()
        self._sign_due_s, self._sign_expected = time.monotonic() + SIGN_S, False
        self._enter(Phase.SERVING, "ready", "")
        return True

    def _read_all(self) -> None:
        """Make the channel tree afresh, and read everything; the loop waits."""
        backlog = self._new_tree()
        if self._serving is not None:
            backlog.inherit(self._serving.backlog)
        loaded = self._reading.read_all(backlog)  # where that fails, the old tree goes on holding its permits
        if self._serving is None:
            self._serving = Serving(self._database, self._seat, backlog, self._dispatcher, self._log)
        else:
            self._serving.replace(backlog)
        self._after_load(loaded)
        self._unread_since_s = math.inf
        # Running jobs hold their permits in the table before the master hears of it, and opens the start barrier.
        self._serving.settle()
        self._reporting.tell({"is": "read"})

    def _new_tree(self) -> Backlog:
        rows: list[tuple[Any, ...]] = []
        if self._settings.mode is Mode.PER_DATABASE:
            if not self._database.has_channel_table:
                raise DatabaseUnfit(
                    self._settings.database,
                    "channels per database need queue_job 18.0.4 or newer in it: upgrade it, or configure `channels`",
                )
            rows = self._database.rows(queries.CHANNELS)
        backlog = build_tree(self._settings, self._seat, rows)
        backlog.set_paused(self._pauses)
        return backlog

    def _after_load(self, loaded: Loaded) -> None:
        assert self._serving is not None
        self._serving.after_load(loaded.held, loaded.doubtful)
        self._reporting.wait_dependencies = loaded.wait_dependencies
        self._last_read_s = loaded.took_s
        pause_s = max(self._settings.reconcile_interval_s, loaded.took_s / RECONCILE_SHARE)
        now_s = time.monotonic()
        self._reconcile_due_s = now_s + pause_s
        self._reload_due_s = now_s + RELOAD_S + loaded.took_s / RELOAD_SHARE

    # -- serving -------------------------------------------------------------------------------------------

    def _serve(self, now_s: float) -> bool:
        serving, reading = self._serving, self._reading
        assert serving is not None
        if self._rebuild or self._is_reload_due(now_s):
            self._rebuild = self._database.notified.reload = False
            self._read_all()
            self._log.info("channels_read", channels=len(serving.backlog.nodes))
        self._end_pauses(now_s)
        if now_s >= self._sign_due_s:
            self._give_sign(now_s)
        if now_s >= self._reconcile_due_s or self._database.notified.overflowed:
            self._reconcile(now_s)
        reading.tick(now_s)
        if reading.loaded is not None:
            self._after_load(reading.loaded)
            reading.loaded = None
        if reading.error is not None:
            self._log.warning("table_read_failed", reason=str(reading.error))
            reading.error = None
        more = serving.turn(now_s, start=True)
        if serving.dispatched > self._dispatched and now_s >= self._quiet_until_s:
            self._dispatched, self._quiet_until_s = serving.dispatched, now_s + QUIET_S
        unread = serving.backlog.unread()
        if unread:
            reading.start(serving.backlog, unread, now_s)
        return more

    def _is_reload_due(self, now_s: float) -> bool:
        """Whether the database's own tree is to be read again. Anybody can ask for that, as often as he likes."""
        return self._awaits_reload and now_s >= self._reload_due_s

    @property
    def _awaits_reload(self) -> bool:
        return self._database.notified.reload and self._settings.mode is Mode.PER_DATABASE

    def _give_sign(self, now_s: float) -> None:
        """See that the connection still hears: what it says to itself has to have come back by the next time."""
        if self._sign_expected and not self._database.notified.heard_itself:
            raise DatabaseUnavailable(
                self._settings.database, "LISTEN hears nothing: is there a pooler in transaction mode in between?"
            )
        self._database.call_itself()
        self._sign_expected = True
        self._sign_due_s = now_s + SIGN_S

    def _reconcile(self, now_s: float) -> None:
        """See whether the database may still be served, and read it afresh: notifications can have been missed."""
        assert self._serving is not None
        self._database.check()
        self._reconcile_due_s = now_s + self._settings.reconcile_interval_s
        if self._last_read_s < QUICK_READ_S and not self._reading.busy:
            self._after_load(self._reading.read_all(self._serving.backlog))
        else:
            self._reading.start(self._serving.backlog, None, now_s)

    # -- trouble -----------------------------------------------------------------------------------------

    def _lose(self, error: DatabaseError, now_s: float) -> None:
        """A statement or the connection failed. What runs in Odoo runs on; the rest begins again."""
        self._reading.close()
        if self._serving is not None:
            self._serving.lost(now_s)
            self._unread_since_s = min(self._unread_since_s, now_s)
        if isinstance(error, DatabaseGone):
            self._log.warning("database_gone", reason=str(error))
            self._reporting.tell({"is": "error", "reason": str(error)})
            self._exit_code = EXIT_GONE
            return
        self._database.close()
        if isinstance(error, DatabaseUnfit):
            self._enter(Phase.BLOCKED, "blocked", f"{error}; looked at again every {BLOCKED_S:g} s")
            self._due_s = now_s + BLOCKED_S
        else:
            self._enter(Phase.APART, "starting", str(error))
            self._due_s = now_s + self._backoff.next_s()

    def _wait(self, now_s: float) -> None:
        """Not serving: requests go on, and their permits are not kept from the other databases for ever."""
        self._dispatcher.tick(now_s)
        if self._serving is None:
            return
        self._serving.settle_unread(now_s)
        if now_s >= self._unread_since_s + GIVE_UP_S:
            reason = f"its database was not served for {GIVE_UP_S:g} s; jobs that still run there are not counted"
            self._log.error("permits_given_up", reason=reason)
            self._let_go(now_s)

    def _let_go(self, now_s: float) -> None:
        self._unread_since_s = math.inf
        if self._serving is not None:
            self._serving.let_go(now_s)

    def _enter(self, phase: Phase, word: str, reason: str) -> None:
        """Change the phase; log and tell the master, once for each change."""
        if (phase, reason) == (self._phase, self._reporting.reason):
            return
        self._phase = phase
        event = {"ready": "database_ready", "standby": "database_standby"}.get(word, f"database_{word}")
        if word == "starting":
            self._log.warning("database_lost", reason=reason)
        elif word == "blocked":
            self._log.warning(event, reason=reason)
        else:
            self._log.info(event, **({"reason": reason} if reason else {}))
        self._reporting.enter(word, reason)

    # -- orders ------------------------------------------------------------------------------------------

    def _hear_master(self) -> None:
        try:
            for message in self._pipe.receive_all():
                self._obey(message)
        except EOFError:
            self._log.warning("master_lost")
            self._selector.unregister(self._pipe)
            self._stopping = True
            signal.alarm(ORPHAN_LIMIT_S)
        except ProtocolError as error:
            self._log.error("order_refused", reason=str(error))

    def _obey(self, message: Message) -> None:
        order = message.get("do")
        if order == "stop":
            self._stopping = True
        elif order == "pauses":
            self._set_pauses(message["pauses"])
        elif order in ("channels", "resync"):
            self._rebuild = True
        else:
            self._log.error("order_refused", reason=f"unknown order {order!r}")

    def _set_pauses(self, pauses: dict[str, float | None]) -> None:
        self._pauses = dict(pauses)
        if self._serving is not None and self._serving.backlog.set_paused(self._pauses):
            self._rebuild = True

    def _end_pauses(self, now_s: float) -> None:
        going_on = {name: end_s for name, end_s in self._pauses.items() if end_s is None or end_s > now_s}
        if len(going_on) < len(self._pauses):
            self._set_pauses(going_on)

    # -- the end -----------------------------------------------------------------------------------------

    def _stop(self, now_s: float) -> None:
        """Start nothing more, settle what is known, give back what nobody was asked to run."""
        self._exit_code = EXIT_STOPPED
        if self._serving is not None:
            self._serving.drain(now_s, connected=self._phase is Phase.SERVING)

    def _close(self) -> None:
        self._reading.close()
        self._dispatcher.close()
        self._database.close()
        self._selector.close()
