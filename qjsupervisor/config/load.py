"""Reads the configuration: command line, environment, Odoo's file; one frozen `Config` comes out.

Strongest first: command line, environment, [qjsupervisor] and [queue_job], [options], default. Everything
is read and checked before anything is used; the first thing that is wrong raises a ConfigError of one line
that names the place, the key, what is wrong and what is allowed. Nothing is written, nothing connected to.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..channelspec import ROOT, ChannelSpec
from ..errors import ConfigError
from ..states import Fairness, Mode
from . import odoo_file as odooconf
from . import options
from .odoo_file import OdooFile
from .options import ODOO, OPTIONS, OWN, QUEUE_JOB, QUEUE_JOB_OPTIONS, Option
from .settings import Config, ConnectionSettings, DatabaseName, ServingRules, TargetSettings, WorkerSettings
from .targets import ANY, TargetRules, completed
from .values import shown, socket_path, unset

__all__ = ["Config", "ConnectionSettings", "DatabaseName", "TargetSettings", "WorkerSettings", "load"]

T = TypeVar("T")

_PREFIX = "QJSUPERVISOR_"
#: What Kubernetes puts into the environment of every pod beside a Service named 'qjsupervisor'.
_KUBERNETES = re.compile(r"QJSUPERVISOR_(SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_.*)")


def load(argv_options: Mapping[str, str], environ: Mapping[str, str]) -> Config:
    """Build the configuration anew. Raises ConfigError.

    `argv_options`: option name -> text, for names of `OPTIONS` and 'config' (the file).
    """
    sources = Sources(argv_options, environ, odooconf.read(argv_options.get("config"), environ))
    sources.refuse_unknown()
    return _build(sources)


@dataclass(frozen=True, slots=True)
class Found:
    """One text and where it stood."""

    text: str
    place: str
    #: It comes from a fallback in [options].
    borrowed: bool = False


@dataclass(frozen=True, slots=True)
class Sources:
    """All places where an option can be set."""

    argv: Mapping[str, str]
    environ: Mapping[str, str]
    file: OdooFile

    def get(self, option: Option[T]) -> T:
        """The option's value from the strongest place that says anything."""
        found = self.find(option)
        if found is None:
            return option.default
        try:
            return option.parse(found.text)
        except ValueError as error:
            raise ConfigError(option.name, f"{found.place}: {error}") from None

    def find(self, option: Option[Any]) -> Found | None:
        """The option's text from the strongest place; None where nobody says anything."""
        if option.section == OWN and not unset(text := self.argv.get(option.name)):
            return Found(text or "", str(option.flag))
        if option.variable and not unset(text := self.environ.get(option.variable)):
            return Found(text or "", f"environment variable {option.variable}")
        keys = [(option.section, option.name), *((ODOO, key) for key in option.fallbacks)]
        for section, key in keys:
            if (text := self.file.get(section, key)) is not None:
                return Found(text, f"{self.file.path}: [{section}] {key}", borrowed=key != option.name)
        return None

    def refuse_unknown(self) -> None:
        """What is written for us and means nothing is a slip that would go unnoticed. Raises ConfigError."""
        names = [option.name for option in OPTIONS]
        for name in self.argv:
            if name not in ("config", *names):
                raise ConfigError(name, f"--{name.replace('_', '-')}: no such option{_instead(name, names)}")
        for key in self.file.keys(OWN):
            if key not in names:
                raise ConfigError(key, f"{self.file.path}: [{OWN}] {shown(key)}: {_unknown_key(key, names)}")
        for name in self.environ:
            key = name.removeprefix(_PREFIX)
            if key == name or key in map(str.upper, names) or _KUBERNETES.fullmatch(name):
                continue
            instead = _instead(key.lower(), names, lambda known: _PREFIX + known.upper())
            raise ConfigError(name, f"environment variable {shown(name)}: no such option{instead}")


def _unknown_key(key: str, names: list[str]) -> str:
    if any(key == option.name for option in QUEUE_JOB_OPTIONS):
        return f"belongs to section [{QUEUE_JOB}]"
    return f"no such option{_instead(key, names)}"


def _instead(name: str, names: list[str], written: Callable[[str], str] = str) -> str:
    """What may stand there: the name that was probably meant, or all of them."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    if near:
        return f"; did you mean {written(near[0])}?"
    return f"; allowed: {', '.join(map(written, names))}"


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
        template=get(options.DB_TEMPLATE),
        mode=mode,
        channels=channels,
        max_capacity=max_capacity,
        db_max_capacity=get(options.DB_MAX_CAPACITY),
        targets=_targets(sources),
        fairness=Fairness(get(options.FAIRNESS)),
        fairness_weights=get(options.FAIRNESS_WEIGHTS),
        upgrade_timeout_s=get(options.UPGRADE_TIMEOUT),
        rules=_rules(sources, channels),
        rescan_interval_s=get(options.RESCAN_INTERVAL),
        reconcile_interval_s=get(options.RECONCILE_INTERVAL),
        graceful_timeout_s=get(options.GRACEFUL_TIMEOUT),
        connect_timeout_s=get(options.CONNECT_TIMEOUT),
        read_timeout_s=get(options.READ_TIMEOUT),
        boot_timeout_s=get(options.BOOT_TIMEOUT),
        hang_timeout_s=get(options.HANG_TIMEOUT),
        dead_after_restart_s=get(options.DEAD_AFTER_RESTART),
        leader_timeout_s=get(options.LEADER_TIMEOUT),
        window=get(options.WINDOW),
        max_databases=get(options.MAX_DATABASES),
        control_socket=get(options.CONTROL_SOCKET) or _default_socket(sources.environ),
        pidfile=get(options.PIDFILE),
        log_file=get(options.LOG_FILE),
        log_level=get(options.LOG_LEVEL),
        log_format=get(options.LOG_FORMAT),
        monitor=get(options.MONITOR),
        warnings=tuple(_warnings(sources, mode)),
    )


def _channels(sources: Sources) -> tuple[Mode, tuple[ChannelSpec, ...], int | None]:
    """As queue_job decides it: channels go before max_capacity; without either, one job at a time."""
    channels, max_capacity = sources.get(options.CHANNELS), sources.get(options.MAX_CAPACITY)
    if channels is not None:
        return Mode.SERVER_WIDE, channels, max_capacity
    if max_capacity is not None:
        return Mode.PER_DATABASE, (ChannelSpec(name=ROOT, capacity=max_capacity),), max_capacity
    return Mode.DEFAULT, (ChannelSpec(name=ROOT, capacity=1),), None


def _rules(sources: Sources, channels: tuple[ChannelSpec, ...]) -> ServingRules:
    limits = {spec.name: spec.max_runtime_s for spec in channels if spec.max_runtime_s is not None}
    channel_options = sources.get(options.CHANNEL_OPTIONS)
    return ServingRules(
        serve_neutralized=sources.get(options.SERVE_NEUTRALIZED),
        max_runtimes={**limits, **dict(channel_options)},
        max_runtime_action=sources.get(options.MAX_RUNTIME_ACTION),
    )


def _connection(sources: Sources) -> ConnectionSettings:
    own: dict[str, Option[Any]] = {
        "host": options.DB_HOST,
        "port": options.DB_PORT,
        "user": options.DB_USER,
        "password": options.DB_PASSWORD,
    }
    return ConnectionSettings(
        host=sources.get(options.DB_HOST),
        port=sources.get(options.DB_PORT),
        user=sources.get(options.DB_USER),
        password=sources.get(options.DB_PASSWORD),
        sslmode=sources.get(options.DB_SSLMODE),
        connect_timeout_s=sources.get(options.CONNECT_TIMEOUT),
        before_uri=tuple(
            name for name, option in own.items() if (found := sources.find(option)) and not found.borrowed
        ),
    )


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
    """The run-time directory: what systemd gave us, else the usual one of root or of the user."""
    directory = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if not directory and os.geteuid() == 0:
        directory = "/run/qjsupervisor"
    if not directory and environ.get("XDG_RUNTIME_DIR"):
        directory = os.path.join(environ["XDG_RUNTIME_DIR"], "qjsupervisor")
    # Whoever opens it makes sure that the directory is the user's own.
    directory = directory or f"/tmp/qjsupervisor-{os.geteuid()}"  # nosec B108
    try:
        return socket_path(os.path.join(directory, "control.sock"))
    except ValueError as error:
        raise ConfigError(
            "control_socket", f"the default of control_socket cannot be used: {error}; set control_socket"
        ) from None


def _warnings(sources: Sources, mode: Mode) -> Iterable[str]:
    """What is written but has no effect."""
    known = [option.name for option in QUEUE_JOB_OPTIONS]
    for key in sources.file.keys(QUEUE_JOB):
        if key not in known:
            yield f"{sources.file.path}: [{QUEUE_JOB}] {shown(key)} is not known here and has no effect"
    for option in (options.MAX_CAPACITY, options.DB_MAX_CAPACITY):
        if mode is Mode.SERVER_WIDE and (found := sources.find(option)):
            yield f"{found.place} has no effect: the channels are set for all databases together"
    if mode is Mode.DEFAULT and (found := sources.find(options.DB_MAX_CAPACITY)):
        yield f"{found.place}: without max_capacity one job runs at once over all databases, whatever it allows"
    if (found := sources.find(options.HTTP_AUTH_PASSWORD)) and not sources.get(options.HTTP_AUTH_USER):
        yield f"{found.place} has no effect without http_auth_user"
