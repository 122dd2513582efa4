"""Reads which jobs were started in a database before this worker began, for the rates of its channels.

They are read once, in the background, and until then channels with a rate are closed. Rows record starts of the last
hour; a retried job leaves no trace in its row, so starts are also kept in the state file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..backlog.backlog import Backlog
from ..channelspec import ROOT, ChannelSpec
from ..postgres import queries
from .parts import WorkerParts
from .reading import Reading

if TYPE_CHECKING:
    from .serving import Serving

#: Rows are read for starts within this time.
LONGEST_S = 3600.0
#: Most starts read from one database.
MOST = 100_000
#: A database that does not answer keeps other databases' channels closed no longer than this.
PATIENCE_S = 60.0
#: Interval for telling the master of new starts.
TELL_S = 1.0


class PastStarts:
    """The past starts of one database."""

    def __init__(self, parts: WorkerParts, reading: Reading) -> None:
        self._database = parts.database
        self._worker_slot = parts.worker_slot
        self._reading = reading
        self._log = parts.database_log
        self._tell = parts.reporting.tell
        self._telling = parts.deadline()
        self._told_s = -math.inf
        #: Parameters of the statement; None: nothing to read.
        self._params: dict[str, Any] | None = None
        self._patience = parts.deadline()
        #: Our own channels have been informed.
        self._known = False

    def begin(self, backlog: Backlog, now_s: float) -> None:
        """The channels were read: decide whether past starts are needed."""
        params = past_starts_params(backlog.rated())
        unknown = self._worker_slot.starts_unknown
        if self._known and not unknown and self._params is None:
            return
        self._known = self._known and not unknown
        if params is None:
            self._pass(backlog)
            return
        self._params = params
        self._patience.set(now_s + PATIENCE_S)
        backlog.await_starts(True)
        if unknown:
            self._worker_slot.await_starts()

    def go_on(self, serving: Serving, now_s: float) -> None:
        """Read, or process what was read; tell the master of new starts for the state file. Raises DatabaseError."""
        if serving.permits.has_counted:
            serving.permits.has_counted = False
            self._telling.set_if_idle(max(now_s, self._told_s + TELL_S))
        if self._telling.is_due:
            self._telling.clear()
            self._told_s = now_s
            self._tell({"is": "starts"})
        if self._params is not None:
            self._read(serving.backlog, now_s)

    def _read(self, backlog: Backlog, now_s: float) -> None:
        assert self._params is not None
        reading = self._reading
        if reading.past_starts is not None:
            rows, reading.past_starts = reading.past_starts, None
            self._finish(backlog, rows)
        elif self._patience.is_due:
            self._log.warning("past_starts_unknown", reason=f"they could not be read for {PATIENCE_S:g} s: not counted")
            self._finish(backlog, [])
        elif not reading.start_past(backlog, queries.PAST_STARTS, self._params, now_s) and reading.is_refused(now_s):
            self._finish(backlog, self._database.rows(queries.PAST_STARTS, self._params))

    def _finish(self, backlog: Backlog, rows: list[tuple[Any, ...]]) -> None:
        self._params, self._known = None, True
        self._patience.clear()
        now_us = time.time_ns() // 1000 + self._database.clock_us
        shared = backlog.note_past_starts(rows, now_us)
        backlog.await_starts(False)
        if not self._worker_slot.starts_known:
            self._worker_slot.end_starts(shared)

    def _pass(self, backlog: Backlog) -> None:
        """No rate needs past starts."""
        if self._params is not None:
            self._finish(backlog, [])
        self._known = True
        if not self._worker_slot.starts_known:
            self._worker_slot.pass_starts()


def past_starts_params(rated: Sequence[ChannelSpec]) -> dict[str, Any] | None:
    """Parameters of queries.PAST_STARTS for channels that have a rate or pass one on; None if there are none."""
    if not rated:
        return None
    longest_s = max(rate.period_s for spec in rated for rate in (spec.rate, spec.rate_default) if rate is not None)
    within_s = min(LONGEST_S, longest_s * 1.01 + 1)
    return {"within_s": within_s, "like": list(_patterns(rated)), "limit": MOST}


def _patterns(specs: Sequence[ChannelSpec]) -> Iterator[str]:
    """LIKE patterns for names in rows that mean these channels or their subchannels."""
    for spec in specs:
        name = spec.name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        if spec.name == ROOT:
            yield "%"
        else:
            for each in (name, name.removeprefix(f"{ROOT}.")):
                yield from (each, f"{each}.%")
