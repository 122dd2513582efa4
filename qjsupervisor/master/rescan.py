"""Decides when to scan the databases, and applies the results to the fleet. The scan itself is scout.run_scout.

A scan is one short-lived child. It runs at start, at each reload, every rescan_interval, and sooner (with backoff) if
the previous scan found anything unreachable. A scan that takes too long is killed; what it reported until then stands.
Absence is only trusted from a scan that completed.
"""

from __future__ import annotations

import math
import selectors
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..backoff import Backoff
from ..errors import ProtocolError
from ..logs import get_logger
from ..loop import Alarm
from ..scout.scout import NOT_LOOKED_AT, scan_limit_s
from ..states import Wakefulness, WorkerState
from ..text import same_uuid
from ..worker.comeback import AWAY_S
from .child import Child, exit_reason
from .fleet import Fleet
from .known_databases import KnownDatabases, copies
from .parts import MasterParts
from .scan_log import ScanLog

#: Added to the scout's own deadline, for a scout that hangs beyond its reach.
_GRACE_S = 5.0
#: Between scans while the start barrier waits for an unreachable database.
_AT_ONCE_S = 0.5


#: How often a database is probed that dozes or sleeps. An order to scan, as a reload gives, probes all.
RESTING_INTERVAL_S = 3600.0
#: For how long scans are put off while an administrator works on a database.
LONGEST_PUT_OFF_S = 2 * AWAY_S


class Rescan:
    """The running scan, if any, and when the next one starts. A reload replaces `config`."""

    def __init__(self, config: Any, parts: MasterParts, fleet: Fleet, backoff: Backoff | None = None) -> None:
        self.config = config
        #: Databases that the scout must not connect to (released by an operator).
        self.untouched: frozenset[str] = frozenset()
        #: Databases that exist but have no worker, and why.
        self.unserved: dict[str, str] = {}
        #: Databases without queue_job, and names from db_name that do not exist, with the reason.
        self.ignored: dict[str, str] = {}
        #: Why the last scan could not list the databases; None if it could.
        self.error: str | None = None
        #: The PostgreSQL that is down, where that is the reason.
        self.server_down = ""
        #: Whether a scan has completed, so that every existing database has been seen.
        self.has_listed = False
        #: Databases without a worker that the last probe could not reach, and why. What runs there is unknown.
        self.unreachable: dict[str, str] = {}
        #: Which databases are new and wait until an operator resumes them.
        self.known = KnownDatabases(hold=config.holds_new)
        #: Called when what `known` keeps has changed.
        self.on_known: Callable[[float], None] = lambda _now_s: None
        #: The database.uuid of databases, by name.
        self._uuids: dict[str, str] = {}
        #: When each was probed last.
        self._probed_s: dict[str, float] = {}
        #: Those that are served and share one, as the log has it.
        self._told_copies: list[tuple[str, ...]] = []
        #: Called with a new database that needs no worker yet.
        self.on_rest: Callable[[str, float], None] = lambda _database, _now_s: None
        #: When the first eligible database was seen, and, until the start barrier opens, the last one (monotonic).
        self.first_found_s: float | None = None
        self._last_found_s = 0.0
        #: When a scan last completed (monotonic).
        self._listed_s: float | None = None
        self._parts = parts
        self._fleet = fleet
        self._backoff = backoff or Backoff()
        self._child: Child | None = None
        self._start_alarm, self._kill_alarm = Alarm(parts.loop, self._start), Alarm(parts.loop, self._kill_overdue)
        self._began_s = 0.0
        self._again = self._pipe_ended = self._complete = self._had_unreachable = False
        #: Databases in which the running scan's session was ended by an administrator.
        self._ended: set[str] = set()
        #: Since when the scan that is due is put off.
        self._put_off_since_s = math.inf
        self._listed: set[str] = set()
        #: Databases that the last scan did not get to.
        self._not_looked_at: list[str] = []
        self._scan_log = ScanLog(fleet, parts.database_log)
        self._log = get_logger()

    @property
    def is_running(self) -> bool:
        return self._child is not None

    def request(self, now_s: float, *, soon: bool = False) -> None:
        """Scan now, or right after the running scan. `soon`: after a backoff that grows while trouble repeats."""
        if not soon:
            self._probed_s.clear()
        if self._child is not None:
            self._again = True
        else:
            self._start_alarm.set_earlier(now_s + (self._backoff.next_s() if soon else 0.0))

    def begin(self, now_s: float) -> None:
        """Start the first scan before the loop runs."""
        self._start_alarm.clear()
        self._start(now_s)

    def _limit_scan(self) -> None:
        self._kill_alarm.set(self._began_s + scan_limit_s(len(self._listed)) + _GRACE_S)

    def _kill_overdue(self, _now_s: float) -> None:
        if self._child is not None:
            self._log.error("scan_aborted", worker_pid=self._child.pid, reason="it did not end in time")
            self._child.signal(signal.SIGKILL)

    def next_in_s(self, now_s: float) -> float | None:
        """Seconds until the next scan; None while one is running, and if none is scheduled."""
        return None if math.isinf(self._start_alarm.at_s) else max(0.0, self._start_alarm.at_s - now_s)

    def barrier_until_s(self, timeout_s: float) -> float:
        """Until when others wait for what is not known yet: `timeout_s` after the last database was found.

        At most that long after the time limit of a scan; infinity while no database was found.
        """
        if self.first_found_s is None:
            return math.inf
        longest_s = self.first_found_s + scan_limit_s(len(self._listed))
        return min(self._last_found_s, longest_s) + timeout_s

    def age_s(self, now_s: float) -> float | None:
        """Seconds since the last completed scan; None before the first one."""
        return None if self._listed_s is None else round(now_s - self._listed_s, 1)

    def kill(self) -> None:
        """Kill the running scan and schedule no other, because the supervisor is stopping."""
        self._start_alarm.clear()
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    def close_in_child(self) -> None:
        if self._child is not None:
            self._child.pipe.close()

    def reaped(self, pid: int, exit_code: int, now_s: float) -> bool:
        """Handle the exit of a child; False if it was not the scout."""
        if self._child is None or self._child.pid != pid:
            return False
        if not self._pipe_ended:
            self._parts.loop.call(self._hear, now_s)  # what it wrote before it exited; that may be nonsense
        if not self._pipe_ended:
            self._parts.loop.unregister(self._child.pipe)
        self._child.pipe.close()
        self._child = None
        self._kill_alarm.clear()
        if not self._complete and self.error is None and not self._fleet.stopping:
            self.error = f"the scan ended early: {exit_reason(exit_code)}"
            self._log.error("scan_failed", exit_code=exit_code, reason=self.error)
        self._finish(now_s)
        return True

    def _start(self, now_s: float) -> None:
        if self._fleet.stopping or self._is_put_off(now_s):
            return
        self.error, self.server_down = None, ""
        self._complete, self._had_unreachable, self._again = False, False, False
        self._listed, self._pipe_ended = set(), False
        config, run_scout = self.config, self._parts.run_scout
        self._ended.clear()
        untouched = self.untouched.union(self._fleet.away(now_s), self._resting(now_s))
        if untouched:
            config = replace(config, untouched=untouched)
        first, self._not_looked_at = self._not_looked_at, []
        try:
            self._child = self._parts.spawner.spawn("qjsupervisor: scout", lambda pipe: run_scout(config, pipe, first))
        except OSError as error:
            self._not_looked_at = first
            retry_in_s = self._backoff.next_s()
            self._start_alarm.set(now_s + retry_in_s)
            self._log.error("fork_failed", reason=error.strerror, retry_in_s=round(retry_in_s, 1))
            return
        self._began_s = now_s
        self._limit_scan()
        self._parts.loop.register(self._child.pipe, selectors.EVENT_READ, self._hear)
        self._log.debug("scan_started", worker_pid=self._child.pid)

    def _resting(self, now_s: float) -> list[str]:
        """Databases without a worker that need no probe: the porter hears of their jobs."""
        return [
            name
            for name, worker in self._fleet.workers.items()
            if worker.wakefulness is not Wakefulness.AWAKE
            and now_s < self._probed_s.get(name, -math.inf) + RESTING_INTERVAL_S
        ]

    def _is_put_off(self, now_s: float) -> bool:
        """Whether an administrator, who ended a session of ours, has a moment more for his work.

        What he renames or copies would be found under a new name, and connected to.
        """
        until_s = max(self._fleet.away(now_s).values(), default=0.0)
        if not until_s or not self._parts.table.start_barrier_open:
            self._put_off_since_s = math.inf
            return False
        self._put_off_since_s = min(self._put_off_since_s, now_s)
        until_s = min(until_s, self._put_off_since_s + LONGEST_PUT_OFF_S)
        if now_s >= until_s:
            self._put_off_since_s = math.inf
            return False
        self._start_alarm.set(until_s)
        return True

    def _hear(self, now_s: float) -> None:
        assert self._child is not None
        try:
            for message in self._child.pipe.receive_all():
                self._take(message, now_s)
        except EOFError:
            self._pipe_ended = True
            self._parts.loop.unregister(self._child.pipe)
        except ProtocolError as error:
            self._log.error("scan_aborted", worker_pid=self._child.pid, reason=f"invalid message: {error}")
            self._child.signal(signal.SIGKILL)

    def _take(self, message: Mapping[str, Any], now_s: float) -> None:
        self._scan_log.take(message, self.config)
        if "database" in message:
            self._take_probe(str(message["database"]), message, now_s)
        elif "listed" in message:
            self._listed.update(message["listed"])
            self._limit_scan()
        elif "error" in message:
            self.error, self.server_down = str(message["error"]), str(message.get("server_down", ""))
            self._scan_log.failed(self.error, of_server=bool(self.server_down))
        elif message.get("done"):
            self._complete = True

    def _take_probe(self, database: str, message: Mapping[str, Any], now_s: float) -> None:
        details = message.get("details")
        details = details if isinstance(details, Mapping) else {}
        oid, uuid = details.get("oid"), details.get("uuid")
        self._probed_s[database] = now_s
        self._uuids.pop(database, None)
        if isinstance(uuid, str) and uuid:
            self._uuids[database] = uuid
        self._judge(message, oid if isinstance(oid, int) else None, now_s)
        worker = self._fleet.workers.get(database)
        if worker is not None and message.get("look") and not worker.send({"do": "look"}):
            worker.wake(now_s)
        if message.get("ended"):
            self._ended.add(database)
        if worker is not None:
            worker.tell_only(self.known.oid_of(database))
            worker.tell_server(details)

    def copies(self) -> list[tuple[str, ...]]:
        """Databases that are served and have one database.uuid."""
        return copies({name: uuid for name, uuid in self._uuids.items() if name in self._fleet.workers})

    def _judge(self, message: Mapping[str, Any], oid: int | None, now_s: float) -> None:
        """Apply one probe's verdict to the fleet."""
        database, verdict, reason = (str(message.get(key)) for key in ("database", "verdict", "reason"))
        if verdict != "absent":
            self.ignored.pop(database, None)
        if verdict == "unreachable" and database not in self._fleet.workers:
            self.unreachable[database] = reason
        else:
            self.unreachable.pop(database, None)
        if reason == NOT_LOOKED_AT:
            self._not_looked_at.append(database)
        if verdict == "ready":
            self.first_found_s = self.first_found_s or now_s
            if not self._parts.table.start_barrier_open and database not in self._fleet.workers:
                self._last_found_s = now_s
            self._want(database, oid, now_s, rests=message.get("rests") is True)
        elif verdict == "absent":
            self._note_unserved(database, None)
            if self.ignored.get(database) != reason:
                self.ignored[database] = reason
                self._parts.database_log.of(database).info("database_ignored", reason=reason)
            self._fleet.drop(database, reason, now_s, gone=True)
            self.known.notice(database, oid)
        else:
            self.known.notice(database, oid)
            self._had_unreachable = self._had_unreachable or verdict == "unreachable"
            worker = self._fleet.workers.get(database)
            if verdict == "blocked" and worker is not None:
                worker.fail(reason)  # no effect on a living worker: it checks for itself
            elif verdict == "unreachable" and worker is not None and worker.state is WorkerState.FAILED:
                worker.fail(reason)
            of_server = "server_down" in message
            is_error = verdict == "blocked" or message.get("refused") is True
            why_not = None if worker is not None else reason
            self._note_unserved(database, why_not, of_server=of_server, is_error=is_error)

    def _want(self, database: str, oid: int | None, now_s: float, *, rests: bool) -> None:
        """Ensure that an eligible database is served, unless it is new and waits for an operator."""
        why_not = self.known.admits(database, oid, self._twins(database) if self.known.hold else ())
        if why_not is not None:
            self._fleet.drop(database, why_not, now_s, gone=True)
        else:
            settings, weight = self.config.worker_settings(database), self.config.weight(database)
            is_new = database not in self._fleet.workers
            why_not = self._fleet.want(database, settings, weight, now_s, self.config.share(database))
            if is_new and rests and why_not is None:
                self.on_rest(database, now_s)
        self._note_unserved(database, why_not)

    def _twins(self, database: str) -> list[str]:
        """Databases that are served and have the database.uuid of this one."""
        uuid = self._uuids.get(database)
        return [name for name in self._fleet.workers if name != database and uuid and self._uuids.get(name) == uuid]

    def resume(self, database: str, now_s: float) -> bool:
        """Serve a new database that waits for that; False: it does not."""
        if not self.known.resume(database):
            return False
        self._log.info("database_resumed", database=database)
        self.unserved.pop(database, None)
        self._note_known(now_s)
        self.request(now_s)
        return True

    def _note_known(self, now_s: float) -> None:
        if self.known.changed:
            self.known.changed = False
            self.on_known(now_s)

    def _tell_copies(self) -> None:
        """Once for each change."""
        found = self.copies()
        for names in found:
            if names not in self._told_copies:
                self._log.warning("databases_alike", databases=list(names), reason=same_uuid(names))
        self._told_copies = found

    def _note_unserved(
        self, database: str, reason: str | None, *, of_server: bool = False, is_error: bool = False
    ) -> None:
        """Record why a database has no worker (None: it has one). Logs changes only."""
        if reason is None:
            if self.unserved.pop(database, None) is not None:
                self._scan_log.cleared(database)
        elif self.unserved.get(database) != reason:
            self.unserved[database] = reason
            self._scan_log.unserved(database, reason, of_server=of_server, is_error=is_error)

    def _finish(self, now_s: float) -> None:
        if len(self._ended) == 1:  # several: the server was stopped
            self._fleet.leave_alone(self._ended.pop(), now_s + AWAY_S)
        if self._complete:
            self.has_listed, self._listed_s = True, now_s
            self._scan_log.completed()
            for database in [each for each in self._fleet.workers if each not in self._listed]:
                gone = not self.config.db_names and self.config.selects(database)
                reason = "it does not exist any more" if gone else "it is not selected any more"
                self._fleet.drop(database, reason, now_s, gone=gone)
            for database in [each for each in self.unserved if each not in self._listed]:
                self._note_unserved(database, None)
            self.ignored = {name: why for name, why in self.ignored.items() if name in self._listed}
            self.unreachable = {name: why for name, why in self.unreachable.items() if name in self._listed}
            self._uuids = {name: uuid for name, uuid in self._uuids.items() if name in self._listed}
            self._probed_s = {name: at_s for name, at_s in self._probed_s.items() if name in self._listed}
            self.known.listed(self._listed)
            self._tell_copies()
            self._note_known(now_s)
        interval_s = float(self.config.rescan_interval_s)
        if self.unreachable and self.first_found_s is not None and not self._parts.table.start_barrier_open:
            interval_s = _AT_ONCE_S  # all others wait for it
        elif self._not_looked_at:
            interval_s = 0.0
        elif self._had_unreachable or not self._complete:
            interval_s = min(interval_s, self._backoff.next_s())
        else:
            self._backoff.reset()
        if not self._fleet.stopping:
            self._start_alarm.set(now_s if self._again else now_s + interval_s)
        self._log.debug("scan_finished", databases=len(self._listed))
