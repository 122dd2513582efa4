"""The validated configuration: frozen objects shared by all processes.

Reads no file, environment or text; `load` builds these objects. Passwords never appear in a repr.
"""

from __future__ import annotations

import fnmatch
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple
from urllib.parse import quote

from psycopg2.extensions import parse_dsn

from ..channelspec import ChannelSpec, Share, spec_from
from ..states import Fairness, Mode
from .environment import READS_ENVIRONMENT, server_of
from .schedule import Schedule
from .values import Rules, Secret, first_match

#: Placeholder in a target's host for the database's name.
DATABASE = "{database}"
APPLICATION_NAME = "qjsupervisor"
#: Interval at which an idle worker wakes anyway to check its LISTEN connection. A short hang_timeout reduces it.
LONGEST_HEARTBEAT_S = 20.0
#: How late a heartbeat may be, if hang_timeout leaves room for it.
_HEARTBEAT_GRACE_S = 10.0
#: libpq treats a connect_timeout of 1 as 2.
_SHORTEST_CONNECT_TIMEOUT_S = 2


class Origin(NamedTuple):
    """Where an option's value comes from."""

    section: str
    name: str
    #: A key of the file, an environment variable, a command-line option, or 'default'.
    place: str
    #: The text found there; None for a default and for anything that may contain a password.
    text: str | None

    @property
    def is_set(self) -> bool:
        """Whether the option is set anywhere."""
        return self.place != "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class OdooSettings:
    """Settings of Odoo itself that `check` looks at; None if not set."""

    #: Major version.
    version: int | None = None
    #: Where the version was found.
    version_from: str = field(default="", compare=False)
    workers: int | None = None
    server_wide_modules: tuple[str, ...] | None = None
    dbfilter: str | None = None

    @property
    def reads_environment(self) -> bool:
        """Whether this Odoo reads environment variables before its file."""
        return self.version is not None and self.version >= READS_ENVIRONMENT


@dataclass(frozen=True, slots=True)
class DatabaseName:
    """One entry of db_name."""

    name: str
    #: The entry itself if it is a PostgreSQL URI; may contain a password.
    uri: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """How to reach PostgreSQL; None leaves the choice to libpq ($PGHOST, ~/.pgpass, its socket, ...)."""

    #: One or more hosts separated by commas, as in libpq, with one port for all or one for each.
    host: str | None = None
    port: int | str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    sslmode: str | None = None
    connect_timeout_s: float = 5.0
    #: Names of the fields set by jobrunner_db_*, which override a URI in db_name, as in queue_job.
    before_uri: tuple[str, ...] = ()

    def dsn(self, database: str, uri: str | None = None) -> dict[str, str | int]:
        """Keyword arguments for `psycopg2.connect`, including the database."""
        own = {name: getattr(self, name) for name in ("host", "port", "user", "password", "sslmode")}
        own = {name: value for name, value in own.items() if value is not None}
        if uri is not None:
            told = parse_dsn(uri)
            if "password" in told:
                told["password"] = Secret(told["password"], "the URI in db_name")
            own = {**told, **{name: own[name] for name in self.before_uri if name in own}}
        return {**self._defaults(), **own, "dbname": database}

    def _defaults(self) -> dict[str, str | int]:
        """Defaults that detect a dead peer within 25 s: by keep-alives when idle, else by tcp_user_timeout."""
        return {
            "connect_timeout": _for_libpq(self.connect_timeout_s),
            "keepalives": 1,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "application_name": APPLICATION_NAME,
            # Saves a megabyte of memory per worker.
            "gssencmode": "disable",
        }


def _for_libpq(connect_timeout_s: float) -> int:
    return max(_SHORTEST_CONNECT_TIMEOUT_S, math.ceil(connect_timeout_s))


def connect_limit_s(dsn: Mapping[str, Any], connect_timeout_s: float) -> float:
    """Time allowed to connect to one address, in seconds: the URI's connect_timeout, else the option, unrounded."""
    own = dsn.get("connect_timeout")
    return connect_timeout_s if own in (None, _for_libpq(connect_timeout_s)) else float(own)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSettings:
    """One Odoo that jobs are sent to."""

    #: Scheme, host and port only, e.g. 'http://localhost:8069'; the host may contain DATABASE.
    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    #: CA certificates for https; None uses the system's.
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRules:
    """Settings a running worker adopts without a restart; the fields are JSON, because an order carries them."""

    serve_neutralized: bool = False
    #: Complete channel name -> seconds.
    max_runtimes: Mapping[str, float] = field(default_factory=dict)
    #: Settings from `channel_options` for channels that are configured in the database.
    channel_options: tuple[ChannelSpec, ...] = ()
    #: What to do with a job that runs longer: 'warn' or 'terminate'.
    max_runtime_action: str = "warn"
    #: Seconds a job waits longer per step of priority (job.aged_us); 0 disables ageing.
    ageing_s: float = 0.0
    #: Without jobs for so long the worker ends, and the porter waits for the next job; None: never.
    idle_timeout_s: float | None = None

    @classmethod
    def from_message(cls, told: Mapping[str, Any]) -> ServingRules:
        """Build from a dict of the fields; unknown keys, e.g. of a newer version, are ignored."""
        known = {each.name: told[each.name] for each in fields(cls) if each.name in told}
        options = tuple(map(spec_from, known.pop("channel_options", ())))
        return cls(**known, channel_options=options)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The settings a database's worker is started with; a reload that changes them restarts the worker.

    Settings that change in place (server-wide channels, fairness) are not included.
    """

    database: str
    #: Pairs of `connect_kwargs`; may contain a password.
    dsn: tuple[tuple[str, str | int], ...] = field(repr=False)
    targets: tuple[TargetSettings, ...]
    mode: Mode
    #: Upper limit of the capacity of the database's own root channel; None in server-wide mode.
    root_capacity: int | None
    connect_timeout_s: float
    read_timeout_s: float | None
    graceful_timeout_s: float
    window: int
    reconcile_interval_s: float
    #: After a server start, how long jobs that were running before are not considered dead.
    dead_after_restart_s: float = 60.0
    #: The server ends our session after this much silence; None: never.
    leader_timeout_s: float | None = None
    #: Heartbeat interval of an idle worker.
    heartbeat_s: float = LONGEST_HEARTBEAT_S
    #: Identifies our own sessions; see master.session_mark.
    session_mark: int = field(default=0, repr=False)
    #: Name of its PostgreSQL server; databases with the same server name share its outages.
    server: str = ""
    #: Not compared, because these change without a restart.
    rules: ServingRules = field(default=ServingRules(), compare=False)

    @property
    def connect_kwargs(self) -> dict[str, Any]:
        """Keyword arguments for `psycopg2.connect`."""
        return dict(self.dsn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The complete, validated configuration."""

    #: None if there was no file.
    config_file: str | None
    connection: ConnectionSettings
    #: Empty: discover the databases.
    db_names: tuple[DatabaseName, ...]
    databases_include: tuple[str, ...]
    databases_exclude: tuple[str, ...]
    maintenance_db: str
    #: Databases that appear after the start wait until an operator resumes them.
    holds_new: bool
    #: Supervisors with the same name share one capacity; None for a single supervisor.
    cluster: str | None
    cluster_database: str
    #: Permits by channel that this supervisor never lends to others of its cluster.
    coordination_floor: Mapping[str, int]
    #: Odoo's db_template, which is never served.
    template: str

    schedule: Schedule
    mode: Mode
    #: Root first, parents before children. In per-database mode only a root, which limits all databases together.
    channels: tuple[ChannelSpec, ...]
    max_capacity: int | None
    db_max_capacity: Rules

    #: (glob over databases, its targets); the first match wins, the last glob is '*'.
    targets: tuple[tuple[str, tuple[TargetSettings, ...]], ...]
    fairness: Fairness
    fairness_weights: Rules
    #: (glob over databases, their guaranteed minimum and maximum); the first match wins.
    db_shares: tuple[tuple[str, Share], ...]

    #: A module in transition for longer than this is reported.
    upgrade_timeout_s: float
    rules: ServingRules

    rescan_interval_s: float
    reconcile_interval_s: float
    graceful_timeout_s: float
    connect_timeout_s: float
    read_timeout_s: float | None
    boot_timeout_s: float
    hang_timeout_s: float
    dead_after_restart_s: float
    leader_timeout_s: float | None
    sleep_timeout_s: float | None
    #: Pending jobs held in memory per channel.
    window: int
    max_databases: int

    control_socket: str
    #: Directory of the state file; None: beside the control socket.
    state_dir: str | None
    pidfile: str | None
    log_file: str | None
    log_level: str
    log_format: str
    #: Whether to log a line for each dispatched and each finished job.
    log_jobs: bool
    #: Host and port the monitor listens on; None: off.
    monitor: tuple[str, int] | None
    odoo: OdooSettings = field(default_factory=OdooSettings)
    #: Secret that permits orders on the page; None: read-only.
    monitor_token: str | None = field(default=None, repr=False)
    monitor_user: str | None = None
    monitor_password: str | None = field(default=None, repr=False)
    #: Settings that have no effect, one line each, for the log and `check`.
    warnings: tuple[str, ...] = ()
    #: Where each value came from, for `check`; ignored when configurations are compared.
    origins: tuple[Origin, ...] = field(default=(), compare=False)
    #: Not an option: databases released to an administrator; listed but never connected to.
    untouched: frozenset[str] = frozenset()
    #: Not an option: the running supervisor's mark, see master.session_mark.
    session_mark: int = field(default=0, repr=False)

    @property
    def serve_neutralized(self) -> bool:
        """Whether neutralised copies of databases are served."""
        return self.rules.serve_neutralized

    def selects(self, database: str) -> bool:
        """Whether databases_include and databases_exclude select a database."""
        return _fits(database, self.databases_include or ("*",)) and not _fits(database, self.databases_exclude)

    def db_capacity(self, database: str) -> int | None:
        """Upper limit of the capacity of its own root channel; None in server-wide mode."""
        if self.mode is Mode.SERVER_WIDE:
            return None
        match = first_match(self.db_max_capacity, database)
        return self.channels[0].capacity if match is None else match

    def weight(self, database: str) -> int:
        """A database's turns in round-robin, relative to a weight of 1."""
        return first_match(self.fairness_weights, database) or 1

    def share(self, database: str) -> Share:
        """A database's guaranteed minimum and its maximum."""
        return first_match(self.db_shares, database) or Share()

    def targets_for(self, database: str) -> tuple[TargetSettings, ...]:
        """The Odoos that can run a database's jobs; never empty."""
        targets = first_match(self.targets, database) or ()
        if not any(DATABASE in target.url for target in targets):
            return targets
        name = quote(database, safe="")
        return tuple(replace(target, url=target.url.replace(DATABASE, name)) for target in targets)

    def dsn(self, database: str) -> dict[str, str | int]:
        """Keyword arguments for `psycopg2.connect` to any database, including one configured by a URI."""
        uris: Mapping[str, str | None] = {entry.name: entry.uri for entry in self.db_names}
        return self.connection.dsn(database, uris.get(database))

    def server_of(self, database: str) -> str:
        """The name of a database's PostgreSQL server; see environment.server_of."""
        return server_of(self.dsn(database), os.environ)

    def worker_settings(self, database: str) -> WorkerSettings:
        """The settings to start a database's worker with."""
        hang_s = self.hang_timeout_s
        return WorkerSettings(
            database=database,
            dsn=tuple(self.dsn(database).items()),
            server=self.server_of(database),
            targets=self.targets_for(database),
            mode=self.mode,
            root_capacity=self.db_capacity(database),
            connect_timeout_s=self.connect_timeout_s,
            read_timeout_s=self.read_timeout_s,
            graceful_timeout_s=self.graceful_timeout_s,
            window=self.window,
            reconcile_interval_s=self.reconcile_interval_s,
            heartbeat_s=min(LONGEST_HEARTBEAT_S, max(hang_s / 3, hang_s - _HEARTBEAT_GRACE_S)),
            dead_after_restart_s=self.dead_after_restart_s,
            leader_timeout_s=self.leader_timeout_s,
            session_mark=self.session_mark,
            rules=self.rules,
        )


def _fits(database: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(database, glob) for glob in globs)
