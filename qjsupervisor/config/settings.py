"""What the configuration comes to: frozen objects that the processes share.

No file, no environment, no text is read here; `config` builds these. Passwords are kept out of every repr.
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

#: In the host of a target: stands for the name of the database.
DATABASE = "{database}"
APPLICATION_NAME = "qjsupervisor"
#: As often as an idle worker wakes anyway, to see that its connection hears. An impatient hang_timeout shortens it.
LONGEST_HEARTBEAT_S = 20.0
#: What a late one is forgiven, where hang_timeout leaves room for that.
_HEARTBEAT_GRACE_S = 10.0
#: libpq takes a connect_timeout of 1 for 2.
_SHORTEST_CONNECT_TIMEOUT_S = 2


class Origin(NamedTuple):
    """Where the value of one option comes from."""

    section: str
    name: str
    #: A key of the file, a variable, an option of the command line, or 'default'.
    place: str
    #: As it stands there; None for a default, and for what may hold a password.
    text: str | None

    @property
    def is_set(self) -> bool:
        """Somebody said something."""
        return self.place != "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class OdooSettings:
    """What Odoo's own configuration says of it that `check` looks at; None where it says nothing."""

    #: Major number.
    version: int | None = None
    #: What says so.
    version_from: str = field(default="", compare=False)
    workers: int | None = None
    server_wide_modules: tuple[str, ...] | None = None
    dbfilter: str | None = None

    @property
    def reads_environment(self) -> bool:
        """Its variables go before its file."""
        return self.version is not None and self.version >= READS_ENVIRONMENT


@dataclass(frozen=True, slots=True)
class DatabaseName:
    """One entry of db_name."""

    name: str
    #: The entry itself where it is a PostgreSQL URI; it may hold a password.
    uri: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """How to reach the PostgreSQL cluster; None leaves it to libpq ($PGHOST, ~/.pgpass, its socket, ...)."""

    #: Several, separated by commas, as libpq takes them; then one port for all, or one for each.
    host: str | None = None
    port: int | str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    sslmode: str | None = None
    connect_timeout_s: float = 5.0
    #: Of the above, what goes before a URI in db_name: jobrunner_db_*, as in queue_job.
    before_uri: tuple[str, ...] = ()

    def dsn(self, database: str, uri: str | None = None) -> dict[str, str | int]:
        """Keyword arguments for `psycopg2.connect`, database included."""
        own = {name: getattr(self, name) for name in ("host", "port", "user", "password", "sslmode")}
        own = {name: value for name, value in own.items() if value is not None}
        if uri is not None:
            told = parse_dsn(uri)
            if "password" in told:
                told["password"] = Secret(told["password"], "the URI in db_name")
            own = {**told, **{name: own[name] for name in self.before_uri if name in own}}
        return {**self._defaults(), **own, "dbname": database}

    def _defaults(self) -> dict[str, str | int]:
        """A dead peer is noticed within 25 s: by keep-alives when idle, by tcp_user_timeout when not."""
        return {
            "connect_timeout": _for_libpq(self.connect_timeout_s),
            "keepalives": 1,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "application_name": APPLICATION_NAME,
            # Saves a megabyte of memory in each worker.
            "gssencmode": "disable",
        }


def _for_libpq(connect_timeout_s: float) -> int:
    return max(_SHORTEST_CONNECT_TIMEOUT_S, math.ceil(connect_timeout_s))


def connect_limit_s(dsn: Mapping[str, Any], connect_timeout_s: float) -> float:
    """How long one address of a database may take to connect: what its URI says, else the option, to the fraction."""
    own = dsn.get("connect_timeout")
    return connect_timeout_s if own in (None, _for_libpq(connect_timeout_s)) else float(own)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSettings:
    """One Odoo to send jobs to."""

    #: Scheme, host and port, nothing behind, perhaps with DATABASE in the host: 'http://localhost:8069'.
    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    #: Certificates to verify https with; None: the system's.
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRules:
    """What a running worker takes over in place; its fields are JSON, for the order that tells it."""

    serve_neutralized: bool = False
    #: By complete name of the channel, in seconds.
    max_runtimes: Mapping[str, float] = field(default_factory=dict)
    #: What `channel_options` gives to channels that are set up in the database.
    channel_options: tuple[ChannelSpec, ...] = ()
    #: What becomes of a job that runs for longer: 'warn' or 'terminate'.
    max_runtime_action: str = "warn"
    #: How much a waiting job ages for each priority (job.aged_us); 0: not at all.
    ageing_s: float = 0.0

    @classmethod
    def from_message(cls, told: Mapping[str, Any]) -> ServingRules:
        """From the dict of the fields; what a newer one says besides is left out."""
        known = {each.name: told[each.name] for each in fields(cls) if each.name in told}
        options = tuple(map(spec_from, known.pop("channel_options", ())))
        return cls(**known, channel_options=options)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What one database's worker is started with; when it differs after a reload, the worker is restarted.

    What changes in place (channels of the server-wide mode, fairness) is not in it.
    """

    database: str
    #: Pairs of `connect_kwargs`; may hold a password.
    dsn: tuple[tuple[str, str | int], ...] = field(repr=False)
    targets: tuple[TargetSettings, ...]
    mode: Mode
    #: The most that the root of the database's own tree may have; None in the server-wide mode.
    root_capacity: int | None
    connect_timeout_s: float
    read_timeout_s: float | None
    graceful_timeout_s: float
    window: int
    reconcile_interval_s: float
    #: How long after a start of the server a job that ran before is not taken for dead.
    dead_after_restart_s: float = 60.0
    #: The server ends our session when it is silent for so long; None: never.
    leader_timeout_s: float | None = None
    #: How often an idle worker shows that it lives.
    heartbeat_s: float = LONGEST_HEARTBEAT_S
    #: What our sessions are recognised by; see master.session_mark.
    session_mark: int = field(default=0, repr=False)
    #: What its PostgreSQL is called; databases whose server has the same name share its outages.
    server: str = ""
    #: Not compared: these change without a restart.
    rules: ServingRules = field(default=ServingRules(), compare=False)

    @property
    def connect_kwargs(self) -> dict[str, Any]:
        """Keyword arguments for `psycopg2.connect`."""
        return dict(self.dsn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration, validated."""

    #: None: there was no file, defaults and environment only.
    config_file: str | None
    connection: ConnectionSettings
    #: () means: discover them.
    db_names: tuple[DatabaseName, ...]
    databases_include: tuple[str, ...]
    databases_exclude: tuple[str, ...]
    maintenance_db: str
    #: A database that appears after the start waits for an operator's word.
    holds_new: bool
    #: Supervisors of this name share one capacity; None: this one is alone.
    cluster: str | None
    cluster_database: str
    #: Odoo's db_template: never served.
    template: str

    schedule: Schedule
    mode: Mode
    #: Root first, parents before children. Not in the server-wide mode: the root alone, with what limits all together.
    channels: tuple[ChannelSpec, ...]
    max_capacity: int | None
    db_max_capacity: Rules

    #: (glob over databases, its targets); the first match wins, the last glob is '*'.
    targets: tuple[tuple[str, tuple[TargetSettings, ...]], ...]
    fairness: Fairness
    fairness_weights: Rules
    #: (glob over databases, what they are guaranteed and limited to); the first match wins.
    db_shares: tuple[tuple[str, Share], ...]

    #: A module in transition for so long is reported.
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
    #: Pending jobs held per channel.
    window: int
    max_databases: int

    control_socket: str
    #: Where the state file is kept; None: beside the control socket.
    state_dir: str | None
    pidfile: str | None
    log_file: str | None
    log_level: str
    log_format: str
    #: Lines for each job that is dispatched and that is over.
    log_jobs: bool
    #: Host and port of the metrics page; None: off.
    monitor: tuple[str, int] | None
    odoo: OdooSettings = field(default_factory=OdooSettings)
    #: What allows orders on that page; None: it only reads.
    monitor_token: str | None = field(default=None, repr=False)
    monitor_user: str | None = None
    monitor_password: str | None = field(default=None, repr=False)
    #: One line each, for the log and `check`: what was read but has no effect.
    warnings: tuple[str, ...] = ()
    #: Where each value came from, for `check`; it makes no other configuration.
    origins: tuple[Origin, ...] = field(default=(), compare=False)
    #: No option: databases that an administrator has for himself; they are listed, and not connected to.
    untouched: frozenset[str] = frozenset()
    #: No option: the running supervisor's own, see master.session_mark.
    session_mark: int = field(default=0, repr=False)

    @property
    def serve_neutralized(self) -> bool:
        """Whether copies that must not act as production are served."""
        return self.rules.serve_neutralized

    def selects(self, database: str) -> bool:
        """Whether databases_include and databases_exclude let a database through."""
        return _fits(database, self.databases_include or ("*",)) and not _fits(database, self.databases_exclude)

    def db_capacity(self, database: str) -> int | None:
        """The most that the root of its own tree may have. None in the server-wide mode."""
        if self.mode is Mode.SERVER_WIDE:
            return None
        match = first_match(self.db_max_capacity, database)
        return self.channels[0].capacity if match is None else match

    def weight(self, database: str) -> int:
        """Turns that a database has where another has one."""
        return first_match(self.fairness_weights, database) or 1

    def share(self, database: str) -> Share:
        """What a database is guaranteed and limited to."""
        return first_match(self.db_shares, database) or Share()

    def targets_for(self, database: str) -> tuple[TargetSettings, ...]:
        """The Odoos that may be asked for a database's jobs; never empty."""
        targets = first_match(self.targets, database) or ()
        if not any(DATABASE in target.url for target in targets):
            return targets
        name = quote(database, safe="")
        return tuple(replace(target, url=target.url.replace(DATABASE, name)) for target in targets)

    def dsn(self, database: str) -> dict[str, str | int]:
        """Keyword arguments for `psycopg2.connect` to any database, one with a URI of its own included."""
        uris: Mapping[str, str | None] = {entry.name: entry.uri for entry in self.db_names}
        return self.connection.dsn(database, uris.get(database))

    def server_of(self, database: str) -> str:
        """What the PostgreSQL of a database is called; see environment."""
        return server_of(self.dsn(database), os.environ)

    def worker_settings(self, database: str) -> WorkerSettings:
        """What a worker of that database is to be started with."""
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
