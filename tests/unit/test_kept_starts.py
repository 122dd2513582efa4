"""Starts that rates count, from one life of the supervisor to the next."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qjsupervisor.config.channel_string import parse_channels
from qjsupervisor.states import Fairness
from qjsupervisor.table import rates
from qjsupervisor.table.semaphore import SemaphoreTable

CHANNELS = "root:4:rate=9/1m,mail:4:rate=3/10s:rate_default=2/10s,many:4:rate=5000/1m,free:1"


def table() -> SemaphoreTable:
    return SemaphoreTable(parse_channels(CHANNELS), slots=1, fairness=Fairness.ROUND_ROBIN)


def ages_s(of: SemaphoreTable, name: str, now_s: float) -> list[float]:
    ring = of.core.ring(of.core.tree().index[name])
    assert ring is not None
    return [round(now_s - moment / 1e9, 1) for moment in ring.moments()]


def kept(*ages: float, channel: str = "root.mail", at_s: float = 1_000_000.0) -> dict[str, Any]:
    return {"at": at_s, "channels": {channel: [1, [at_s - age_s for age_s in ages]]}}


def test_a_next_life_goes_on() -> None:
    """By another monotonic clock, later; what is out of the window is not kept."""
    first = table()
    mail = first.core.tree().index["root.mail"]
    for moment_s in (985, 995, 998):
        rates.count_start(first.core, mail, moment_s * 1_000_000_000)
    told = json.loads(json.dumps(first.kept_starts(1000.0, 5_000_000.0)))
    after = table()
    assert after.restore_starts(told, 70.0, 5_000_002.0)
    assert ages_s(after, "root.mail", 70.0) == [7.0, 4.0]
    assert ages_s(after, "root", 70.0) == [17.0, 7.0, 4.0]
    rates.count_start(after.core, mail, 70_000_000_000)
    assert after.core.not_before_ns(mail) == int((63 + 10.1) * 1e9)


def test_rows_count_only_where_they_are_later() -> None:
    after = table()
    assert after.restore_starts(kept(5.0), 100.0, 1_000_003.0)
    mail = after.core.tree().index["root.mail"]
    rates.add_past_starts(after.core, mail, [int(age * 1e9) for age in (92.0, 96.9, 98.0)])
    assert ages_s(after, "root.mail", 100.0) == [8.0, 2.0]


def test_a_channel_that_defaults_made_is_made_again() -> None:
    after = table()
    assert after.restore_starts(kept(1.0, channel="root.mail.company"), 100.0, 1_000_000.0)
    assert ages_s(after, "root.mail.company", 100.0) == [1.0]
    assert after.restore_starts(kept(1.0, channel="root.free.other"), 100.0, 1_000_000.0)
    assert "root.free.other" not in after.core.tree().index


def test_without_rates_nothing_is_kept() -> None:
    plain = SemaphoreTable(parse_channels("root:4"), slots=1, fairness=Fairness.ROUND_ROBIN)
    assert plain.kept_starts(1.0, 1.0) is None
    assert plain.restore_starts(kept(1.0), 100.0, 1_000_000.0)


def test_a_clock_that_was_set_back_makes_nobody_wait_longer() -> None:
    after = table()
    assert after.restore_starts(kept(1.0), 100.0, 900_000.0)
    assert ages_s(after, "root.mail", 100.0) == [0.0]


def test_groups_of_starts_are_kept_as_such() -> None:
    first = table()
    many = first.core.tree().index["root.many"]
    ring = first.core.ring(many)
    assert ring is not None
    for moment in range(12):
        ring.count(90_000_000_000 + moment)
    told = first.kept_starts(100.0, 1.0)
    assert told is not None
    assert (told["channels"]["root.many"][0], len(told["channels"]["root.many"][1])) == (5, 3)


@pytest.mark.parametrize(
    "nonsense",
    [
        [],
        "x",
        {"at": 1},
        {"at": "x", "channels": {}},
        {"at": 1, "channels": []},
        {"at": 1, "channels": {"root": 3}},
        {"at": 1, "channels": {"root": [1, ["x"]]}},
        {"at": float("inf"), "channels": {"root": [1, [1]]}},
        {"at": 1, "channels": {"root": [1, [float("nan")]]}},
    ],
)
def test_nonsense_is_told(nonsense: object) -> None:
    assert not table().restore_starts(nonsense, 100.0, 1_000_000.0)
