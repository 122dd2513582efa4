"""`status` as Prometheus metrics: a collector of its own registry, made anew for each scrape.

The names are an interface: add, do not rename. README lists them, and a test compares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..states import WorkerState
from ..text import printable

PREFIX = "qjsupervisor_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Measure(NamedTuple):
    """One metric: `key` is where its value is in the status; a counter's name gets `_total`."""

    name: str
    key: str
    text: str
    counter: bool = False


DATABASE = (
    Measure("database_pending", "pending", "Jobs that wait, whatever for."),
    Measure("database_running", "running", "Jobs that Odoo was asked for and that are not over."),
    Measure("database_failed", "failed", "Jobs in state failed."),
    Measure("database_dispatched", "dispatched", "Jobs that Odoo was asked for.", counter=True),
    Measure("database_restarts", "restarts", "Restarts of the database's worker.", counter=True),
    Measure("database_heartbeat_age_seconds", "heartbeat_age_s", "Time since the worker's last turn."),
    Measure("database_wait_seconds", "wait_s", "How long the database's best job has waited for a permit."),
    Measure("database_overdue", "overdue", "Jobs that run for longer than max_runtime of their channel."),
    Measure(
        "database_modules_seconds", "modules_for_s", "How long a module has been half installed; jobs wait for it."
    ),
    Measure("database_upgrade_overdue", "upgrade_overdue", "1 while that takes longer than upgrade_timeout."),
)
CHANNEL = (
    Measure("channel_capacity", "capacity", "Jobs that may run at once; +Inf: no limit of its own."),
    Measure("channel_running", "running", "Jobs that run in the channel and below it."),
    Measure("channel_pending", "pending", "Jobs that wait in the channel and below it."),
    Measure("channel_failed", "failed", "Jobs in state failed in the channel and below it."),
    Measure("channel_paused", "paused", "1 while the channel is paused."),
)
TARGET = (
    Measure("target_failures", "failures", "Failed requests since the last one that succeeded."),
    Measure("target_retry_seconds", "retry_in_s", "Time until a target that is down is asked again."),
)


class StatusCollector(Collector):
    """Metrics of one status; None stands for a master that did not answer."""

    def __init__(self, status: Mapping[str, Any] | None) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """The families of prometheus_client."""
        up = 0.0 if self._status is None else 1.0
        yield GaugeMetricFamily(PREFIX + "up", "1 while the master answers.", value=up)
        if self._status is None:
            return
        yield from _of_supervisor(self._status)
        databases = self._status.get("databases", ())
        yield _up("database_up", "1 while the database's worker is ready.", "name", "ready", databases)
        yield _states(databases)
        yield from _families(DATABASE, "database", "name", databases)
        yield from _families(CHANNEL, "channel", "name", self._status.get("channels", ()))
        targets = targets_of(self._status)
        yield _up("target_up", "1 while Odoo answers at that address.", "url", "up", targets)
        yield from _families(TARGET, "url", "url", targets)


def render(status: Mapping[str, Any] | None) -> bytes:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status))
    return generate_latest(registry)


def targets_of(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All targets; one of each address, the first seen."""
    views = [*status.get("targets", ()), status.get("target") or {}]
    return list({view["url"]: view for view in reversed(views) if view.get("url")}.values())[::-1]


def _of_supervisor(status: Mapping[str, Any]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        PREFIX + "info", "Always 1: version, mode and fairness.", labels=("version", "mode", "fairness")
    )
    info.add_metric([str(status.get(key)) for key in ("version", "mode", "fairness")], 1)
    yield info
    yield GaugeMetricFamily(
        PREFIX + "uptime_seconds",
        "Time since the master's start.",
        value=_number(status.get("uptime_s"), 0.0),
    )
    yield CounterMetricFamily(
        PREFIX + "log_lines_lost",
        "Lines of the master's log that could not be written.",
        value=_number(status.get("log_lines_lost"), 0.0),
    )


def _up(name: str, text: str, key: str, fine: str, views: Sequence[Mapping[str, Any]]) -> Metric:
    """1 where the state is the fine one; a target that was not asked yet is left out."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=("database" if key == "name" else key,))
    for view in views:
        if view.get("state") != "unknown":
            family.add_metric([printable(view.get(key))], 1.0 if view.get("state") == fine else 0.0)
    return family


def _states(databases: Sequence[Mapping[str, Any]]) -> Metric:
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


def _families(
    measures: Sequence[Measure], label: str, key: str, views: Sequence[Mapping[str, Any]]
) -> Iterator[Metric]:
    for measure in measures:
        family_class = CounterMetricFamily if measure.counter else GaugeMetricFamily
        family = family_class(PREFIX + measure.name, measure.text, labels=(label,))
        missing = math.inf if measure.key == "capacity" else None
        for view in views:
            value = _number(view.get(measure.key), missing)
            if value is not None:
                family.add_metric([printable(view.get(key))], value)
        yield family


def _number(value: object, missing: float | None) -> float | None:
    return float(value) if isinstance(value, (int, float)) else missing
