"""A worker's reports: numbers to the shared table, changes of state to the master and the log."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Any

from ..control import Pipe
from ..logs import EventLog
from ..loop import Deadline
from ..odoo.dispatcher import Dispatcher
from ..states import Phase, TargetState
from ..table.layout import Slot
from ..table.slot import WorkerSlot
from .serving import Serving

#: Interval for writing numbers while jobs come and go.
REPORT_S = 0.2
#: The rate covers the last one to two minutes: a mark is set every RATE_S, and the one before it counts.
RATE_S = 60.0


class Loss(enum.Enum):
    """Whose doing it is that a database is lost, or an attempt to connect came to nothing."""

    #: Of its PostgreSQL, and so of all databases there: the log has that already.
    OF_SERVER = 0
    #: Of the database; or of the server, which the next attempt tells.
    OWN = 1


class ChangeLog:
    """Which changes of state get a line in the log.

    The first loss waits for the next attempt: where that fails for the server's sake, there is one line for all
    databases, and none here, neither now nor when it is back.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        #: A loss without a line.
        self._unlogged = ""
        #: An attempt failed since it was served, and the reason that the last line told.
        self._has_failed = False
        self._told = ""
        self._blocked = ""
        self._of_server = False

    def note(self, phase: Phase, reason: str, loss: Loss | None) -> None:
        """A change, or one more attempt in vain."""
        if loss is Loss.OF_SERVER:
            self._unlogged, self._of_server, self._has_failed = "", True, False
        elif loss is Loss.OWN:
            self._note_loss(reason)
        else:
            if self._unlogged and not self._of_server and not self._is_as_before(phase, reason):
                self._log.warning("database_lost", reason=self._unlogged)
            self._unlogged = ""
            self._note_phase(phase, reason)

    def _is_as_before(self, phase: Phase, reason: str) -> bool:
        """It was blocked, and lost for a moment: nobody is served less."""
        return phase is Phase.BLOCKED and reason == self._blocked

    def _note_loss(self, reason: str) -> None:
        """The second attempt in vain is something that somebody has to see to."""
        if not self._has_failed:
            self._has_failed, self._unlogged = True, reason
        elif reason != self._told:
            self._unlogged, self._told = "", reason
            self._log.error("database_lost", reason=reason)

    def _note_phase(self, phase: Phase, reason: str) -> None:
        if phase is Phase.DISCONNECTED:
            if not self._of_server:
                self._log.warning("database_lost", reason=reason)
            return
        of_server, self._of_server = self._of_server, False
        is_news = bool(self._told) or reason != self._blocked
        of_server = of_server and not self._told
        self._has_failed, self._told = False, ""
        if phase is not Phase.BLOCKED:
            note = self._log.debug if of_server else self._log.info
            note(f"database_{phase.value}", **({"reason": reason} if reason else {}))
        elif is_news:
            self._log.error("database_blocked", reason=reason)
        self._blocked = reason if phase is Phase.BLOCKED else ""


#: Messages that are no states.
_KINDS = ("read", "error", "targets", "modules", "overdue", "stopped", "starts", "idle", "stays", "dozes", "door")


class Reporting:
    """Numbers at most a few times a second; messages at once, or as soon as the master reads again."""

    def __init__(
        self, worker_slot: WorkerSlot, pipe: Pipe, dispatcher: Dispatcher, log: EventLog, due: Deadline
    ) -> None:
        """`due`: when `write` should be called again, though nothing happens; not set while all is written."""
        self.due = due
        self._worker_slot = worker_slot
        self._pipe = pipe
        self._dispatcher = dispatcher
        self._log = log
        self._unsent: dict[str, Mapping[str, Any]] = {}
        self._written: dict[int, int] = {}
        self._channels: dict[int, tuple[int, int]] = {}
        #: WorkerSlot.resets when these were reported.
        self._resets = 0
        self._last_s = 0.0
        #: (time, number of finished jobs) of the more recent mark.
        self._mark: tuple[float, int] | None = None
        self.wait_dependencies = 0
        self.reason = ""
        self._changes = ChangeLog(log)
        #: What slows the database down, shown if there is no worse reason.
        self.remark = ""
        self._told_targets: list[list[object]] = []
        #: The reason last written; None: a predecessor may have left one.
        self._said: str | None = None

    # -- the master ----------------------------------------------------------------------------------------

    def enter(self, phase: Phase, reason: str, loss: Loss | None = None) -> None:
        """A change of state, with its reason ('' = none), or one more attempt that came to nothing (`loss`)."""
        self._changes.note(phase, reason, loss)
        if loss is not None and reason == self.reason:
            return
        self.reason = reason
        self._say(reason)
        self.tell({"is": phase.value, "reason": reason} if reason else {"is": phase.value})

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message; an unsent one of the same kind is replaced."""
        kind = str(message["is"])
        key = kind if kind in _KINDS else "state"
        self._unsent.pop(key, None)
        self._unsent[key] = message
        self.flush()

    def flush(self) -> None:
        """Send messages that could not be sent while the master was stopped or busy."""
        for key in list(self._unsent):
            if not self._pipe.send(self._unsent[key]):
                return
            del self._unsent[key]

    # -- the table -----------------------------------------------------------------------------------------

    def write(self, serving: Serving, now_s: float, *, more: bool) -> None:
        """Write the numbers if due."""
        again_s = self._last_s + REPORT_S
        if now_s < again_s:
            if self.due.at_s > again_s:
                self.due.set(again_s)
            return
        self._last_s = now_s
        if self.due.at_s < math.inf:
            self.due.clear()
        changed = self._put(Slot.DISPATCHED, serving.dispatched)
        changed |= self._put(Slot.FINISHED, serving.finished)
        if self._mark is None or now_s >= self._mark[0] + RATE_S or serving.finished < self._mark[1]:
            self._set_mark(serving.finished, now_s)
        pending: dict[int, int] = {}
        not_due: dict[int, int] = {}
        failed = 0
        for node in serving.backlog.nodes.values():
            pending[node.shared] = pending.get(node.shared, 0) + node.pending
            failed += node.failed
            not_due[node.shared] = not_due.get(node.shared, 0) + len(node.etas)
        changed |= self._put(Slot.PENDING, sum(pending.values()))
        changed |= self._put(Slot.FAILED, failed)
        changed |= self._put(Slot.OLDEST_US, serving.backlog.oldest_due_us())
        changed |= self._put(Slot.RUNNING, serving.backlog.permits)
        changed |= self._put(Slot.WAIT_DEPENDENCIES, self.wait_dependencies)
        self._put_channels(pending, not_due)
        self._put_target()
        if changed and not more:
            self.due.set(now_s + REPORT_S)
        elif self._mark is not None and self._written[Slot.RATE_FINISHED] != serving.finished:
            self.due.set(self._mark[0] + RATE_S)

    def _set_mark(self, finished: int, now_s: float) -> None:
        """Set a new mark; the rate then counts from the previous one."""
        since_s, then = self._mark or (now_s, finished)
        if finished < then:  # the counter was reset after a lost connection
            since_s, then = now_s, finished
        self._put(Slot.RATE_SINCE_NS, int(max(since_s, now_s - RATE_S) * 1e9))
        self._put(Slot.RATE_FINISHED, then)
        self._mark = now_s, finished

    def _put_channels(self, pending: Mapping[int, int], not_due: Mapping[int, int]) -> None:
        """Write how many jobs wait directly in each shared channel."""
        if self._worker_slot.resets != self._resets:
            self._resets = self._worker_slot.resets
            self._channels.clear()
        for channel, number in pending.items():
            if self._channels.get(channel) != (number, not_due[channel]):
                self._channels[channel] = (number, not_due[channel])
                self._worker_slot.report_pending(channel, number, not_due[channel])

    def _put_target(self) -> None:
        """Report the state of each target for this database; whether it can be reached at all is in the table."""
        targets = self._dispatcher.targets
        told = [list(target.health) for target in targets]
        if told != self._told_targets:
            self._told_targets = told
            self.tell({"is": "targets", "targets": told})
        reason = next((target.breaker.reason for target in targets if target.breaker.state is TargetState.DOWN), "")
        self._say(self.reason or reason or self.remark)

    def _say(self, reason: str) -> None:
        if reason != self._said:
            self._said = reason
            self._worker_slot.set_message(reason)

    def _put(self, word: int, value: int) -> bool:
        if self._written.get(word) == value:
            return False
        self._written[word] = value
        self._worker_slot.set_counter(word, value)
        return True
