"""The worker: one process for one database, from its first connection to its stop.

A worker connects and acquires the lead (leading.py), or is a standby while another runner leads; it reads the database
(refresh.py), serves it (serving.py), and starts over when the connection is lost (losing.py). One thread, one loop;
only the leader lock is polled, in standby.
It must not touch another database, start a process, or exit because its database has a problem: it exits only on a
stop order, when its master dies, or when the database no longer exists (EXIT_GONE).
"""

from __future__ import annotations

import math
import selectors
import time

from structlog.typing import FilteringBoundLogger

from ..config.settings import WorkerSettings
from ..control import Pipe
from ..errors import DatabaseError
from ..states import EXIT_STOPPED, Phase
from ..table.semaphore import SemaphoreTable
from ..table.slot import WorkerSlot
from .checks import Checks
from .comeback import Comeback
from .dozing import Dozing
from .leading import Leading
from .listening import Listening
from .losing import Losing
from .orders import Instructions
from .parts import WorkerParts
from .progress import Progress
from .refresh import Refresh
from .stops import Stops

#: A connection counts as stable after this time, or once jobs were claimed on it.
STABLE_S = 60.0


def run_worker(settings: WorkerSettings, table: SemaphoreTable, slot: int, pipe: Pipe) -> int:
    """Serve one database until stopped; returns the exit code. Runs in the child, after the fork."""
    return Worker(settings, table.worker_slot(slot), pipe).run()


class Worker:
    """One database's worker."""

    def __init__(
        self, settings: WorkerSettings, worker_slot: WorkerSlot, pipe: Pipe, log: FilteringBoundLogger | None = None
    ) -> None:
        self.parts = parts = WorkerParts(settings, worker_slot, pipe, log)
        self._database = parts.database
        self._worker_slot = worker_slot
        self._channel_options = settings.rules.channel_options
        self._listening = Listening(
            parts.database, parts.loop, self._hear_database, parts.routine(), settings.leader_timeout_s
        )
        self.instructions = Instructions(
            pipe, worker_slot.wakeup, parts.log, parts.loop, on_pauses=self._apply_pauses, on_rules=self._apply_rules
        )
        self.instructions.rules = settings.rules
        self.progress = Progress(parts.reporting, parts.deadline(), parts.deadline())
        self._comeback = Comeback()
        self._leading = Leading(parts, self.progress, self._comeback)
        self._checks = Checks(parts, self.progress, self.instructions)
        self.refresh = Refresh(parts, self.progress, self.instructions, self._checks)
        self._dozing = Dozing(parts, self.progress, self.instructions)
        self._stops = Stops(parts.database, parts.reporting.tell)
        self._losing = Losing(parts, self.progress, self._comeback, self.refresh.reading)
        #: When the current connection counts as stable, unless a job is claimed on it earlier.
        self._stable_s = math.inf

    # -- the loop ----------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until the exit code is known."""
        slot = self._worker_slot
        self.instructions.attach()
        slot.attach()
        self.parts.loop.register(slot.wakeup, selectors.EVENT_READ, lambda _now_s: slot.drain_wakeup())
        self.beat(time.monotonic())
        more = True
        while self.progress.exit_code is None:
            more = self.turn(more=more)
        self.close()
        return self.progress.exit_code

    def turn(self, *, more: bool, limit_s: float = math.inf) -> bool:
        """Wait for something to do, unless there is `more`, and do it. Returns True if there is more to do at once.

        `limit_s`: longest wait.
        """
        parts, listening = self.parts, self._listening
        if more:
            limit_s = 0.0
        elif listening.is_quiet:
            limit_s = min(limit_s, listening.quiet_until_s - time.monotonic())
        if parts.loop.turn(limit_s) or parts.is_due or more:
            return self.step(time.monotonic())
        self._watch(time.monotonic())
        return False

    def beat(self, now_s: float) -> None:
        """Take a turn at intervals even if nothing happens, to show the master that the worker is alive."""
        self.parts.loop.call_at(self.parts.with_beat_s(now_s + self.parts.settings.heartbeat_s), self.beat)
        self.parts.wake(now_s)

    def step(self, now_s: float) -> bool:
        """Do what there is to do. Returns True if there is more to do at once."""
        self.parts.is_due = False
        self._worker_slot.heartbeat(time.monotonic_ns())
        more = False
        try:
            if self.instructions.stop:
                self._stop(now_s)
            elif self.instructions.gone:
                self._losing.leave(now_s)
            elif self.instructions.is_released:
                self._losing.keep_away(now_s)
            elif self.progress.phase is Phase.SERVING:
                more = self._serve(now_s)
            else:
                self._losing.wait(now_s)
                self.progress.next_step.set_earlier(self.parts.outage.comeback_s(now_s))
                if self.progress.next_step.is_due:
                    self.progress.next_step.clear()
                    more = self._approach(now_s)
        except DatabaseError as error:
            self._losing.lose(error, now_s)
        self._watch(now_s)
        if self.parts.serving is not None:
            self.parts.reporting.write(self.parts.serving, now_s, more=more)
        self.parts.reporting.flush()
        return more

    def _watch(self, now_s: float) -> None:
        self._listening.watch(now_s, busy=self.parts.dispatcher.open > 0)

    def _hear_database(self, now_s: float) -> None:
        if self._database.connected:
            try:
                self._database.receive()
            except DatabaseError as error:
                self._losing.lose(error, now_s)
            self._leading.hear(now_s)

    # -- towards serving -----------------------------------------------------------------------------------

    def _approach(self, now_s: float) -> bool:
        """Connect, check, lead, read. Returns True when serving; raises DatabaseError if a step fails."""
        database, serving, leading = self._database, self.parts.serving, self._leading
        if self.progress.phase is Phase.STANDBY and database.connected and not leading.lead(now_s):
            return False
        if not database.connected and not leading.connect(now_s):
            return False
        self._checks.check(now_s)
        if serving is not None and not serving.backlog.permits:
            database.check_trigger()  # no running jobs to count, so check before reading everything
        if self.instructions.from_porter:
            self._dozing.take_over()
        if not leading.lead(now_s):
            return False
        tenure = leading.begin_tenure()
        database.listen()
        self.parts.dispatcher.encode_uuids(database.encoding)
        self.refresh.begin()
        if tenure is not None:
            self._worker_slot.begin_tenure(tenure)
        database.check_trigger()  # only now, because running jobs must hold their permits even without a trigger
        self._arrive(now_s)
        return True

    def _arrive(self, now_s: float) -> None:
        self._comeback.arrived()
        self._stable_s = now_s + STABLE_S
        leader_timeout_s = self.parts.settings.leader_timeout_s
        if leader_timeout_s is not None:
            self._database.limit_leadership(leader_timeout_s)
        self._losing.arrive()
        self._listening.begin_checks()
        self.progress.arrive()
        self._dozing.arrive(now_s)
        self._checks.show_gate()

    # -- serving -------------------------------------------------------------------------------------------

    def _serve(self, now_s: float) -> bool:
        serving = self.parts.serving
        assert serving is not None
        if self._listening.check.is_due:
            self._listening.check_listen(now_s)
        if self._dozing.due.is_due or self.instructions.doze:
            self._dozing.look(serving, self._checks.module_gate, now_s)
            if self.progress.exit_code is not None:
                return False
        self._checks.look(serving, now_s)
        if serving.backlog.stops_changed:
            self._stops.look(serving.backlog)
        self.refresh.refresh(serving, now_s)
        more = serving.turn(now_s, start=not self._checks.module_gate.is_closed and self._worker_slot.is_served)
        more |= self._database.modules_suspected
        if serving.has_claimed or now_s >= self._stable_s:
            serving.has_claimed, self._stable_s = False, math.inf
            self._comeback.record_success()  # the connection is stable: pauses start small again
        self._listening.note_started(serving.dispatched, now_s, full=self._worker_slot.is_full())
        return self.refresh.read_more(serving, now_s) or more

    # -- orders --------------------------------------------------------------------------------------------

    def _apply_pauses(self) -> None:
        self.parts.wake(time.monotonic())
        if self._losing.is_released and not self.instructions.is_released:
            self._losing.come_back()
        serving = self.parts.serving
        if serving is not None:
            unknown = serving.backlog.set_paused(self.instructions.paused_channels)
            unknown |= serving.backlog.set_limits(self.instructions.limits)
            self.instructions.rebuild |= unknown

    def _apply_rules(self) -> None:
        rules = self.instructions.rules
        self._checks.long_runs.apply(rules)
        self._dozing.apply(rules.idle_timeout_s)
        if (self._database.ageing_s, self._channel_options) != (rules.ageing_s, rules.channel_options):
            self._database.ageing_s, self._channel_options = rules.ageing_s, rules.channel_options
            self.instructions.rebuild = True  # waiting jobs have another order or other channels
        self.instructions.look = True

    # -- the end -----------------------------------------------------------------------------------------

    def _stop(self, now_s: float) -> None:
        """Start nothing more, settle what is known, give back jobs that were not sent."""
        self.progress.exit_code = EXIT_STOPPED
        if self.parts.serving is not None:
            self.parts.serving.drain(now_s, connected=self.progress.phase is Phase.SERVING)
        if not self.instructions.returns:
            self._database.let_go()

    def close(self) -> None:
        """Close everything, after the last step."""
        self.refresh.reading.close()
        self.parts.dispatcher.close()
        self.parts.outage.close()
        self._database.close()
        self.parts.loop.close()
