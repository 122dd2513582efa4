"""Metrics of one value each: their names are an interface, and each finds its value in the status."""

from __future__ import annotations

import re

import pytest

from qjsupervisor.monitor.measures import CHANNEL, DATABASE, TARGET, Measure
from tests.monitor_status import RATE


def test_names_are_there_once_and_say_whose_they_are() -> None:
    for prefix, measures in (("database_", DATABASE), ("channel_", CHANNEL), ("target_", TARGET)):
        names = [measure.name for measure in measures]
        assert len(set(names)) == len(names)
        for measure in measures:
            assert re.fullmatch(prefix + "[a-z_]+", measure.name)
            assert measure.text.endswith((".", ")")), measure.name


@pytest.mark.parametrize(
    ("measures", "name", "view", "value"),
    [
        (DATABASE, "database_pending", {"pending": 7}, 7),
        (DATABASE, "database_pending", {}, None),
        (DATABASE, "database_guaranteed", {"share": {"min": 2, "max": None}}, 2),
        (DATABASE, "database_limit", {"share": {"min": 2, "max": None}}, None),
        (DATABASE, "database_limit", {"share": None}, None),
        (DATABASE, "database_stopped_channels", {"stopped": [{}, {}]}, 2),
        (DATABASE, "database_stopped_channels", {"stopped": None}, 0),
        (CHANNEL, "channel_rate_used", {"rate": RATE}, 100),
        (CHANNEL, "channel_rate_used", {"rate": None}, None),
        (TARGET, "target_failures", {"failures": 3}, 3),
    ],
)
def test_values(measures: tuple[Measure, ...], name: str, view: dict[str, object], value: object) -> None:
    (measure,) = [each for each in measures if each.name == name]
    assert measure.value(view) == value
