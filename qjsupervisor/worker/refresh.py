"""Decides when channels and jobs are read from the database, and applies what was read.

They are read at first, when a channel tree changes, at intervals, and when a window runs low. reading.py does the
reading. Methods raise DatabaseError.
"""

from __future__ import annotations

import time
from dataclasses import replace

from ..backlog.backlog import Backlog
from ..postgres import queries
from ..postgres.reader import READ_TIMEOUT_S
from ..states import Mode
from .checks import Checks
from .orders import Instructions
from .parts import WorkerParts
from .past_starts import PastStarts
from .progress import Progress
from .read_times import ReadTimes
from .reading import Loaded, Reading
from .serving import Serving
from .trees import build_tree


class Refresh:
    """One worker's reads of jobs, except for the rows each turn reads."""

    def __init__(self, parts: WorkerParts, progress: Progress, instructions: Instructions, checks: Checks) -> None:
        self._parts = parts
        self._progress = progress
        self._instructions = instructions
        self._checks = checks
        self._database = parts.database
        self.reading = Reading(parts.database, parts.loop, parts.settings.window, parts.wake)
        self._times = ReadTimes(parts.settings.reconcile_interval_s)
        self._reconciliation = parts.routine()
        self._reload = parts.deadline()
        self.past_starts = PastStarts(parts, self.reading)

    def begin(self) -> None:
        """Build the channel tree anew and fill it, or of a big table only its head; blocks the loop."""
        parts, serving = self._parts, self._parts.serving
        self._instructions.rebuild = self._database.notified.reload = False
        if serving is not None:
            # The table may have grown, queue_job may have another version, or it may be another database.
            serving.recognise(self._database.look().oid)
        settings = replace(parts.settings, rules=self._instructions.rules)
        backlog = build_tree(settings, parts.worker_slot, self._database, self._note_full)
        backlog.set_paused(self._instructions.paused_channels)
        backlog.set_limits(self._instructions.limits)
        if serving is not None:
            backlog.inherit(serving.backlog)
        if serving is None:
            self._note_last_starts(backlog)
        loaded = self.reading.read_first(backlog)  # if this fails, the old tree keeps its permits
        if serving is None:
            serving = parts.serving = Serving(
                self._database,
                parts.worker_slot,
                backlog,
                parts.dispatcher,
                parts.log,
                parts.database_log,
                parts.deadline,
            )
        else:
            serving.replace(backlog)
        self._take(serving, loaded)
        self.past_starts.begin(backlog, time.monotonic())
        self._progress.note_read()
        # Write the permits of running jobs to the table before the master hears of it and opens the start barrier.
        serving.settle()
        parts.reporting.tell({"is": "read"})

    def refresh(self, serving: Serving, now_s: float) -> None:
        """Before a turn: do the reads that are due, and apply what was read in the background."""
        if self._instructions.rebuild or (self._database.notified.reload and self._may_reload(now_s)):
            self.begin()
            self._parts.database_log.info("channels_read", channels=len(serving.backlog.nodes))
        if self._reconciliation.is_due or self._database.notified.overflowed:
            self._reconcile(serving, now_s)
        reading = self.reading
        self.past_starts.go_on(serving, now_s)
        if reading.loaded is not None:
            self._take(serving, reading.loaded)
            reading.loaded = None
        if reading.error is not None:
            self._parts.database_log.warning("table_read_failed", reason=str(reading.error))
            reading.error = None
        if reading.overtaken:
            self._complete(serving)
        self._parts.reporting.remark = reading.trouble

    def read_more(self, serving: Serving, now_s: float) -> bool:
        """After a turn: refill windows. True: this was done here, so something may start."""
        backlog = serving.backlog
        nodes = None if backlog.partial else backlog.unread()
        if nodes == []:
            return False
        self.reading.start(backlog, nodes, now_s)
        if not self.reading.is_refused(now_s):
            return False
        self._checks.check(now_s)  # detects a completely silent server sooner than a long read would
        self._complete(serving)
        return True

    def _may_reload(self, now_s: float) -> bool:
        """Whether the database's own tree may be read again now; limited, since anybody can request it at any rate."""
        if self._parts.settings.mode is Mode.SERVER_WIDE:
            return False
        if now_s < self._times.reload_from_s:
            self._reload.set(self._times.reload_from_s)
            return False
        return True

    def _reconcile(self, serving: Serving, now_s: float) -> None:
        """Check that the database may still be served, and read it anew, since notifications may have been missed."""
        self._checks.check(now_s)
        self._database.check_trigger()
        self._reconciliation.set(self._times.begin(now_s))
        if self._times.is_quick and not self.reading.busy:
            self._take(serving, self.reading.read_all(serving.backlog))
        else:
            self.reading.start(serving.backlog, None, now_s)

    def _complete(self, serving: Serving) -> None:
        """Read everything here: without a second connection, or if too much changed during a background read."""
        self._take(serving, self.reading.read_all(serving.backlog, READ_TIMEOUT_S))

    def _take(self, serving: Serving, loaded: Loaded) -> None:
        serving.after_load(loaded.held, loaded.conflicting)
        self._parts.reporting.wait_dependencies = loaded.wait_dependencies
        self._reconciliation.set(self._times.was_read(loaded.took_s, time.monotonic()))

    def _note_last_starts(self, backlog: Backlog) -> None:
        """Continue throttles where a former supervisor left them."""
        within_s = backlog.longest_throttle_s
        if not within_s:
            return
        self._database.limit_statements(READ_TIMEOUT_S)
        for channel, age_s in self._database.rows(queries.LAST_STARTS, {"within_s": within_s}):
            shared = backlog.note_start(channel, time.time_ns() // 1000 + self._database.clock_us - int(age_s * 1e6))
            self._parts.worker_slot.note_start(shared, int(age_s * 1e9))

    def _note_full(self, channel: str) -> None:
        reason = "the shared table has no room for more channels: this one is limited in each database, not over all"
        reason += "; configure those that matter"
        self._parts.database_log.warning("channel_not_shared", channel=channel, reason=reason)
