"""The worker: one process for one database, from its first connect to its stop.

A worker connects and leads (leading.py), stands by while another runner leads the database, reads it (refresh.py),
serves it (serving.py), and begins again when the connection is lost (losing.py). One thread, one loop; nothing is
polled but the leader lock in standby.

It must not touch another database, start another process, or end because its database is in trouble: it exits only on a
stop order, when its master dies, or when the database no longer exists (EXIT_GONE).
"""

from __future__ import annotations

import math
import selectors
import time

from ..backoff import GIVE_UP_S
from ..config.settings import WorkerSettings
from ..control import Pipe
from ..errors import DatabaseError
from ..states import EXIT_STOPPED, RELEASED, Phase
from ..table.semaphore import SemaphoreTable
from ..table.slot import WorkerSlot
from .checks import Checks
from .comeback import Comeback
from .leading import Leading
from .listening import Listening
from .losing import Losing
from .orders import Instructions
from .parts import Parts
from .progress import Progress
from .refresh import Refresh

#: A connection is a good one when jobs were claimed on it, or when it went on for so long.
PROVED_S = 60.0


def run_worker(settings: WorkerSettings, table: SemaphoreTable, slot: int, pipe: Pipe) -> int:
    """Serve one database until told otherwise; returns the exit code. In the child, after the fork."""
    return Worker(settings, table.worker_slot(slot), pipe).run()


class Worker:
    """One database's worker."""

    def __init__(self, settings: WorkerSettings, worker_slot: WorkerSlot, pipe: Pipe) -> None:
        self.parts = parts = Parts(settings, worker_slot, pipe)
        self._database = parts.database
        self._worker_slot = worker_slot
        self._listening = Listening(parts.database, parts.loop, self._hear_database, settings.leader_timeout_s)
        self.instructions = Instructions(
            pipe, worker_slot.wakeup, parts.log, on_pauses=self._apply_pauses, on_rules=self._apply_rules
        )
        self.instructions.rules = settings.rules
        self.progress = Progress(parts.reporting)
        self._comeback = Comeback()
        self._leading = Leading(parts, self.progress, self._comeback)
        self._checks = Checks(parts, self.progress, self.instructions)
        self.refresh = Refresh(parts, self.progress, self.instructions, self._checks)
        self._losing = Losing(parts, self.progress, self._comeback, self.refresh.reading)
        #: When a connection that goes on counts as a good one, unless a job is claimed on it before.
        self._proved_s = math.inf
        #: When to wake for more than to listen to the database again.
        self._turn_due_s = 0.0

    # -- the loop ----------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until the exit code is known."""
        loop, slot = self.parts.loop, self._worker_slot
        self.instructions.attach(loop)
        slot.attach()
        loop.register(slot.wakeup, selectors.EVENT_READ, lambda _now_s: slot.drain_wakeup())
        more = True
        while self.progress.exit_code is None:
            now_s = time.monotonic()
            timeout_s = 0.0 if more else max(0.0, self.next_deadline_s(now_s) - now_s)
            ready = loop.turn(timeout_s)
            if ready or more or time.monotonic() >= self._turn_due_s:
                more = self.step(time.monotonic())
            else:
                self._watch(time.monotonic())
        self.close()
        return self.progress.exit_code

    def step(self, now_s: float) -> bool:
        """One turn; True if there is more to do at once."""
        self._worker_slot.heartbeat(time.monotonic_ns())
        self.instructions.end_pauses(now_s)
        more = False
        try:
            if self.instructions.stop:
                self._stop(now_s)
            elif self.instructions.is_released:
                self._losing.keep_away(now_s)
            elif self.progress.phase is Phase.SERVING:
                more = self._serve(now_s)
            else:
                self._losing.wait(now_s)
                if now_s >= self.progress.due_s:
                    more = self._approach(now_s)
        except DatabaseError as error:
            self._losing.lose(error, now_s)
        self._watch(now_s)
        if self.parts.serving is not None:
            self.parts.reporting.write(self.parts.serving, now_s, more=more)
        self.parts.reporting.flush()
        return more

    def next_deadline_s(self, now_s: float) -> float:
        """When to wake at the latest; `_turn_due_s`: when for more than to listen to the database again."""
        parts, serving = self.parts, self.parts.serving
        moments = [now_s + parts.settings.heartbeat_s, parts.reporting.due_s]
        if self.progress.phase is Phase.SERVING and serving is not None:
            times = self.refresh.times
            moments += [times.reconcile_due_s, self._listening.sign_due_s, serving.next_deadline_s(now_s)]
            moments.append(self.refresh.reading.retry_s)
            moments += [*self.instructions.pauses.values(), self._checks.module_gate.due_s]
            moments.append(self._checks.long_runs.due_s(any_held=serving.backlog.holds_any))
            if self.refresh.awaits_reload:
                moments.append(times.reload_due_s)
        else:
            # Nothing is started: neither the end of a pause nor a target that may be asked again is worth a turn.
            moments += [self.progress.due_s, self.progress.unread_since_s + GIVE_UP_S]
            moments.append(self.instructions.pauses.get(RELEASED))
            if serving is not None:
                moments += [parts.dispatcher.tick_due_s, serving.offline.due_s]
        self._turn_due_s = due_s = min([moment for moment in moments if moment is not None])
        return self._listening.wake_s(due_s)

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
        """Connect, look, lead, read. True when serving; raises DatabaseError where that cannot be done now."""
        database, serving, leading = self._database, self.parts.serving, self._leading
        if self.progress.phase is Phase.STANDBY and database.connected and not leading.lead(now_s):
            return False
        if not database.connected and not leading.connect(now_s):
            return False
        self._checks.check(now_s)
        if serving is not None and not serving.backlog.holding():
            database.check_trigger()  # nothing to be counted: no need to read it all before
        if not leading.lead(now_s):
            return False
        tenure = leading.begin_tenure()
        database.listen()
        self.parts.dispatcher.encode_uuids(database.encoding)
        self.refresh.begin()
        if tenure is not None:
            self._worker_slot.begin_tenure(tenure)
        database.check_trigger()  # only now: what runs here holds its permits, whether we hear of the rest or not
        self._arrive(now_s)
        return True

    def _arrive(self, now_s: float) -> None:
        self._comeback.arrived()
        self._proved_s = now_s + PROVED_S
        leader_timeout_s = self.parts.settings.leader_timeout_s
        if leader_timeout_s is not None:
            self._database.limit_leadership(leader_timeout_s)
        self._losing.arrive()
        self._listening.begin_signs()
        self.progress.arrive()
        self._checks.show_gate()

    # -- serving -------------------------------------------------------------------------------------------

    def _serve(self, now_s: float) -> bool:
        serving = self.parts.serving
        assert serving is not None
        if now_s >= self._listening.sign_due_s:
            self._listening.give_sign(now_s)
        self._checks.look(serving, now_s)
        self.refresh.refresh(serving, now_s)
        more = serving.turn(now_s, start=not self._checks.module_gate.is_closed and self._worker_slot.is_served)
        more |= self._database.modules_suspected
        if serving.has_claimed or now_s >= self._proved_s:
            serving.has_claimed, self._proved_s = False, math.inf
            self._comeback.proved()  # the connection is a good one: a pause after it begins anew
        self._listening.note_started(serving.dispatched, now_s, full=self._worker_slot.is_full())
        return self.refresh.read_more(serving, now_s) or more

    # -- orders --------------------------------------------------------------------------------------------

    def _apply_pauses(self) -> None:
        if self._losing.is_released and not self.instructions.is_released:
            self._losing.come_back()
        serving = self.parts.serving
        if serving is not None and serving.backlog.set_paused(self.instructions.paused_channels):
            self.instructions.rebuild = True

    def _apply_rules(self) -> None:
        rules = self.instructions.rules
        self._checks.long_runs.apply(rules)
        if self._database.ageing_s != rules.ageing_s:
            self._database.ageing_s = rules.ageing_s
            self.instructions.rebuild = True  # all that waits is in another order
        self.instructions.look = True

    # -- the end -----------------------------------------------------------------------------------------

    def _stop(self, now_s: float) -> None:
        """Start nothing more, settle what is known, give back what nobody was asked to run."""
        self.progress.exit_code = EXIT_STOPPED
        if self.parts.serving is not None:
            self.parts.serving.drain(now_s, connected=self.progress.phase is Phase.SERVING)
        if not self.instructions.returns:
            self._database.let_go()

    def close(self) -> None:
        """Close all that is open; after the last step."""
        self.refresh.reading.close()
        self.parts.dispatcher.close()
        self._database.close()
        self.parts.loop.close()
