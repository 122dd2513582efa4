"""What an operator can request of a running supervisor: status, reload, pauses. Called for signals and orders.

It changes nothing itself but tells the fleet, the scans, the monitor and the table what concerns them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from .. import logs
from ..config.settings import Config
from ..control import Message
from ..errors import ConfigError, SemaphoreError
from ..loop import Alarm
from ..monitor.listener import listen
from ..porter.settings import PorterSettings
from ..states import Mode, WorkerState
from .config_reader import Answer, ConfigReader
from .fleet import Fleet
from .log_writer import LogWriter
from .parts import MasterParts, RunBroker
from .pauses import Pauses
from .reloading import LOGGING, ReloadEffect, compare
from .rescan import Rescan
from .resting import Resting
from .service import Service
from .snapshot import MasterSnapshot, view_of
from .state_file import StateFile
from .status_report import build_status
from .timetable import Timetable
from .worker_process import TimeLimits

#: How often the broker's heartbeat is checked.
_BROKER_WATCH_S = 5.0
#: How many pauses a log line names.
_SHOWN = 20

#: Reloads that come faster share one resynchronisation, because each costs every worker a read of its table.
RESYNC_PAUSE_S = 1.0


class Operations:
    """Holds the configuration in force. `load_again` rereads it and raises ConfigError if it is wrong."""

    def __init__(self, config: Config, load_again: Callable[[], Config], parts: MasterParts, pauses: Pauses) -> None:
        self.config = config
        self.pauses = pauses
        self._parts = parts
        self.fleet = Fleet(parts, limits_of(config), pauses.of, self._database_gone, self._relog)
        self.rescan = Rescan(config, parts, self.fleet)
        self.config_reader = ConfigReader(load_again, self._take_config, parts)
        self.timetable = Timetable(config, parts, self.fleet)
        self.state = StateFile(config, parts)
        self.state.add("pauses", pauses.keep)
        self.state.add("databases", self.rescan.known.keep)
        self.state.add("starts", parts.table.kept_starts)
        self.state.add("let_through", self.fleet.keep_let_through)
        self.fleet.on_starts = self.state.changed
        self.rescan.on_known = self.state.changed
        self.log_writer = LogWriter(parts.spawner, parts.loop)
        self.monitor = Service("monitor", parts.spawner, parts.loop)
        #: The address of its listener.
        self._listens_at: tuple[str, int] | None = None
        self.broker = Service("broker", parts.spawner, parts.loop)
        self.resting = Resting(parts, self.fleet, self._porter_settings, config.hang_timeout_s)
        self.fleet.on_rest = self.resting.hear_worker
        self.rescan.on_rest = self.resting.begin
        self.fleet.end_rest, self.fleet.has_porter = self.resting.forget, self.resting.has
        self._broker_alarm = Alarm(parts.loop, self._watch_broker)
        self._pause_alarm = Alarm(parts.loop, self._expire_pauses)
        self._resync_alarm = Alarm(parts.loop, self._resync)
        self._resynced_s = -math.inf
        self._started_s = time.monotonic()
        #: Reload results; the start counts as the first success but not as a reload.
        self.reloads: dict[str, Any] = {
            "success": 0, "refused": 0, "last_successful": True, "last_success_at": time.time()
        }  # fmt: skip
        self._log = logs.get_logger()

    @property
    def mode(self) -> Mode:
        return self.config.mode

    def start_monitor(self, now_s: float) -> None:
        """Start, replace or end the monitor as configured."""
        config, table, run = self.config, self._parts.table, self._parts.run_monitor
        if config.monitor is None:
            self._listen(None)
            self.monitor.run(None, now_s)
        else:
            self._listen(config.monitor)
            listener = self.monitor.listener
            self.monitor.run(lambda pipe: run(config, table, pipe, listener=listener), now_s)

    def _listen(self, address: tuple[str, int] | None) -> None:
        """Have the monitor's listener at this address. Where that cannot be, the monitor tries it, and says why."""
        if address == self._listens_at and address is not None:
            return
        if self.monitor.listener is not None:
            self.monitor.listener.close()
        self.monitor.listener, self._listens_at = None, None
        with suppress(OSError):
            if address is not None:
                self.monitor.listener, self._listens_at = listen(address), address

    def start_broker(self, now_s: float) -> None:
        """Start the broker if there is a cluster; it is the same member of it for as long as the supervisor runs."""
        config, table = self.config, self._parts.table
        if config.cluster is None:
            return
        # Not in the child: a later broker is of this supervisor's version, whatever is installed by then.
        from ..broker.broker import run_broker
        from ..broker.settings import BrokerSettings

        run: RunBroker = self._parts.run_broker or run_broker
        settings = BrokerSettings(
            cluster=config.cluster,
            member=os.urandom(8).hex(),
            master_pid=os.getpid(),
            heartbeat_s=config.hang_timeout_s / 3,
            floor=tuple(config.coordination_floor.items()),
            dsn=tuple(config.connection.dsn(config.cluster_database).items()),
        )
        self.broker.run(lambda pipe: run(settings, table, pipe), now_s)
        self._broker_alarm.set(now_s + _BROKER_WATCH_S)

    def _porter_settings(self) -> PorterSettings:
        config = self.config
        return PorterSettings(
            session_mark=config.session_mark,
            connect_timeout_s=config.connect_timeout_s,
            leader_timeout_s=config.leader_timeout_s,
            sleep_timeout_s=config.sleep_timeout_s,
            maintenance_db=config.maintenance_db,
        )

    def _watch_broker(self, now_s: float) -> None:
        """Replace a broker that hangs. Meanwhile nothing starts after the lease ends."""
        hang_s = self.config.hang_timeout_s
        if self.broker.age_s(now_s) > hang_s and self._parts.table.broker_age_s(time.monotonic_ns()) > hang_s:
            self.broker.replace(f"no heartbeat for {hang_s:g} s")
        self._broker_alarm.set(now_s + _BROKER_WATCH_S)

    # -- configuration -------------------------------------------------------------------------------------------

    def reload(self, answer: Answer, now_s: float) -> None:
        """Have the configuration read again and put in force; `answer` gets what came of it, perhaps much later."""
        if not self.fleet.stopping:  # systemd was told that we stop, which is its last word
            self._parts.notifier.reloading()
        self.config_reader.read(answer, now_s)

    def reload_logged(self, now_s: float) -> None:
        """The same for SIGHUP: nobody waits for an answer, so the log has it."""
        self.reload(self._log_refusal, now_s)

    def _log_refusal(self, answer: Message) -> None:
        if not answer["ok"]:
            reason = f"{answer['error']}; the old one stays"
            self._log.error("configuration_rejected", option=answer.get("option"), reason=reason)

    def _take_config(self, found: Config | ConfigError, now_s: float) -> Message:
        """The configuration was read, or cannot be: the answer to all who asked for it."""
        try:
            if isinstance(found, ConfigError):
                raise found
            return {"ok": True, **self._apply(found, now_s)}
        except ConfigError as error:
            self.reloads.update(refused=self.reloads["refused"] + 1, last_successful=False)
            return {"ok": False, "error": str(error), "option": error.option}
        finally:
            if not self.fleet.stopping:
                self._parts.notifier.ready(self.status_line())

    def _apply(self, config: Config, now_s: float) -> Message:
        """Put a configuration in force; ConfigError, and nothing changed, where that cannot be done as a whole."""
        change = compare(self.config, replace(config, session_mark=self.config.session_mark))
        self._check_room(change)
        if change.logging:
            logs.configure(change.config)
            self.log_writer.follow(change.config.log_file, now_s)
            self.fleet.send_all({"do": "log", **{name: getattr(change.config, name) for name in LOGGING}})
        self.reloads.update(success=self.reloads["success"] + 1, last_successful=True, last_success_at=time.time())
        self.config = self.rescan.config = change.config
        self.rescan.known.hold = change.config.holds_new
        self.state.changed(now_s)
        self.timetable.replace(change.config, now_s)
        if change.channels:
            self._configure()
        if change.shares:
            self._share()
        restarted = self.fleet.replace_settings(change.config.worker_settings, limits_of(change.config), now_s)
        self.resting.reload(now_s, is_wanted=change.config.rules.idle_timeout_s is not None)
        if change.monitor:
            self.start_monitor(now_s)
        if change.rules:
            self.fleet.send_all({"do": "rules", "rules": asdict(change.config.rules)})
        self._resync_alarm.set_earlier(max(now_s, self._resynced_s + RESYNC_PAUSE_S))
        if self._resync_alarm.at_s <= now_s:
            self._resync_alarm.clear()
            self._resync(now_s)
        self._log_reload(change, restarted)
        return {
            "restarted": restarted,
            "channels_changed": change.channels,
            "needs_restart": list(change.needs_restart),
        }

    def _resync(self, now_s: float) -> None:
        """Have all workers reread their tables, and scan; serves all reloads since the last time."""
        self._resynced_s = now_s
        self.fleet.send_all({"do": "resync"})
        self.rescan.request(now_s)

    def _log_reload(self, change: ReloadEffect, restarted: Sequence[str]) -> None:
        for option in change.needs_restart:
            self._log.warning("option_ignored", option=option, reason="takes effect at the next start only")
        self.log_warnings()
        self._log.info("configuration_loaded", channels_changed=change.channels, restarted=list(restarted))

    def log_warnings(self) -> None:
        """Log settings that have no effect."""
        for warning in self.config.warnings:
            self._log.warning("configuration_doubted", reason=warning)

    def _check_room(self, change: ReloadEffect) -> None:
        """Refuse a reload that could not be applied as a whole."""
        try:
            self._parts.table.check_room(change.config.channels)
        except SemaphoreError as error:
            raise ConfigError("channels", str(error)) from error

    def _configure(self) -> None:
        """Write new channel settings into the table in place, as soon as its lock is free."""

        def configured() -> bool:
            try:
                done = self._parts.table.try_configure(self.timetable.channels())
            except (ConfigError, SemaphoreError) as error:
                self._log.error("channels_rejected", reason=str(error))
                return True
            if done:
                self.fleet.send_all({"do": "channels"})
            return done

        self.fleet.retried_calls.add("channels", configured)

    def _share(self) -> None:
        """Put into the table what databases are guaranteed and limited to, as soon as its lock is free."""

        def shared() -> bool:
            workers = self.fleet.workers.values()
            return self._parts.table.try_share({each.slot: self.config.share(each.database) for each in workers})

        self.fleet.retried_calls.add("shares", shared)

    def _relog(self, message: Message) -> None:
        """In a worker: apply the reloaded logging configuration."""
        self.config = replace(self.config, **{name: message[name] for name in LOGGING})
        try:
            logs.configure(self.config)
        except ConfigError as error:  # it was fine a moment ago, in the master
            self._log.error("configuration_rejected", option=error.option, reason=str(error))

    def _database_gone(self, now_s: float) -> None:
        """A worker reports that its database is gone: scan, with backoff."""
        self.rescan.request(now_s, soon=True)

    # -- pauses --------------------------------------------------------------------------------------------------

    def restore(self, now_s: float) -> None:
        """Go on where a former life ended, before anything is looked at; see StateFile.read."""
        self.state.read()
        spoilt = self.pauses.restore(self.state.section("pauses"), now_s, self._parts.wall())
        if spoilt:
            self._log.warning("state_ignored", reason=f"{self.state.path}: {spoilt} of its pauses are none")
        if not self.rescan.known.restore(self.state.section("databases")):
            self._log.warning("state_ignored", reason=f"{self.state.path}: what it says of databases is nonsense")
        if not self._parts.table.restore_starts(self.state.section("starts"), now_s, self._parts.wall()):
            self._log.warning("state_ignored", reason=f"{self.state.path}: what it says of starts is nonsense")
        if not self.fleet.restore_let_through(self.state.section("let_through")):
            self._log.warning("state_ignored", reason=f"{self.state.path}: what it says of modules is nonsense")
        if self.pauses.items():
            self.pauses_changed()
        self.state.changed(now_s)
        self.timetable.begin(now_s)

    def _expire_pauses(self, now_s: float) -> None:
        """Remove expired pauses."""
        over = self.pauses.expire(now_s)
        for scope in over:
            self._log.info("pause_ended", scope=str(scope))
        self.pauses_changed()

    def pauses_changed(self) -> None:
        """Tell all workers, and set the alarm for the first expiry."""
        ends_s = [until_s for _, until_s in self.pauses.items() if until_s is not None]
        self._pause_alarm.set(min(ends_s, default=math.inf))
        scopes = [str(scope) for scope, _ in self.pauses.items()]
        for database in self.rescan.untouched - self.pauses.released():
            self.rescan.known.trust(database)  # whoever had it for himself knows what he made of it
        self.rescan.untouched = self.pauses.released()
        self._log.info("pauses_changed", pauses=len(scopes), scopes=scopes[:_SHOWN])
        self.fleet.send_pauses(self._parts.clock())
        self.state.changed(self._parts.clock())

    def known_databases(self) -> set[str]:
        """Databases that a pause may name."""
        paused = {scope.database for scope, _ in self.pauses.items() if scope.database is not None}
        return paused.union(self.fleet.workers, self.rescan.unserved)

    def known_channels(self) -> set[str]:
        return {view.name for view in self._parts.table.channel_views()}

    def run_anyway(self, database: str) -> Mapping[str, str]:
        """Let a database's jobs run although modules are in transition, until that is over; returns these modules."""
        worker = self.fleet.workers.get(database)
        modules = worker.report.modules.states if worker is not None else {}
        if worker is not None and modules:
            worker.report.modules.anyway = True
            worker.send({"do": "modules", "anyway": True})
            self.state.changed(self._parts.clock())
            self._log.warning("modules_ignored", database=database, modules=dict(modules))
        return modules

    # -- status --------------------------------------------------------------------------------------------------

    def status(self, now_s: float) -> Message:
        """The status; see status_report."""
        snapshot = MasterSnapshot(
            pid=os.getpid(),
            uptime_s=now_s - self._started_s,
            now_ns=time.monotonic_ns(),
            workers=[view_of(worker, now_s) for worker in self.fleet.workers.values()],
            unserved=self.rescan.unserved,
            ignored=self.rescan.ignored,
            pauses=self.pauses.items(),
            problems=[each for each in (self._monitor_problem(), self.resting.problem) if each],
            scan_error=self.rescan.error,
            scan_lacks=self.rescan.server_down,
            stopping=self.fleet.stopping,
            log_lines_lost=logs.lost_lines() + self.log_writer.lost,
            next_scan_in_s=self.rescan.next_in_s(now_s),
            cluster=self._cluster(),
            scan_age_s=self.rescan.age_s(now_s),
            reloads=self.reloads,
            paused_by=self.pauses.by,
            held=self.rescan.known.held,
            copies=self.rescan.copies(),
            schedule=self.timetable.view(),
            state={"path": self.state.path, "error": self.state.error},
            log={"path": self.config.log_file, "error": self.log_writer.problem(time.monotonic_ns())},
            wall_s=time.time(),
            porters=self.resting.pids,
        )
        return build_status(self.config, self._parts.table, snapshot)

    def _cluster(self) -> Mapping[str, Any] | None:
        if self.config.cluster is None:
            return None
        told = [message["cluster"] for message in self.broker.heard if message.get("is") == "cluster"]
        unknown = {"name": self.config.cluster, "connected": False, "error": self.broker.last_error, "members": []}
        return told[-1] if told and self.broker.pid is not None else unknown

    def status_line(self) -> str:
        """One line for `systemctl status`."""
        states = [worker.state for worker in self.fleet.workers.values()]
        ready, troubled = states.count(WorkerState.READY), len(self.rescan.unserved)
        started = "" if self._parts.table.start_barrier_open else "reading the databases; "
        return f"{started}{ready} of {len(states)} databases ready" + (f", {troubled} not served" if troubled else "")

    def describe(self, now_s: float) -> None:
        """Log the state of every worker and channel."""
        status = self.status(now_s)
        for database in status["databases"]:
            self._log.info("worker_described", database=database.pop("name"), **database)
        for channel in status["channels"]:
            self._log.info("channel_described", channel=channel.pop("name"), **channel)

    def _monitor_problem(self) -> str | None:
        error = self.monitor.last_error
        return f"the monitor does not run: {error}" if error and self.monitor.pid is None else None


def limits_of(config: Config) -> TimeLimits:
    """How long a worker may take."""
    return TimeLimits(
        boot_s=config.boot_timeout_s,
        graceful_s=config.graceful_timeout_s,
        hang_s=config.hang_timeout_s,
        upgrade_s=config.upgrade_timeout_s,
    )
