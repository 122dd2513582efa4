"""Every option there is: one table that drives file, environment, `start --help` and the example file.

Says what exists, not where values come from; `config` looks them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ..channelspec import ChannelSpec
from ..text import UPGRADE_TIMEOUT_S
from .channel_string import parse_channel_options, parse_channels
from .database_names import parse_database_names
from .environment import parse_version
from .floor import parse_floor
from .schedule import ScheduleEntry, parse_schedule, parse_timezone
from .settings import DatabaseName
from .shares import Shares, parse_shares
from .sizes import HIGHEST_CAPACITY
from .targets import Hosts, TargetRules, parse_hosts, parse_targets
from .values import (
    Parser,
    Rules,
    address,
    certificates,
    choice,
    duration_in,
    globs,
    hint,
    integer_in,
    no_url,
    optional_duration_in,
    path,
    plain,
    ports,
    rules_in,
    socket_path,
    user_name,
    verbatim,
    yes_or_no,
)

T = TypeVar("T")

OWN = "qjsupervisor"
QUEUE_JOB = "queue_job"
ODOO = "options"

_DAY_S = 86400.0
_VARIABLE_PREFIXES = {OWN: "QJSUPERVISOR_", QUEUE_JOB: "ODOO_QUEUE_JOB_"}


@dataclass(frozen=True, kw_only=True)
class Option(Generic[T]):
    """One key of one section of the file."""

    section: str
    name: str
    #: One line for `--help` and the example file.
    help: str
    #: The value if it is set nowhere.
    default: T
    #: The text of the default for people; '' where there is none or it depends.
    default_text: str
    parse: Parser[T]
    #: Keys of [options] used if this one is not set; the first that is set counts.
    fallbacks: tuple[str, ...] = ()
    #: Not an option of the command line, which everybody on the machine can read.
    secret: bool = False

    @property
    def variable(self) -> str | None:
        """The environment variable; None where there is none, as for Odoo's own [options]."""
        prefix = _VARIABLE_PREFIXES.get(self.section)
        return None if prefix is None else prefix + self.name.upper()

    @property
    def flag(self) -> str | None:
        """The option of the command line; None where there is none."""
        return "--" + self.name.replace("_", "-") if self.section == OWN and not self.secret else None


def _own(name: str, default: T, default_text: str, parse: Parser[T], help: str) -> Option[T]:
    return Option(section=OWN, name=name, default=default, default_text=default_text, parse=parse, help=help)


DATABASES_INCLUDE: Option[tuple[str, ...]] = _own(
    "databases_include", (), "", globs, "serve only databases matching one of these patterns (prod_*,staging)"
)
DATABASES_EXCLUDE: Option[tuple[str, ...]] = _own(
    "databases_exclude", (), "", globs, "never serve databases matching one of these patterns"
)
MAINTENANCE_DB = _own(
    "maintenance_db", "postgres", "postgres", no_url, "database to connect to in order to list all databases"
)
ODOO_VERSION: Option[int | None] = _own(
    "odoo_version",
    None,
    "",
    parse_version,
    "Odoo's version: 19.0 prefers its environment to its file; default: found from ODOO_VERSION or the file",
)
CLUSTER: Option[str | None] = _own(
    "cluster",
    None,
    "",
    plain,
    "name of a cluster: supervisors with the same name share one capacity; takes effect at start",
)
CLUSTER_DATABASE: Option[str | None] = _own(
    "cluster_database",
    None,
    "",
    no_url,
    "database of the cluster's ledger (qjsupervisor cluster init); default: maintenance_db",
)
COORDINATION_FLOOR: Option[Mapping[str, int]] = _own(
    "coordination_floor",
    {},
    "",
    parse_floor,
    "permits of a cluster that this supervisor keeps for when the coordinator is away (2; root:2,root.mail:1)",
)
MAX_DATABASES = _own(
    "max_databases", 512, "512", integer_in(1, 10_000), "most databases served at once; takes effect at start"
)
NEW_DATABASES = _own(
    "new_databases",
    "serve",
    "serve",
    choice("serve", "hold"),
    "what to do with a database that appears after the start: serve, or hold until resumed",
)
RESCAN_INTERVAL = _own("rescan_interval", 60.0, "60", duration_in(0.1, _DAY_S), "seconds between scans for databases")
RECONCILE_INTERVAL = _own(
    "reconcile_interval",
    60.0,
    "60",
    duration_in(0.1, _DAY_S),
    "seconds between comparisons of a queue with its table",
)
FAIRNESS = _own(
    "fairness",
    "round-robin",
    "round-robin",
    choice("round-robin", "priority"),
    "order of competing databases: round-robin, or priority (one order over all)",
)
FAIRNESS_WEIGHTS: Option[Rules] = _own(
    "fairness_weights", (), "", rules_in(1, 100), "turns per database in round-robin (prod_*:3,*:1)"
)
DB_CAPACITY: Option[Shares] = _own(
    "db_capacity",
    (),
    "",
    parse_shares,
    "guaranteed and largest number of jobs at once per database (prod_*:min=2:max=8,*:max=2); in both modes",
)
AGEING: Option[float | None] = _own(
    "ageing",
    None,
    "0",
    optional_duration_in(0.001, _DAY_S),
    "seconds a job waits longer per step of priority; 0: better priorities always go first",
)
WINDOW = _own(
    "window",
    2000,
    "2000",
    integer_in(10, 1_000_000),
    "pending jobs a worker holds in memory per channel",
)
TARGETS: Option[TargetRules] = _own(
    "targets",
    (),
    "",
    parse_targets,
    "Odoo by database (prod_*:https://a,*:http://b:8069); default: host and port of [queue_job]",
)
CA_FILE: Option[str | None] = _own("ca_file", None, "", certificates, "file of CA certificates to verify https targets")
CONNECT_TIMEOUT = _own("connect_timeout", 5.0, "5", duration_in(0.1, 300), "seconds to connect to Odoo or PostgreSQL")
READ_TIMEOUT: Option[float | None] = _own(
    "read_timeout",
    None,
    "0",
    optional_duration_in(1, 30 * _DAY_S),
    "seconds to wait for Odoo's answer, i.e. for a job's end; 0: no limit",
)
GRACEFUL_TIMEOUT = _own(
    "graceful_timeout", 8.0, "8", duration_in(0.1, 3600), "seconds from SIGTERM until everything must have ended"
)
BOOT_TIMEOUT = _own("boot_timeout", 60.0, "60", duration_in(1, 3600), "seconds in which a new worker must become ready")
HANG_TIMEOUT = _own(
    "hang_timeout",
    30.0,
    "30",
    duration_in(2, 3600),
    "seconds without a heartbeat until a worker is replaced",
)
DEAD_AFTER_RESTART = _own(
    "dead_after_restart",
    60.0,
    "60",
    duration_in(0, _DAY_S),
    "seconds after a start, crash or failover of PostgreSQL in which older jobs are not considered dead",
)
LEADER_TIMEOUT: Option[float | None] = _own(
    "leader_timeout",
    None,
    "0",
    optional_duration_in(3, _DAY_S),
    "seconds of silence after which PostgreSQL (14 or later) takes a database from its supervisor; 0: never",
)
IDLE_TIMEOUT: Option[float | None] = _own(
    "idle_timeout",
    None,
    "0",
    optional_duration_in(1, 30 * _DAY_S),
    "time without a job after which a database's worker ends, and starts again with the next job; 0: never",
)
SLEEP_TIMEOUT: Option[float | None] = _own(
    "sleep_timeout",
    None,
    "0",
    optional_duration_in(1, 30 * _DAY_S),
    "further time after which its connection is closed, too (PostgreSQL 15 or later; see the docs); 0: never",
)
UPGRADE_TIMEOUT = _own(
    "upgrade_timeout",
    UPGRADE_TIMEOUT_S,
    "1h",
    duration_in(1, 30 * _DAY_S),
    "time after which a module still to be installed, upgraded or removed is reported; jobs wait meanwhile",
)
SCHEDULE: Option[tuple[ScheduleEntry, ...]] = _own(
    "schedule",
    (),
    "",
    parse_schedule,
    "when channels are closed or limited (root.heavy: closed mon-fri 08:00-18:00; root: 4 daily 02:00-03:00)",
)
TIMEZONE: Option[str | None] = _own(
    "timezone",
    None,
    "",
    parse_timezone,
    "time zone of schedule (Europe/Berlin, UTC); default: the machine's",
)
CHANNEL_OPTIONS: Option[tuple[ChannelSpec, ...]] = _own(
    "channel_options",
    (),
    "",
    parse_channel_options,
    "additional settings for channels configured in databases (root.slow:max_runtime=2h:rate=100/1m)",
)
MAX_RUNTIME_ACTION = _own(
    "max_runtime_action",
    "warn",
    "warn",
    choice("warn", "terminate"),
    "what to do when a job exceeds its channel's max_runtime: warn, or terminate its session",
)
SERVE_NEUTRALIZED = _own(
    "serve_neutralized", False, "no", yes_or_no, "run jobs of neutralised copies of databases too (Odoo 16 or later)"
)
CONTROL_SOCKET: Option[str | None] = _own(
    "control_socket",
    None,
    "",
    socket_path,
    "socket for status, reload and the like; default: control.sock in the run-time directory",
)
STATE_DIR: Option[str | None] = _own(
    "state_dir",
    None,
    "",
    path,
    "directory for state kept over restarts, such as pauses; default: $STATE_DIRECTORY, or beside control_socket",
)
PIDFILE: Option[str | None] = _own("pidfile", None, "", path, "file to write the process id to")
LOG_FILE: Option[str | None] = _own("log_file", None, "", path, "file to log to; default: standard output")
LOG_LEVEL = _own(
    "log_level", "info", "info", choice("debug", "info", "warning", "error"), "lowest level that is logged"
)
LOG_FORMAT = _own(
    "log_format",
    "auto",
    "auto",
    choice("auto", "json", "console"),
    "json, console, or auto (console on a terminal)",
)
LOG_JOBS = _own(
    "log_jobs",
    True,
    "yes",
    yes_or_no,
    "log a line when a job is dispatched and when it ends; warnings are always logged",
)
MONITOR: Option[tuple[str, int] | None] = _own(
    "monitor", None, "", address, "HOST:PORT of the metrics and health page; default: off"
)
MONITOR_TOKEN: Option[str | None] = replace(
    _own("monitor_token", None, "", verbatim, "secret that permits orders (pause, resume, requeue) on the page"),
    secret=True,
)
MONITOR_USER: Option[str | None] = _own(
    "monitor_user", None, "", user_name, "the same with user and password instead of a token"
)
MONITOR_PASSWORD: Option[str | None] = replace(
    _own("monitor_password", None, "", verbatim, "and the password"), secret=True
)

#: Our own, section [qjsupervisor]: in the order of `--help` and of the example file.
OPTIONS: tuple[Option[Any], ...] = (
    DATABASES_INCLUDE,
    DATABASES_EXCLUDE,
    MAINTENANCE_DB,
    ODOO_VERSION,
    CLUSTER,
    CLUSTER_DATABASE,
    COORDINATION_FLOOR,
    MAX_DATABASES,
    NEW_DATABASES,
    RESCAN_INTERVAL,
    RECONCILE_INTERVAL,
    FAIRNESS,
    FAIRNESS_WEIGHTS,
    DB_CAPACITY,
    AGEING,
    WINDOW,
    TARGETS,
    CA_FILE,
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    GRACEFUL_TIMEOUT,
    BOOT_TIMEOUT,
    HANG_TIMEOUT,
    DEAD_AFTER_RESTART,
    LEADER_TIMEOUT,
    IDLE_TIMEOUT,
    SLEEP_TIMEOUT,
    SCHEDULE,
    TIMEZONE,
    CHANNEL_OPTIONS,
    MAX_RUNTIME_ACTION,
    UPGRADE_TIMEOUT,
    SERVE_NEUTRALIZED,
    CONTROL_SOCKET,
    STATE_DIR,
    PIDFILE,
    LOG_FILE,
    LOG_LEVEL,
    LOG_FORMAT,
    LOG_JOBS,
    MONITOR,
    MONITOR_TOKEN,
    MONITOR_USER,
    MONITOR_PASSWORD,
)


def _queue_job(name: str, default: T, default_text: str, parse: Parser[T], help: str, *fallbacks: str) -> Option[T]:
    return Option(
        section=QUEUE_JOB,
        name=name,
        default=default,
        default_text=default_text,
        parse=parse,
        help=help,
        fallbacks=fallbacks,
    )


CHANNELS: Option[tuple[ChannelSpec, ...] | None] = _queue_job(
    "channels", None, "root:1", parse_channels, "one channel tree for all databases (root:4,root.slow:1)"
)
MAX_CAPACITY: Option[int | None] = _queue_job(
    "max_capacity",
    None,
    "",
    integer_in(0, HIGHEST_CAPACITY),
    "instead of channels: jobs at once over all databases, each with its own channel tree",
)
DB_MAX_CAPACITY: Option[Rules] = _queue_job(
    "db_max_capacity",
    (),
    "",
    rules_in(0, HIGHEST_CAPACITY),
    "with max_capacity: jobs at once in one database (prod_*:20,staging:2,*:5, or one number)",
)
SCHEME = _queue_job("scheme", "http", "http", choice("http", "https"), "how to reach Odoo: http or https")
HOST: Option[Hosts] = _queue_job(
    "host",
    (("localhost", None),),
    "localhost",
    parse_hosts,
    "Odoo's host; several, separated by commas, share the jobs; default: http_interface",
    "http_interface",
    "xmlrpc_interface",
)
PORT = _queue_job(
    "port", 8069, "8069", integer_in(1, 65535), "its port; default: http_port", "http_port", "xmlrpc_port"
)
HTTP_AUTH_USER: Option[str | None] = _queue_job(
    "http_auth_user", None, "", user_name, "user for a proxy in front of Odoo"
)
HTTP_AUTH_PASSWORD: Option[str | None] = _queue_job("http_auth_password", None, "", verbatim, "and the password")
DB_HOST: Option[str | None] = _queue_job(
    "jobrunner_db_host",
    None,
    "",
    no_url,
    "PostgreSQL's host, if different from Odoo's; several hosts as in libpq; default: db_host",
    "db_host",
)
DB_PORT: Option[int | str | None] = _queue_job(
    "jobrunner_db_port", None, "", ports, "its port, or one for each host; default: db_port", "db_port"
)
DB_USER: Option[str | None] = _queue_job(
    "jobrunner_db_user", None, "", plain, "role to connect as; default: db_user", "db_user"
)
DB_PASSWORD: Option[str | None] = _queue_job(
    "jobrunner_db_password", None, "", verbatim, "and the password; default: db_password", "db_password"
)

#: Section [queue_job], as queue_job itself reads it.
QUEUE_JOB_OPTIONS: tuple[Option[Any], ...] = (
    CHANNELS,
    MAX_CAPACITY,
    DB_MAX_CAPACITY,
    SCHEME,
    HOST,
    PORT,
    HTTP_AUTH_USER,
    HTTP_AUTH_PASSWORD,
    DB_HOST,
    DB_PORT,
    DB_USER,
    DB_PASSWORD,
)


def _odoo(name: str, default: T, default_text: str, parse: Parser[T], help: str) -> Option[T]:
    return Option(section=ODOO, name=name, default=default, default_text=default_text, parse=parse, help=help)


DB_NAME: Option[tuple[DatabaseName, ...]] = _odoo(
    "db_name",
    (),
    "",
    parse_database_names,
    "databases to serve, separated by commas; default: all owned by the role",
)
_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
DB_SSLMODE: Option[str | None] = _odoo("db_sslmode", None, "", choice(*_SSLMODES), "TLS to PostgreSQL, as in libpq")
DB_TEMPLATE = _odoo("db_template", "template0", "template0", plain, "Odoo's template database, never served")

SERVER_WIDE_MODULES: Option[tuple[str, ...] | None] = _odoo(
    "server_wide_modules", None, "", globs, "read by check only: queue_job must be among them"
)
WORKERS: Option[int | None] = _odoo(
    "workers", None, "", hint, "read by check only: the capacity should be below it, or jobs starve users"
)
DBFILTER: Option[str | None] = _odoo(
    "dbfilter", None, "", str, "read by check only: named where Odoo does not serve a database"
)

#: What is read of Odoo's own section, besides the fallbacks of QUEUE_JOB_OPTIONS.
ODOO_OPTIONS: tuple[Option[Any], ...] = (DB_NAME, DB_SSLMODE, DB_TEMPLATE, SERVER_WIDE_MODULES, WORKERS, DBFILTER)
