"""Builds the document that `qjsupervisor status --json` prints. Pure.

The keys are an interface: add, do not rename. Future times are seconds from now, or null. It cannot contain passwords:
targets are shown by their URL, databases by their name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from ..channelspec import ROOT, ChannelSpec
from ..config.environment import SERVER_PREFIX
from ..config.schedule import CLOSED, of_channel
from ..config.settings import Config
from ..config.sizes import size_text
from ..states import RELEASED, JobOutcome, Mode, TargetHealth, TargetState, WorkerState
from ..version import __version__
from .parts import Table
from .pauses import Scope
from .snapshot import MasterSnapshot, WorkerView
from .totals import totals

_NS = 1_000_000_000
_LONGEST_WAIT_S = 10 * 365 * 86400.0
#: A worker that just began has no rate of a minute; one job in its first second is no 60 a minute.
_SHORTEST_RATE_S = 10.0


def build_status(config: Config, table: Table, snapshot: MasterSnapshot) -> dict[str, Any]:
    """The document of `status --json`. Its keys are an interface: they are added, never renamed."""
    servers = {view.name: view for view in table.server_views()}
    databases = [_database(config, table, worker, snapshot, servers) for worker in snapshot.workers]
    databases += [_unserved(name, reason, snapshot) for name, reason in snapshot.unserved.items()]
    databases.sort(key=lambda each: str(each["name"]))
    targets = _targets(databases, servers, snapshot.now_ns)
    postgresql = _postgresql(servers, snapshot.now_ns)
    first_url = _first_url(config)
    return {
        "version": __version__,
        "pid": snapshot.pid,
        "uptime_s": round(snapshot.uptime_s, 1),
        "mode": config.mode.value,
        "fairness": config.fairness.value,
        "ageing_s": config.rules.ageing_s or None,
        "rules": _rules(config),
        "totals": totals(databases),
        "databases": databases,
        "channels": _channels(config, table, snapshot),
        "target": next((each for each in targets if each["url"] == first_url), _unasked(first_url)),
        "targets": targets or [_unasked(first_url)],
        "pauses": [_pause(scope, until_s, snapshot) for scope, until_s in snapshot.pauses],
        "postgresql": postgresql,
        "problems": _problems(snapshot, postgresql),
        "ignored": [{"name": name, "reason": why} for name, why in sorted(snapshot.ignored.items())],
        "slots": {"used": len(snapshot.workers), "limit": table.slots},
        "scan_age_s": snapshot.scan_age_s,
        "reloads": dict(snapshot.reloads),
        "gate_open": table.start_barrier_open,
        "stopping": snapshot.stopping,
        "log_lines_lost": snapshot.log_lines_lost,
        "config_file": config.config_file,
        "schedule": snapshot.schedule,
        "copies": [list(names) for names in snapshot.copies],
        "state_file": dict(snapshot.state),
        "log_file": dict(snapshot.log),
        "cluster": snapshot.cluster,
        "porters": list(snapshot.porters),
    }


def _rules(config: Config) -> dict[str, Any]:
    """The rules in force, by the names of their options."""
    return {
        "ageing_s": config.rules.ageing_s or None,
        "channel_options": [] if config.mode is Mode.SERVER_WIDE else list(map(_option, config.rules.channel_options)),
        "max_runtimes": dict(config.rules.max_runtimes),
        "max_runtime_action": config.rules.max_runtime_action,
        "new_databases": "hold" if config.holds_new else "serve",
        "serve_neutralized": config.rules.serve_neutralized,
        "upgrade_timeout_s": config.upgrade_timeout_s,
        "idle_timeout_s": config.rules.idle_timeout_s,
        "sleep_timeout_s": config.sleep_timeout_s,
    }


def _option(spec: ChannelSpec) -> dict[str, Any]:
    """What an entry of channel_options sets; percentages as they are written."""
    given = {**asdict(spec), "capacity": spec.capacity and size_text(spec.capacity), "minimum": size_text(spec.minimum)}
    return {key: value for key, value in given.items() if value and value != "0"}


def _database(
    config: Config, table: Table, worker: WorkerView, snapshot: MasterSnapshot, servers: Mapping[str, Any]
) -> dict[str, Any]:
    view, now_ns = table.slot_view(worker.slot), snapshot.now_ns
    alive = worker.pid is not None
    beats = alive and view.heartbeat_ns
    urls = [target.url for target in config.targets_for(worker.database)]
    told = {each.url: each for each in worker.targets} if alive else {}
    targets = [_target_of_database(url, told.get(url), servers.get(url), now_ns) for url in urls]
    return {
        "name": worker.database,
        "postgresql": worker.server,
        "state": worker.state.value,
        "phase": worker.wakefulness.value,
        "held": False,
        "pid": worker.pid,
        "restarts": worker.restarts,
        "last_error": worker.last_error,
        "pending": view.pending,
        "running": view.running,
        "failed": view.failed,
        "dispatched": view.dispatched,
        "heartbeat_age_s": round(table.heartbeat_age_s(worker.slot, now_ns), 1) if beats else None,
        "last_error_age_s": worker.last_error_age_s,
        "finished": view.finished,
        "per_minute": _per_minute(view, now_ns) if alive else 0.0,
        "waiting_dependencies": view.waiting,
        "wait_s": round((now_ns - view.waiting_since_ns) / _NS, 1) if view.waiting_since_ns else 0,
        "not_due": view.not_due,
        "oldest_pending_s": _waited_s(view.oldest_us, snapshot.wall_s),
        "outcomes": {outcome.name.lower(): view.outcomes[outcome] for outcome in JobOutcome},
        "weight": view.weight,
        "share": _share(view),
        "message": view.message or None,
        "target": max(targets, key=lambda each: (each["state"] == "down", each["failures"]), default=_unasked(None)),
        "targets": targets,
        "target_urls": urls,
        "paused": _is_paused(worker.database, snapshot),
        "modules": worker.modules,
        "modules_for_s": worker.modules["for_s"] if worker.modules else None,
        "upgrade_overdue": bool(worker.modules and worker.modules["overdue"]),
        "overdue": worker.overdue,
        "stopped": [each._asdict() for each in worker.stopped],
    }


def _is_paused(database: str, snapshot: MasterSnapshot) -> bool:
    return any(scope.channel == ROOT and scope.database in (None, database) for scope, _ in snapshot.pauses)


def _unserved(name: str, reason: str, snapshot: MasterSnapshot) -> dict[str, Any]:
    """A database without a worker, with the same keys."""
    held = name in snapshot.held
    if snapshot.next_scan_in_s is not None and not held:
        reason = f"{reason}; looked at again in {snapshot.next_scan_in_s:.0f} s"
    counts = dict.fromkeys(("restarts", "pending", "running", "failed", "dispatched", "finished"), 0)
    return {
        "name": name,
        "postgresql": None,
        "state": (WorkerState.BLOCKED if held else WorkerState.FAILED).value,
        "phase": None,
        "held": held,
        "pid": None,
        "last_error": reason,
        "heartbeat_age_s": None,
        "last_error_age_s": None,
        **counts,
        "per_minute": 0.0,
        "waiting_dependencies": 0,
        "wait_s": 0,
        "not_due": 0,
        "oldest_pending_s": 0,
        "outcomes": {},
        "weight": 0,
        "share": None,
        "message": None,
        "target": None,
        "targets": [],
        "target_urls": [],
        "paused": False,
        "modules": None,
        "modules_for_s": None,
        "upgrade_overdue": False,
        "overdue": 0,
        "stopped": [],
    }


def _channels(config: Config, table: Table, snapshot: MasterSnapshot) -> list[dict[str, Any]]:
    """Configured channels, and retired ones in which jobs still run."""
    paused = {scope.channel for scope, _ in snapshot.pauses if scope.database is None}
    specs = {spec.name: spec for spec in config.channels}
    by_configuration = {spec.name for spec in config.channels if spec.paused}
    views = list(table.channel_views())  # once: workers share new channels at any moment
    scheduled = {view.name: of_channel(snapshot.schedule, view.name) for view in views}
    closed = {name for name, said in scheduled.items() if said.get("limit") == CLOSED}
    holders = table.holders()
    return [
        {
            "name": view.name,
            "capacity": view.capacity,
            "running": view.running,
            "pending": view.pending,
            "failed": view.failed,
            "sequential": view.sequential,
            "stopped": bool(view.stopped_by),
            "stopped_by": list(view.stopped_by),
            "throttle_s": view.throttle_s,
            "max_runtime_s": config.rules.max_runtimes.get(view.name),
            "paused": view.name in paused | by_configuration or (view.paused and view.name not in closed),
            "closed": view.name in closed,
            "schedule": scheduled[view.name].get("text"),
            "retired": view.retired,
            "throttled_for_s": _left_s(view.throttled_until_ns, snapshot.now_ns),
            "rate": _rate(view, snapshot.now_ns),
            "minimum": view.minimum,
            "reserve": view.reserve,
            "weight": view.weight or None,
            **_defaults(specs.get(view.name)),
            "holders": [holder._asdict() for holder in holders.get(view.name, ())],
        }
        for view in views
        if not view.retired or view.running or view.pending
    ]


def _defaults(spec: ChannelSpec | None) -> dict[str, Any]:
    """What unconfigured subchannels of a channel have; that of one made so is nothing."""
    rate = None if spec is None or spec.rate_default is None else asdict(spec.rate_default)
    return {
        "capacity_default": spec and spec.capacity_default,
        "sequential_default": bool(spec and spec.sequential_default),
        "rate_default": rate,
    }


def _share(view: Any) -> dict[str, Any] | None:
    """What a database is guaranteed and limited to (max None: no limit), and what of that it uses; None: neither."""
    if not view.minimum and not view.maximum:
        return None
    return {"min": view.minimum, "max": view.maximum or None, "reserve": view.reserve, "used": view.held}


def _rate(view: Any, now_ns: int) -> dict[str, Any] | None:
    """A channel's rate: what is allowed, what of that is used, and when the next start may be (None: now)."""
    if not view.rate:
        return None
    return {
        "starts": view.rate,
        "period_s": view.rate_period_s,
        "used": view.rate_used,
        "next_in_s": _left_s(view.rate_opens_ns, now_ns),
        "unread": view.rate_opens_ns < 0,
    }


def _targets(databases: Iterable[Mapping[str, Any]], servers: Mapping[str, Any], now_ns: int) -> list[dict[str, Any]]:
    """Each target as shared by all databases; trouble with a single database's jobs is not part of it."""
    found: dict[str, dict[str, Any]] = {}
    for database in databases:
        for seen in database["targets"]:
            url = seen["url"]
            if url not in found:
                found[url] = {**_server(url, servers.get(url), now_ns), "databases": 0, "refuses": []}
            found[url]["databases"] += 1
            if seen["state"] == "down" and not seen["shared"]:
                found[url]["refuses"].append(database["name"])
    return list(found.values())


def _postgresql(servers: Mapping[str, Any], now_ns: int) -> list[dict[str, Any]]:
    """Each PostgreSQL that a worker depends on, as all of them find it."""
    found = []
    for name, view in servers.items():
        if name.startswith(SERVER_PREFIX):
            described = _server(name, view, now_ns)
            del described["url"]
            state = "down" if view.state is TargetState.DOWN else "up"  # nobody tells of each that works
            found.append(
                {"server": name.removeprefix(SERVER_PREFIX), **described, "state": state, "databases": view.users}
            )
    return found


def _problems(snapshot: MasterSnapshot, postgresql: Iterable[Mapping[str, Any]]) -> list[str]:
    """What keeps more than one database from being served, but for what follows from a server that is down."""
    is_told = any(each["state"] == "down" and each["server"] == snapshot.scan_lacks for each in postgresql)
    return [*([snapshot.scan_error] if snapshot.scan_error and not is_told else []), *snapshot.problems]


def _server(url: str, view: Any, now_ns: int) -> dict[str, Any]:
    """A server's health from the table."""
    if view is None:
        return {**_unasked(url), "down_for_s": None, "unanswered": 0}
    is_down = view.state is TargetState.DOWN
    return {
        "url": url,
        "state": view.state.name.lower(),
        "failures": view.failures,
        "retry_in_s": _left_s(view.retry_ns, now_ns) if is_down else None,
        "reason": view.reason or None,
        "down_for_s": round((now_ns - view.since_ns) / _NS, 1) if is_down else None,
        "unanswered": view.unanswered,
    }


def _target_of_database(url: str, own: TargetHealth | None, view: Any, now_ns: int) -> dict[str, Any]:
    """A target from one database's point of view. `shared`: whether its state holds for all databases."""
    if view is not None and view.state is TargetState.DOWN:
        return {**_server(url, view, now_ns), "shared": True}
    if own is None:
        return {**_unasked(url), "shared": False}
    return {
        "url": url,
        "state": own.state.name.lower(),
        "failures": own.failures,
        "retry_in_s": _left_s(int(own.retry_at_s * _NS), now_ns),
        "reason": own.reason or None,
        "shared": False,
    }


def _unasked(url: str | None) -> dict[str, Any]:
    return {"url": url, "state": "unknown", "failures": 0, "retry_in_s": None, "reason": None}


def _first_url(config: Config) -> str | None:
    return next((target.url for _, targets in config.targets for target in targets), None)


def _pause(scope: Scope, until_s: float | None, snapshot: MasterSnapshot) -> dict[str, Any]:
    left_s = None if until_s is None else max(0.0, round(until_s - snapshot.now_ns / _NS, 1))
    released = scope.channel == RELEASED
    return {
        "database": scope.database,
        "channel": ROOT if released else scope.channel,
        "remaining_s": left_s,
        "released": released,
        "by": snapshot.paused_by.get(scope),
    }


def _waited_s(since_us: int, wall_s: float) -> float:
    """How long ago that was; 0 if nobody waits. A row may claim to be due since before the epoch."""
    return round(min(max(0.0, wall_s - since_us / 1e6), _LONGEST_WAIT_S), 1) if since_us else 0


def _per_minute(view: Any, now_ns: int) -> float:
    """Jobs that ended in a minute, over the last one or two."""
    if not view.rate_since_ns:
        return 0.0
    seconds: float = max(_SHORTEST_RATE_S, (now_ns - view.rate_since_ns) / _NS)
    return round(60 * max(0, int(view.finished - view.rate_finished)) / seconds, 1)


def _left_s(until_ns: int, now_ns: int) -> float | None:
    """Seconds until then; None if it is past or was never set."""
    return round((until_ns - now_ns) / _NS, 1) if until_ns > now_ns else None
