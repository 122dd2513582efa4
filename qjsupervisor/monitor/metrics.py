"""Renders status and statistics as Prometheus metrics, with a new collector and registry per scrape.

Metric names are an interface: add, never rename. docs/metrics.md lists them, and a test compares. A family is
labelled by database or by channel, never both, so that its size stays that of one of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from ..states import JobOutcome, Wakefulness, WorkerState
from ..table.statistics import Histogram, Totals
from ..text import printable
from .health import problems
from .measures import CHANNEL, DATABASE, TARGET, Measure, View
from .processes import Process
from .waiting import WaitingJobs, by_reason, desired_workers

PREFIX = "qjsupervisor_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


_STATUS_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


class MetricSources(NamedTuple):
    """The data the metrics are made from; `status` is None if the master did not answer."""

    status: View | None
    totals: Totals | None = None
    cells: Sequence[WaitingJobs] = ()
    processes: Sequence[Process] = ()


class StatusCollector(Collector):
    """The metrics at one moment."""

    def __init__(self, facts: MetricSources) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families."""
        status, totals = self._facts.status, self._facts.totals
        up = 0.0 if status is None else 1.0
        yield GaugeMetricFamily(PREFIX + "up", "1 while the master answers.", value=up)
        if totals is not None:
            yield from _of_totals(totals)
        if self._facts.processes:
            yield from _of_processes(self._facts.processes)
        if status is None:
            return
        yield from _of_supervisor(status)
        yield from _of_waiting(status, self._facts.cells)
        databases = status.get("databases", ())
        yield _up("database_up", "1 while the database's worker is ready.", "name", "ready", databases)
        yield _states(databases)
        yield _phases(databases)
        yield from _families(DATABASE, "database", "name", databases)
        yield _outcomes_of(databases)
        yield from _families(CHANNEL, "channel", "name", status.get("channels", ()))
        targets = targets_of(status)
        yield _up("target_up", "1 while Odoo answers at that address.", "url", "up", targets)
        yield from _families(TARGET, "url", "url", targets)
        servers = status.get("postgresql", ())
        yield _up("postgresql_up", "1 unless workers cannot connect to it.", "server", "up", servers)


def content_type(accept: str) -> str:
    """The content type to answer an Accept header with."""
    return OPENMETRICS_TYPE if "application/openmetrics-text" in accept else CONTENT_TYPE


def render(facts: MetricSources, kind: str = CONTENT_TYPE) -> bytes:
    """The text for Prometheus in one of the content types."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(facts))
    if kind == OPENMETRICS_TYPE:
        text: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]  # it has no types
        return text
    return generate_latest(registry)


def targets_of(status: View) -> list[View]:
    """All targets, one per address."""
    views = [*status.get("targets", ()), status.get("target") or {}]
    return list({view["url"]: view for view in reversed(views) if view.get("url")}.values())[::-1]


def _of_supervisor(status: View) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        PREFIX + "info", "Always 1: version, mode and fairness.", labels=("version", "mode", "fairness")
    )
    info.add_metric([str(status.get(key)) for key in ("version", "mode", "fairness")], 1)
    yield info
    slots, reloads = status.get("slots") or {}, status.get("reloads") or {}
    for name, text, value in (
        ("uptime_seconds", "Time since the master's start.", status.get("uptime_s")),
        ("problems", "Problems that keep jobs from running: the lines of /healthz.", len(problems(status))),
        ("pauses", "Pauses ordered by operators.", len(status.get("pauses", ()))),
        ("slots_used", "Databases that have a slot in the shared table.", slots.get("used")),
        (
            "slots_limit",
            "Slots in the shared table: max_databases, or fewer if descriptors are limited.",
            slots.get("limit"),
        ),
        (
            "scan_age_seconds",
            "Time since the last completed scan for databases.",
            status.get("scan_age_s"),
        ),
        ("config_last_reload_successful", "1 unless the last reload was refused.", reloads.get("last_successful")),
        (
            "config_last_reload_success_timestamp_seconds",
            "When the current configuration was read.",
            reloads.get("last_success_at"),
        ),
    ):
        if value is not None:
            yield GaugeMetricFamily(PREFIX + name, text, value=_number(value, 0.0))
    yield from _of_rules(status.get("rules") or {})
    yield from _of_schedule(status.get("schedule") or {})
    yield CounterMetricFamily(
        PREFIX + "log_lines_lost",
        "Log lines that could not be written.",
        value=_number(status.get("log_lines_lost"), 0.0),
    )
    if reloads:
        family = CounterMetricFamily(
            PREFIX + "config_reloads", "Reloads by result: success or refused.", labels=("result",)
        )
        for result in ("success", "refused"):
            family.add_metric([result], float(reloads.get(result) or 0))
        yield family


def _of_rules(rules: View) -> Iterator[Metric]:
    if rules:
        text = "Seconds a job waits longer per step of priority; 0: no ageing."
        yield GaugeMetricFamily(PREFIX + "ageing_seconds", text, value=_number(rules.get("ageing_s"), 0.0))
    longest = rules.get("max_runtimes") or {}
    if longest:
        text = "How long a job of the channel and its subchannels may run."
        family = GaugeMetricFamily(PREFIX + "channel_max_runtime_seconds", text, labels=("channel",))
        for channel, seconds in longest.items():
            family.add_metric([printable(channel)], float(seconds))
        yield family


def _of_schedule(schedule: View) -> Iterator[Metric]:
    if not schedule:
        return
    family = GaugeMetricFamily(
        PREFIX + "schedule_limit", "The schedule's current limit of the channel; 0: closed.", labels=("channel",)
    )
    for limit in schedule.get("limits", ()):
        family.add_metric([printable(limit.get("channel"))], _number(limit.get("limit"), 0.0) or 0.0)
    yield family
    for change in list(schedule.get("next", ()))[:1]:
        text, in_s = "Time until the schedule's next change.", _number(change.get("in_s"), 0.0)
        yield GaugeMetricFamily(PREFIX + "schedule_next_change_seconds", text, value=in_s)


def _of_waiting(status: View, cells: Sequence[WaitingJobs]) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        PREFIX + "pending", "Waiting jobs over all databases, by the first reason that applies.", labels=("reason",)
    )
    for reason, number in by_reason(status, cells).items():
        family.add_metric([reason], number)
    yield family
    yield GaugeMetricFamily(
        PREFIX + "desired_workers",
        "Running jobs plus those that could start now: the workers Odoo should have.",
        value=desired_workers(status, cells),
    )


def _of_totals(totals: Totals) -> Iterator[Metric]:
    family = CounterMetricFamily(
        PREFIX + "jobs", "Jobs over all databases whose request ended, by outcome.", labels=("outcome",)
    )
    for outcome in JobOutcome:
        family.add_metric([outcome.name.lower()], totals.outcomes[outcome])
    yield family
    family = CounterMetricFamily(
        PREFIX + "responses", "Ended requests by Odoo's HTTP status; none: no answer.", labels=("status",)
    )
    for status, number in zip(_STATUS_CLASSES, totals.statuses, strict=True):
        family.add_metric([status], number)
    yield family
    waited = HistogramMetricFamily(
        PREFIX + "job_wait_seconds", "From when a job was due (its eta, else its creation) to its dispatch."
    )
    waited.add_metric([], *_buckets(totals.waited))
    yield waited
    durations = HistogramMetricFamily(
        PREFIX + "job_duration_seconds", "From a job's dispatch to the end of its request.", labels=("outcome",)
    )
    for outcome in JobOutcome:
        durations.add_metric([outcome.name.lower()], *_buckets(totals.durations[outcome]))
    yield durations


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """(cumulative buckets, sum) in prometheus_client's form."""
    found, total = [], 0
    for bound, number in zip((*map(str, histogram.bounds_s), "+Inf"), histogram.counts, strict=True):
        total += number
        found.append((bound, float(total)))
    return found, histogram.sum_s


def _of_processes(processes: Sequence[Process]) -> Iterator[Metric]:
    for name, text, counter, values in (
        (
            "processes",
            "Processes by kind: master, monitor, worker, and porter where there is one.",
            False,
            [each.number for each in processes],
        ),
        ("process_cpu_seconds", "Processor time, ended workers included.", True, [each.cpu_s for each in processes]),
        (
            "process_resident_memory_bytes",
            "Resident memory; what processes share counts in each.",
            False,
            [each.rss for each in processes],
        ),
        ("process_open_fds", "Open file descriptors.", False, [each.fds for each in processes]),
    ):
        family_class = CounterMetricFamily if counter else GaugeMetricFamily
        family = family_class(PREFIX + name, text, labels=("kind",))
        for process, value in zip(processes, values, strict=True):
            if value is not None:
                family.add_metric([process.kind], value)
        yield family


def _up(name: str, text: str, key: str, fine: str, views: Sequence[View]) -> Metric:
    """1 for views in the state `fine`, else 0; targets not asked yet are left out."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=("database" if key == "name" else key,))
    for view in views:
        if view.get("state") != "unknown":
            family.add_metric([printable(view.get(key))], 1.0 if view.get("state") == fine else 0.0)
    return family


def _phases(databases: Sequence[View]) -> Metric:
    family = GaugeMetricFamily(
        PREFIX + "databases_in_phase",
        "Databases that are awake (with a worker), dozing or asleep (without).",
        labels=("phase",),
    )
    for phase in Wakefulness:
        family.add_metric([phase.value], sum(view.get("phase") == phase.value for view in databases))
    return family


def _states(databases: Sequence[View]) -> Metric:
    family = GaugeMetricFamily(
        PREFIX + "database_state",
        "1 for the state that the database's worker is in, 0 for the others.",
        labels=("database", "state"),
    )
    for view in databases:
        for state in WorkerState:
            now = view.get("state") == state.value
            family.add_metric([printable(view.get("name")), state.value.replace(" ", "_")], 1.0 if now else 0.0)
    return family


def _outcomes_of(databases: Sequence[View]) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "database_jobs",
        "Jobs of the database whose request ended, by outcome.",
        labels=("database", "outcome"),
    )
    for view in databases:
        for outcome, number in (view.get("outcomes") or {}).items():
            family.add_metric([printable(view.get("name")), str(outcome)], number)
    return family


def _families(measures: Sequence[Measure], label: str, key: str, views: Sequence[View]) -> Iterator[Metric]:
    for measure in measures:
        family_class = CounterMetricFamily if measure.counter else GaugeMetricFamily
        family = family_class(PREFIX + measure.name, measure.text, labels=(label,))
        missing = math.inf if measure.key == "capacity" else None
        for view in views:
            value = _number(measure.value(view), missing)
            if value is not None:
                family.add_metric([printable(view.get(key))], value)
        yield family


def _number(value: object, missing: float | None) -> float | None:
    return float(value) if isinstance(value, (int, float)) else missing
