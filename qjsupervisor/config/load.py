"""Builds one frozen `Config` from the command line, the environment and Odoo's file.

Order of precedence: command line, environment, [qjsupervisor] and [queue_job], [options], default. Everything
is read and checked before anything is used. The first error raises a one-line ConfigError that names the place,
the key, what is wrong and what is allowed. Writes nothing and connects to nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..channelspec import MAX_CHANNELS, ROOT, ChannelSpec
from ..errors import ConfigError
from ..states import Fairness, Mode
from . import odoo_file as odooconf
from . import options
from .channel_string import with_options
from .environment import Version, find_version, without_services
from .floor import check_floor
from .options import ODOO, Option
from .schedule import Schedule, own_timezone, unknown
from .settings import (
    Config,
    ConnectionSettings,
    DatabaseName,
    OdooSettings,
    ServingRules,
    TargetSettings,
    WorkerSettings,
)
from .shares import Shares, excess, resolved
from .sizes import refuse_percentages, without_percentages
from .sources import Sources
from .targets import ANY, TargetRules, completed
from .values import Secret, shown, socket_path

__all__ = ["Config", "ConnectionSettings", "DatabaseName", "TargetSettings", "WorkerSettings", "load"]


#: A worker receives the schedule of its channels in one message (control.MAX_FRAME_BYTES).
_MOST_BYTES = 60_000


def load(argv_options: Mapping[str, str], environ: Mapping[str, str]) -> Config:
    """Read the whole configuration. Raises ConfigError.

    `argv_options`: option name -> text, for names of `OPTIONS` and 'config' (the file).
    """
    environ = without_services(environ)
    # The version is found first, because it decides which file is read.
    file = odooconf.read(argv_options.get("config"), environ, _version(argv_options, environ, odooconf.OdooFile()))
    sources = Sources(argv_options, environ, file, _version(argv_options, environ, file))
    sources.refuse_unknown()
    return _build(sources)


def _version(argv_options: Mapping[str, str], environ: Mapping[str, str], file: odooconf.OdooFile) -> Version:
    told = Sources(argv_options, environ, file, Version(None, ""))
    major, found = told.get(options.ODOO_VERSION), told.find(options.ODOO_VERSION)
    if major is None or found is None:
        return find_version(told.environ, told.file.keys(ODOO))
    return Version(major, found.place)


def _build(sources: Sources) -> Config:
    get = sources.get
    mode, channels, max_capacity = _channels(sources)
    return Config(
        config_file=sources.file.path,
        connection=_connection(sources),
        db_names=get(options.DB_NAME),
        databases_include=get(options.DATABASES_INCLUDE),
        databases_exclude=get(options.DATABASES_EXCLUDE),
        maintenance_db=get(options.MAINTENANCE_DB),
        holds_new=get(options.NEW_DATABASES) == "hold",
        cluster=get(options.CLUSTER) or None,
        cluster_database=get(options.CLUSTER_DATABASE) or get(options.MAINTENANCE_DB),
        coordination_floor=_floor(sources, channels),
        template=get(options.DB_TEMPLATE),
        mode=mode,
        channels=channels,
        max_capacity=max_capacity,
        db_max_capacity=get(options.DB_MAX_CAPACITY),
        targets=_targets(sources),
        fairness=Fairness(get(options.FAIRNESS)),
        fairness_weights=get(options.FAIRNESS_WEIGHTS),
        db_shares=_shares(sources, channels),
        schedule=_schedule(sources, mode, channels),
        rules=_rules(sources, channels),
        **_times(sources),
        window=get(options.WINDOW),
        max_databases=get(options.MAX_DATABASES),
        control_socket=get(options.CONTROL_SOCKET) or _default_socket(sources.environ),
        state_dir=get(options.STATE_DIR) or _default_state_dir(sources.environ),
        pidfile=get(options.PIDFILE),
        log_file=get(options.LOG_FILE),
        log_level=get(options.LOG_LEVEL),
        log_format=get(options.LOG_FORMAT),
        log_jobs=get(options.LOG_JOBS),
        monitor=get(options.MONITOR),
        odoo=_odoo(sources),
        monitor_token=get(options.MONITOR_TOKEN),
        monitor_user=get(options.MONITOR_USER),
        monitor_password=get(options.MONITOR_PASSWORD),
        warnings=(*_warnings(sources, mode), *_idle_limits(sources, channels)),
        origins=tuple(sources.origins()),
    )


def _times(sources: Sources) -> dict[str, Any]:
    """Intervals and time limits in seconds, by the names of their fields."""
    get = sources.get
    return {
        "upgrade_timeout_s": get(options.UPGRADE_TIMEOUT),
        "rescan_interval_s": get(options.RESCAN_INTERVAL),
        "reconcile_interval_s": get(options.RECONCILE_INTERVAL),
        "graceful_timeout_s": get(options.GRACEFUL_TIMEOUT),
        "connect_timeout_s": get(options.CONNECT_TIMEOUT),
        "read_timeout_s": get(options.READ_TIMEOUT),
        "boot_timeout_s": get(options.BOOT_TIMEOUT),
        "hang_timeout_s": get(options.HANG_TIMEOUT),
        "dead_after_restart_s": get(options.DEAD_AFTER_RESTART),
        "leader_timeout_s": get(options.LEADER_TIMEOUT),
        "sleep_timeout_s": get(options.SLEEP_TIMEOUT),
    }


def _odoo(sources: Sources) -> OdooSettings:
    """What Odoo's own options say of Odoo itself."""
    return OdooSettings(
        version=sources.odoo.major,
        version_from=sources.odoo.place,
        workers=sources.get(options.WORKERS),
        server_wide_modules=sources.get(options.SERVER_WIDE_MODULES),
        dbfilter=sources.get(options.DBFILTER),
    )


def _channels(sources: Sources) -> tuple[Mode, tuple[ChannelSpec, ...], int | None]:
    """Choose the mode as queue_job does: channels before max_capacity; without either, one job at a time."""
    channels, max_capacity = sources.get(options.CHANNELS), sources.get(options.MAX_CAPACITY)
    given = sources.get(options.CHANNEL_OPTIONS)
    if channels is not None:
        channels = _with_options(sources, channels, given)
        if len(channels) > MAX_CHANNELS:
            raise ConfigError(
                options.CHANNELS.name, f"channels: {len(channels)} are configured; allowed: at most {MAX_CHANNELS}"
            )
        return Mode.SERVER_WIDE, channels, max_capacity
    mode = Mode.DEFAULT if max_capacity is None else Mode.PER_DATABASE
    root = ChannelSpec(name=ROOT, capacity=1 if max_capacity is None else max_capacity)
    # No database has more than root; of what the percentages are, only its worker knows.
    _with_options(sources, (root,), given, is_own=True)
    return mode, (root,), max_capacity


def _with_options(
    sources: Sources, channels: tuple[ChannelSpec, ...], given: Sequence[ChannelSpec], *, is_own: bool = False
) -> tuple[ChannelSpec, ...]:
    """The channels with `channel_options`. `is_own`: those of each database, so of percentages little is known yet."""
    try:
        refuse_percentages(given)
        return with_options(channels, [without_percentages(each) for each in given] if is_own else given)
    except ValueError as error:
        option = options.CHANNELS if _is_wrong(channels) else options.CHANNEL_OPTIONS
        found = sources.find(option)
        place = "" if found is None else f"{found.place}: "
        raise ConfigError(option.name, f"{place}{error}") from None


def _is_wrong(channels: tuple[ChannelSpec, ...]) -> bool:
    """Whether it is so without channel_options too."""
    try:
        with_options(channels, ())
    except ValueError:
        return True
    return False


def _shares(sources: Sources, channels: tuple[ChannelSpec, ...]) -> Shares:
    """Resolve `db_capacity` to numbers; if the databases are known by name, their minimums must fit."""
    capacity, found = channels[0].capacity, sources.find(options.DB_CAPACITY)
    place = "" if found is None else f"{found.place}: "
    try:
        shares = resolved(sources.get(options.DB_CAPACITY), capacity)
        over = excess(shares, tuple(entry.name for entry in sources.get(options.DB_NAME)), capacity)
        if over:
            raise ValueError(over)
    except ValueError as error:
        raise ConfigError(options.DB_CAPACITY.name, f"{place}{error}") from None
    return shares


def _floor(sources: Sources, channels: tuple[ChannelSpec, ...]) -> Mapping[str, int]:
    found = sources.find(options.COORDINATION_FLOOR)
    floor = sources.get(options.COORDINATION_FLOOR)
    try:
        if floor and not sources.get(options.CLUSTER):
            raise ValueError("there is no cluster; set cluster, or remove it")
        check_floor(floor, channels)
    except ValueError as error:
        place = "" if found is None else f"{found.place}: "
        raise ConfigError(options.COORDINATION_FLOOR.name, f"{place}{error}") from None
    return floor


def _rules(sources: Sources, channels: tuple[ChannelSpec, ...]) -> ServingRules:
    channel_options = sources.get(options.CHANNEL_OPTIONS)
    given = (*channels, *channel_options)
    return ServingRules(
        serve_neutralized=sources.get(options.SERVE_NEUTRALIZED),
        max_runtimes={spec.name: spec.max_runtime_s for spec in given if spec.max_runtime_s is not None},
        channel_options=channel_options,
        ageing_s=sources.get(options.AGEING) or 0.0,
        max_runtime_action=sources.get(options.MAX_RUNTIME_ACTION),
        idle_timeout_s=sources.get(options.IDLE_TIMEOUT),
    )


def _connection(sources: Sources) -> ConnectionSettings:
    own: dict[str, Option[Any]] = {
        "host": options.DB_HOST,
        "port": options.DB_PORT,
        "user": options.DB_USER,
        "password": options.DB_PASSWORD,
    }
    host, port = sources.get(options.DB_HOST), sources.get(options.DB_PORT)
    hosts, ports = (len(str(each or "").split(",")) for each in (host, port))
    if ports not in (1, hosts):
        found = sources.find(options.DB_PORT)
        place = "" if found is None else f"{found.place}: "
        raise ConfigError(
            options.DB_PORT.name,
            f"{place}{ports} ports for {hosts} host{'s' * (hosts > 1)}; allowed: one for all, or one for each",
        )
    return ConnectionSettings(
        host=host,
        port=port,
        user=sources.get(options.DB_USER),
        password=_db_password(sources),
        sslmode=sources.get(options.DB_SSLMODE),
        connect_timeout_s=sources.get(options.CONNECT_TIMEOUT),
        before_uri=tuple(
            name for name, option in own.items() if (found := sources.find(option)) and not found.borrowed
        ),
    )


def _schedule(sources: Sources, mode: Mode, channels: Iterable[ChannelSpec]) -> Schedule:
    """The schedule in its time zone. In server-wide mode an unknown channel is an error."""
    windows, found = sources.get(options.SCHEDULE), sources.find(options.SCHEDULE)
    zone = sources.get(options.TIMEZONE)
    if found is None or not windows:
        return Schedule(timezone=zone or "UTC")
    names = unknown(windows, channels) if mode is Mode.SERVER_WIDE else []
    if names:
        known = ", ".join(spec.name for spec in channels)
        raise ConfigError("schedule", f"{found.place}: channel {shown(names[0])} is not in channels; allowed: {known}")
    if len(json.dumps([window.channel for window in windows])) > _MOST_BYTES:
        raise ConfigError("schedule", f"{found.place}: too many channels; allowed: so many that their names are 60 kB")
    try:
        return Schedule(windows, zone or own_timezone(sources.environ))
    except ValueError as error:
        raise ConfigError("timezone", f"timezone, which is not set, is the machine's: {error}") from None


def _db_password(sources: Sources) -> str | None:
    text, found = sources.get(options.DB_PASSWORD), sources.find(options.DB_PASSWORD)
    return text if text is None or found is None else Secret(text, found.place)


def _targets(sources: Sources) -> TargetRules:
    get = sources.get
    scheme, port = get(options.SCHEME), get(options.PORT)
    user = get(options.HTTP_AUTH_USER)
    common = tuple(
        TargetSettings(
            url=f"{scheme}://{name}:{own_port or port}",
            user=user,
            password=get(options.HTTP_AUTH_PASSWORD) if user else None,
            ca_file=get(options.CA_FILE),
        )
        for name, own_port in get(options.HOST)
    )
    return completed(get(options.TARGETS), ((ANY, common),))


def _default_socket(environ: Mapping[str, str]) -> str:
    """The run-time directory: the one systemd provides, else the usual one of root or the user."""
    directory = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if not directory and os.geteuid() == 0:
        directory = "/run/qjsupervisor"
    if not directory and environ.get("XDG_RUNTIME_DIR"):
        directory = os.path.join(environ["XDG_RUNTIME_DIR"], "qjsupervisor")
    # Opening the socket checks that the directory belongs to the user.
    directory = directory or f"/tmp/qjsupervisor-{os.geteuid()}"  # nosec B108
    try:
        return socket_path(os.path.join(directory, "control.sock"))
    except ValueError as error:
        raise ConfigError(
            "control_socket", f"the default of control_socket cannot be used: {error}; set control_socket"
        ) from None


def _default_state_dir(environ: Mapping[str, str]) -> str | None:
    """The state directory systemd provides; unlike the run-time directory it survives a stop."""
    directory = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return os.path.abspath(directory) if directory else None


def _warnings(sources: Sources, mode: Mode) -> Iterable[str]:
    """Settings that are present but have no effect."""
    yield from sources.near_misses()
    yield from _about_environment(sources)
    for option in (options.MAX_CAPACITY, options.DB_MAX_CAPACITY):
        if mode is Mode.SERVER_WIDE and (found := sources.find(option)):
            yield f"{found.place} has no effect: the channels are set for all databases together"
    if mode is Mode.DEFAULT and (found := sources.find(options.DB_MAX_CAPACITY)):
        yield f"{found.place}: without max_capacity one job runs at once over all databases, whatever it allows"
    if (found := sources.find(options.HTTP_AUTH_PASSWORD)) and not sources.get(options.HTTP_AUTH_USER):
        yield f"{found.place} has no effect without http_auth_user"


def _idle_limits(sources: Sources, channels: Iterable[ChannelSpec]) -> Iterable[str]:
    """Schedule entries that limit nothing, because the channel's capacity is already smaller."""
    capacities = {spec.name: spec.capacity for spec in channels}
    for window in sources.get(options.SCHEDULE):
        capacity = capacities.get(window.channel)
        if capacity is not None and window.limit >= capacity:
            yield (
                f"schedule: {window.limit} at once has no effect in {window.channel}, whose capacity is {capacity}:"
                " give it the largest number that it ever has, and lower that by schedule"
            )


def _about_environment(sources: Sources) -> Iterable[str]:
    """Warn about PGDATABASE, which decides whose jobs run and means different things to Odoo's versions."""
    if sources.odoo.major is None and sources.environ.get("PGDATABASE") and not sources.find(options.DB_NAME):
        yield (
            "environment variable PGDATABASE has no effect, as with Odoo up to 18: all databases of the role are"
            " served; Odoo 19 takes it for db_name: set odoo_version = 19.0 if it is one, else odoo_version = 18.0"
        )
