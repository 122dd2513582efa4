"""Log lines about databases: equal lines of several databases become one, because one cause may concern many.

A line waits until no equal one has arrived for QUIET_S, at most LONGEST_S. A line of one database has the key
"database"; one of several has their number as "databases" and their "names" instead. The order is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from ..logs import get_logger
from ..loop import Alarm, Timers
from ..text import first_few

QUIET_S = 0.5
LONGEST_S = 5.0
#: Most names in a line.
_NAMES = 50
#: Keys that differ between workers although the cause is the same; omitted from a line for several databases.
_OWN = frozenset({"slot", "worker_pid", "restarts", "retry_in_s", "server_pids"})
LEVELS = ("info", "warning", "error")


class _Line:
    """One waiting line: the facts of the first database and the names of all."""

    def __init__(self, level: str, event: str, facts: dict[str, Any], now_s: float) -> None:
        self._level = level
        self._event = event
        self._facts = facts
        self._names: dict[str, None] = {}
        self._latest_s = now_s + LONGEST_S
        self.ripe_s = now_s

    def add(self, database: str, now_s: float) -> None:
        """Add a database with the same line."""
        self._names[database] = None
        self.ripe_s = min(now_s + QUIET_S, self._latest_s)

    def write(self, log: FilteringBoundLogger) -> None:
        """Write the line for all its databases."""
        names = list(self._names)
        write = getattr(log, self._level)
        if len(names) == 1:
            write(self._event, database=names[0], **self._facts)
        else:
            facts = {name: value for name, value in self._facts.items() if name not in _OWN}
            write(self._event, databases=len(names), names=first_few(names, _NAMES), **facts)


class DatabaseLog:
    """The lines of all databases."""

    def __init__(self, timers: Timers, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: What must be equal -> waiting line, in the order of writing.
        self._lines: dict[object, _Line] = {}
        self._alarm = Alarm(timers, self._write_ripe)
        self._log = get_logger()

    def of(self, database: str, **own: Any) -> OneDatabase:
        """A logger for one database."""
        return OneDatabase(self, database, own)

    def add(self, level: str, event: str, database: str, facts: dict[str, Any]) -> None:
        """Add one line."""
        if level == "debug":
            self._log.debug(event, database=database, **facts)
            return
        now_s = self._clock()
        key = (level, event, *sorted((name, repr(value)) for name, value in facts.items() if name not in _OWN))
        line = self._lines.setdefault(key, _Line(level, event, facts, now_s))
        line.add(database, now_s)
        self._await_first()

    def flush(self) -> None:
        """Write all waiting lines at once, at the end."""
        for line in self._lines.values():
            line.write(self._log)
        self._lines.clear()
        self._await_first()

    def _await_first(self) -> None:
        first = next(iter(self._lines.values()), None)
        self._alarm.set(math.inf if first is None else first.ripe_s)

    def _write_ripe(self, now_s: float) -> None:
        """Write lines that have waited long enough, in order, so that "lost" precedes "ready"."""
        for key, line in list(self._lines.items()):
            if line.ripe_s > now_s:
                break
            del self._lines[key]
            line.write(self._log)
        self._await_first()


class OneDatabase:
    """The logger for one database, with the methods used here."""

    def __init__(self, log: DatabaseLog, database: str, own: dict[str, Any]) -> None:
        self._log = log
        self._database = database
        self._own = own

    def debug(self, event: str, **facts: Any) -> None:
        self._log.add("debug", event, self._database, {**self._own, **facts})

    def info(self, event: str, **facts: Any) -> None:
        self._log.add("info", event, self._database, {**self._own, **facts})

    def warning(self, event: str, **facts: Any) -> None:
        self._log.add("warning", event, self._database, {**self._own, **facts})

    def error(self, event: str, **facts: Any) -> None:
        self._log.add("error", event, self._database, {**self._own, **facts})
