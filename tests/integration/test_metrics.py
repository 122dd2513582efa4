"""The metrics as Prometheus reads them, and the rules and the dashboard in conf/ that are made of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.monitor import metrics
from qjsupervisor.monitor.processes import processes_of
from qjsupervisor.monitor.waiting import WaitingJobs
from qjsupervisor.states import Fairness, JobOutcome
from qjsupervisor.table.semaphore import SemaphoreTable

from ..helpers import REPOSITORY
from ..monitor_status import status
from .monitored import StartMonitor

CONF = REPOSITORY / "conf"
_NAME = re.compile(r"\bqjsupervisor_\w+")
_SUFFIXES = re.compile(r"_(bucket|sum|count)$")


def promtool(*arguments: str, text: str | None = None, folder: Path = CONF) -> str:
    """What it says; AssertionError where it finds fault."""
    path = shutil.which("promtool")
    assert path is not None, "there is no promtool: apt-get install prometheus"
    done = subprocess.run(
        [path, *arguments], check=False, input=text, cwd=folder, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def facts(databases: int, channels: int) -> metrics.MetricSources:
    table = SemaphoreTable([ChannelSpec(name="root", capacity=1)], slots=1, fairness=Fairness.ROUND_ROBIN)
    slot = table.worker_slot(0)
    slot.statistics.dispatched(0.3)
    slot.statistics.ended(JobOutcome.DONE, 200, 1.5)
    slot.statistics.ended(JobOutcome.LOST, None, 700.0)
    said = status(databases, channels)
    cells = [
        WaitingJobs(view["name"], channel["name"], 3, 1) for view in said["databases"] for channel in said["channels"]
    ]
    return metrics.MetricSources(said, table.totals(), cells, processes_of(said))


def test_promtool_reads_what_is_served(monitor: StartMonitor) -> None:
    text = monitor(status(20)).get("/metrics").text
    assert "qjsupervisor_job_wait_seconds_bucket" in text
    promtool("check", "metrics", text=text)


def test_openmetrics_for_who_asks_for_it(monitor: StartMonitor) -> None:
    answer = monitor(status(3)).get("/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert answer.headers["Content-Type"] == metrics.OPENMETRICS_TYPE
    families = {family.name for family in read_openmetrics(answer.text)}  # type: ignore[no-untyped-call]
    assert {"qjsupervisor_up", "qjsupervisor_jobs", "qjsupervisor_job_duration_seconds"} <= families


def test_histograms_and_counters() -> None:
    lines = metrics.render(facts(1, 1)).decode().splitlines()
    for line in (
        'qjsupervisor_job_wait_seconds_bucket{le="0.25"} 0.0',
        'qjsupervisor_job_wait_seconds_bucket{le="0.5"} 1.0',
        'qjsupervisor_job_wait_seconds_bucket{le="+Inf"} 1.0',
        "qjsupervisor_job_wait_seconds_count 1.0",
        'qjsupervisor_job_duration_seconds_bucket{le="2.5",outcome="done"} 1.0',
        'qjsupervisor_job_duration_seconds_sum{outcome="lost"} 700.0',
        'qjsupervisor_jobs_total{outcome="done"} 1.0',
        'qjsupervisor_jobs_total{outcome="retried"} 0.0',
        'qjsupervisor_responses_total{status="2xx"} 1.0',
        'qjsupervisor_responses_total{status="none"} 1.0',
        'qjsupervisor_pending{reason="not_due"} 1.0',
        "qjsupervisor_desired_workers 20.0",
        "qjsupervisor_slots_limit 512.0",
        "qjsupervisor_config_last_reload_successful 0.0",
        'qjsupervisor_processes{kind="master"} 1.0',
    ):
        assert line in lines, line


def test_it_grows_by_databases_and_by_channels_and_not_by_both() -> None:
    def size(databases: int, channels: int) -> int:
        return len(metrics.render(facts(databases, channels)).splitlines())

    one = size(10, 10)
    more_databases, more_channels = size(20, 10) - one, size(10, 20) - one
    assert size(20, 20) == one + more_databases + more_channels


def test_each_alert_is_tested_and_fires() -> None:
    promtool("check", "rules", "prometheus-rules.yml")
    promtool("test", "rules", "prometheus-rules.test.yml")
    alerts = re.findall(r"alert: (\w+)", (CONF / "prometheus-rules.yml").read_text())
    tests = re.findall(r"name: (\w+) (fires|is silent)", (CONF / "prometheus-rules.test.yml").read_text())
    assert tests == [(alert, what) for alert in alerts for what in ("fires", "is silent")]


@pytest.mark.parametrize("file", ["prometheus-rules.yml", "grafana-dashboard.json"])
def test_what_is_asked_for_is_exported(file: str) -> None:
    families = metrics.StatusCollector(facts(2, 2)).collect()
    exported = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    asked = {_SUFFIXES.sub("", name) for name in _NAME.findall((CONF / file).read_text())}
    assert asked <= exported


def test_the_dashboard_is_one() -> None:
    dashboard: dict[str, Any] = json.loads((CONF / "grafana-dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    assert all(target["expr"] for panel in panels for target in panel["targets"])
