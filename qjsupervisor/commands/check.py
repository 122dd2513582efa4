"""`check`: says what would run, what would not, and why. Changes nothing and needs no running supervisor.

Asks each Odoo once per database for a job that does not exist: this runs nothing but leaves a line in Odoo's log.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from ..channelspec import ChannelSpec
from ..config.load import Config
from ..config.schedule import limit_text
from ..config.settings import DATABASE, Origin, TargetSettings
from ..errors import DatabaseError
from ..master.places import check_state_dir, refuse_unfit
from ..master.state_file import path_of
from ..states import Mode
from ..text import UPGRADE_TIMEOUT_S, channel_settings, seconds
from . import client
from .check_cluster import check_cluster
from .check_databases import DatabaseReport, check_databases, that_run
from .check_odoo import check_odoo_settings, duplicates
from .check_server import check_server
from .check_shares import about_db_capacity, about_minimums, about_shares
from .check_target import TargetReport, check_target
from .findings import Finding, Level, note, problem, warning
from .output import console, print_json, print_line, table

_EXIT_SOMETHING_WOULD_NOT_RUN = 1
_PARALLEL = 8
#: Upcoming schedule changes shown.
_CHANGES = 3
#: Most databases named in one line.
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All findings."""

    config: Config
    databases: Sequence[DatabaseReport] = ()
    targets: Sequence[TargetReport] = ()
    findings: Sequence[Finding] = field(default_factory=list)

    @property
    def is_fine(self) -> bool:
        """Whether everything that should run would run."""
        levels = [*(each.level for each in self.findings), *(each.finding.level for each in self.targets)]
        return Level.PROBLEM not in levels and not any(each.is_problem for each in self.databases)


def run(config: Config, *, as_json: bool) -> int:
    """Check everything and print the report; exit status 1 if something would not run.

    Raises ConfigError where `start` would. A running supervisor proves that it can start, but for a changed state_dir.
    """
    status = client.status_or_none(config)
    if status is None:
        refuse_unfit(config)
    elif (status.get("state_file") or {}).get("path") != path_of(config):
        check_state_dir(config)
    report = gather(config)
    if as_json:
        print_json(document(report))
    else:
        _print(report)
    return 0 if report.is_fine else _EXIT_SOMETHING_WOULD_NOT_RUN


def gather(config: Config) -> Report:
    """Query PostgreSQL and Odoo; blocks, each query with its own deadline."""
    findings = [warning(text) for text in config.warnings]
    databases: list[DatabaseReport] = []
    try:
        databases = check_databases(config)
    except DatabaseError as error:
        findings.append(problem(f"the databases cannot be listed: {error}"))
    else:
        findings += _about_databases(config, databases)
    findings.append(note(_about_mode(config, databases)))
    if config.channels[0].capacity == 0:
        findings.append(problem("root has capacity 0: nothing would run"))
    findings += [*_about_schedule(config), *_about_rules(config), *about_shares(config), *_about_kept(config)]
    findings += check_odoo_settings(config)
    findings += check_cluster(config)
    answers = _ask_targets(config, [each.name for each in that_run(databases)])
    findings += _about_supervisor(config)
    return Report(config=config, databases=databases, targets=answers, findings=findings)


def _about_databases(config: Config, databases: Sequence[DatabaseReport]) -> Iterator[Finding]:
    running = [each.name for each in that_run(databases)]
    if not running:
        where = "named by db_name" if config.db_names else "that the connecting role owns"
        yield problem(f"no database would be served, of {len(databases)} {where}")
    yield from duplicates((each.name, each.uuid) for each in that_run(databases))
    yield from check_server(config, running)
    yield from about_minimums(config, running)
    yield from about_db_capacity(config, running)


def _about_mode(config: Config, databases: Sequence[DatabaseReport]) -> str:
    """Which channels apply, and why."""
    if config.mode is Mode.SERVER_WIDE:
        return f"mode {config.mode.value}: `channels` is set, and holds for all databases together"
    if config.mode is Mode.PER_DATABASE:
        return (
            f"mode {config.mode.value}: max_capacity is set and `channels` is not: each database has the channels that"
            f" are set up in it, and {config.max_capacity} jobs run at once over all"
        )
    own = sum(bool(each.channels) for each in databases)
    return (
        f"mode {config.mode.value}: neither `channels` nor max_capacity is set: one job runs at once over all"
        f" databases, and {own} of {len(databases)} have channels of their own (those with queue_job 18.0.4 or later)"
    )


def _about_rules(config: Config) -> Iterator[Finding]:
    """What happens to jobs that run too long, and to neutralised copies."""
    rules = config.rules
    if rules.max_runtimes:
        limits = ", ".join(f"{name} {seconds(limit_s)}" for name, limit_s in rules.max_runtimes.items())
        ends = (
            "its session is ended, for which the role needs pg_signal_backend or has to be Odoo's"
            if rules.max_runtime_action == "terminate"
            else "it is reported, and runs on (max_runtime_action = warn)"
        )
        yield note(f"max_runtime: {limits}; where a job runs for longer, {ends}")
    if config.upgrade_timeout_s != UPGRADE_TIMEOUT_S:
        after = seconds(config.upgrade_timeout_s)
        yield note(f"upgrade_timeout: a module in transition, for which jobs wait, is reported after {after}")
    if rules.serve_neutralized:
        yield warning("serve_neutralized = yes: neutralised copies of databases run their jobs, as production does")


def _about_kept(config: Config) -> Iterator[Finding]:
    if config.state_dir is not None:
        yield note(f"pauses, known databases and the starts of rates are kept over restarts in {path_of(config)}")


def _about_schedule(config: Config) -> Iterator[Finding]:
    """The limits that apply now, and the next changes."""
    schedule, now_s = config.schedule, time.time()
    if not schedule.windows:
        return
    now = schedule.local(now_s)
    held = [
        f"{channel} {limit_text(limit.limit, None if limit.until_s is None else schedule.local(limit.until_s), now)}"
        for channel, limit in schedule.limits(now_s).items()
    ]
    coming = [
        f"{schedule.local(change.at_s):%a %Y-%m-%d %H:%M} {change.channel} {limit_text(change.limit)}"
        for change in islice(schedule.changes(now_s), _CHANGES)
    ]
    whose = "" if config.mode is Mode.SERVER_WIDE else "; root is over all databases, other channels are those of each"
    yield note(
        f"schedule in {schedule.timezone}{whose}: now {', '.join(held) or 'all is open'};"
        f" then {', '.join(coming) or 'nothing changes'}"
    )


def _about_supervisor(config: Config) -> Iterator[Finding]:
    status = client.status_or_none(config)
    if status is None:
        yield note(f"no supervisor runs here (control socket {config.control_socket})")
    else:
        yield note(f"a supervisor runs, process {status.get('pid')}")
    if config.holds_new:
        waiting = [str(view.get("name")) for view in (status or {}).get("databases", ()) if view.get("held")]
        some = f" Waiting now: {_named(waiting)}." if waiting else ""
        yield note(
            "new_databases = hold: a database that appears after the start, or is made anew, is not served before"
            f" `qjsupervisor resume DATABASE`.{some}"
        )


def _ask_targets(config: Config, databases: Sequence[str]) -> list[TargetReport]:
    """Ask each Odoo about each of its databases; equal answers are reported once.

    If no database is known, each Odoo is asked once without one.
    """
    asked: list[tuple[TargetSettings, str | None]]
    asked = [(target, name) for name in databases for target in config.targets_for(name)]
    if not databases:
        every = dict.fromkeys(target for _, targets in config.targets for target in targets)
        asked = [(target, None) for target in every if DATABASE not in target.url]
    timeout_s, dbfilter = config.connect_timeout_s, config.odoo.dbfilter
    with ThreadPoolExecutor(_PARALLEL) as pool:
        answers = list(pool.map(lambda each: check_target(each[0], timeout_s, each[1], dbfilter), asked))
    found: dict[tuple[str, Finding], TargetReport] = {}
    for answer in answers:
        key = (answer.url, answer.finding)
        known = found.get(key, answer._replace(databases=()))
        found[key] = known._replace(databases=(*known.databases, *answer.databases))
    return list(found.values())


def _ageing(config: Config) -> str:
    """What ageing does, if it is on."""
    ageing_s = config.rules.ageing_s
    if not ageing_s:
        return ""
    return (
        f", ageing: a job goes before one of a priority better by 1 that is created more than {seconds(ageing_s)} later"
    )


def document(report: Report) -> dict[str, Any]:
    """The JSON report, without passwords. Its keys are an interface: add, never rename."""
    return {
        "ok": report.is_fine,
        "configuration": _configuration(report.config),
        "databases": [
            {
                "name": each.name,
                "outcome": each.outcome.value,
                "reason": each.reason,
                "problem": each.is_problem,
                "warnings": list(each.warnings),
                "channels": [asdict(spec) for spec in each.channels],
                "targets": [target.url for target in report.config.targets_for(each.name)],
            }
            for each in report.databases
        ],
        "targets": [
            {"url": each.url, "state": each.state, "text": each.finding.text, "databases": list(each.databases)}
            for each in report.targets
        ],
        "findings": [{"level": each.level.value, "text": each.text} for each in report.findings],
    }


def _configuration(config: Config) -> Mapping[str, Any]:
    monitor = config.monitor
    return {
        "file": config.config_file,
        "mode": config.mode.value,
        "fairness": config.fairness.value,
        "ageing_s": config.rules.ageing_s or None,
        "max_runtime_action": config.rules.max_runtime_action,
        "db_capacity": [{"databases": glob, **asdict(share)} for glob, share in config.db_shares],
        "serve_neutralized": config.rules.serve_neutralized,
        "schedule": [window._asdict() for window in config.schedule.windows],
        "timezone": config.schedule.timezone,
        "schedule_next": [
            {"at": config.schedule.local(change.at_s).isoformat(), "channel": change.channel, "limit": change.limit}
            for change in islice(config.schedule.changes(time.time()), _CHANGES)
        ],
        "new_databases": "hold" if config.holds_new else "serve",
        "state_file": path_of(config),
        "upgrade_timeout_s": config.upgrade_timeout_s,
        "channels": [asdict(spec) for spec in config.channels],
        "channel_options": [asdict(spec) for spec in config.rules.channel_options],
        "max_capacity": config.max_capacity,
        "db_names": [entry.name for entry in config.db_names],
        "database_host": config.connection.host,
        "database_port": config.connection.port,
        "database_user": config.connection.user,
        "control_socket": config.control_socket,
        "odoo_version": config.odoo.version,
        "origins": [origin._asdict() for origin in config.origins],
        "monitor": None if monitor is None else f"{monitor[0]}:{monitor[1]}",
    }


def _print(report: Report) -> None:
    _print_configuration(report.config)
    rows = [
        (each.name, each.outcome.value, "; ".join([*filter(None, [each.reason]), *each.warnings]))
        for each in report.databases
    ]
    if rows:
        console().print(table("Databases", ("database", "outcome", "*why"), rows))
    for each in report.databases:
        if each.channels:
            console().print(table(f"Channels of {each.name}", _CHANNEL_COLUMNS, map(_channel, each.channels)))
    answers = [(each.url, each.state, _named(each.databases), each.finding.text) for each in report.targets]
    console().print(table("Odoo", ("*address", "state", "*databases", "*what its answer means"), answers))
    findings = [(each.level.value, each.text) for each in report.findings]
    console().print(table("Findings", ("level", "*what"), findings))
    print_line("all that should run would run" if report.is_fine else "something would not run: see above")


def _text_of(origin: Origin) -> str:
    return "(not shown)" if origin.text is None else origin.text


def _place_of(origin: Origin, config: Config) -> str:
    """The place without the file's name, which is printed once above."""
    return origin.place.removeprefix(f"{config.config_file}: ")


def _named(databases: Sequence[str]) -> str:
    more = len(databases) - _NAMED
    return ", ".join(databases[:_NAMED]) + (f" and {more} more" if more > 0 else "")


_CHANNEL_COLUMNS = ("channel", ">capacity", "*settings")


def _print_configuration(config: Config) -> None:
    print_line(f"configuration: {config.config_file or 'no file, defaults and environment only'}")
    connection = config.connection
    where = f"{connection.host or '(socket)'}:{connection.port or 5432}"
    print_line(f"PostgreSQL: {where}, role {connection.user or '(as the system user)'}")
    version = config.odoo.version
    environ = "before its file" if config.odoo.reads_environment else "by libpq only"
    print_line(f"Odoo: {version or 'unknown version'} ({config.odoo.version_from}); its environment is read {environ}")
    origins = [(each.name, _text_of(each), _place_of(each, config)) for each in config.origins if each.is_set]
    if origins:
        title = "Values and where they come from (all others: default)"
        console().print(table(title, ("key", "*value", "*from"), origins))
    print_line(f"mode: {config.mode.value}, fairness: {config.fairness.value}{_ageing(config)}")
    console().print(table("Channels", _CHANNEL_COLUMNS, map(_channel, config.channels)))


def _channel(spec: ChannelSpec) -> tuple[str, object, str]:
    return spec.name, "no limit" if spec.capacity is None else spec.capacity, ", ".join(channel_settings(asdict(spec)))
