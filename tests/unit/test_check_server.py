"""Whether a PostgreSQL has enough connections, and the system enough descriptors."""

from __future__ import annotations

import pytest

from qjsupervisor.commands.check_server import Connections, judge_connections, judge_descriptors, judge_sleep
from qjsupervisor.commands.findings import Level
from qjsupervisor.config.load import load


@pytest.mark.parametrize(
    ("server", "databases", "levels"),
    [
        (Connections(100, 3, -1, 20), 10, []),
        (Connections(100, 3, -1, 80), 10, [Level.WARNING]),
        (Connections(100, 3, -1, 0), 98, [Level.PROBLEM]),
        (Connections(100, 3, 10, 0), 10, [Level.WARNING]),
    ],
)
def test_connections(server: Connections, databases: int, levels: list[Level]) -> None:
    assert [finding.level for finding in judge_connections(server, databases)] == levels


@pytest.mark.parametrize(("hard_limit", "count"), [(-1, 0), (4096, 0), (600, 1)])
def test_descriptors(hard_limit: int, count: int) -> None:
    config = load({"config": "/dev/null"}, {"HOME": "/nonexistent"})
    assert len(list(judge_descriptors(hard_limit, config, 100))) == count


@pytest.mark.parametrize(
    ("idle", "sleep", "version", "levels"),
    [
        ("0", "0", 180000, []),
        ("0", "1h", 180000, [Level.WARNING]),
        ("10m", "0", 140000, [Level.NOTE]),
        ("10m", "1h", 180000, [Level.NOTE, Level.NOTE]),
        ("10m", "1h", 140012, [Level.NOTE, Level.WARNING]),
    ],
)
def test_sleep(idle: str, sleep: str, version: int, levels: list[Level]) -> None:
    config = load({"config": "/dev/null", "idle_timeout": idle, "sleep_timeout": sleep}, {"HOME": "/nonexistent"})
    assert [finding.level for finding in judge_sleep(config, version)] == levels
