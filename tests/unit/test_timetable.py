"""The schedule in force: at its moments, at a start, at a reload, when the clock is set; a pause by hand besides."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.errors import ConfigError, ProtocolError
from tests.unit.supervised import ChannelView, Rig


def configured(schedule: str, channels: str | None = "root:4,root.heavy:2", **variables: str) -> Config:
    mode = {"ODOO_QUEUE_JOB_CHANNELS": channels} if channels else {"ODOO_QUEUE_JOB_MAX_CAPACITY": "4"}
    return load({"schedule": schedule, "timezone": "Europe/Berlin"}, {**mode, "ODOO_RC": "/dev/null", **variables})


def started(config: Config, at: str) -> Rig:
    rig = Rig(config)
    wall_s = datetime.fromisoformat(at).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    rig.wall_offset_s = wall_s - rig.now_s
    rig.table.channels = [ChannelView("root", capacity=4), ChannelView("root.heavy", capacity=2)]
    rig.operations.timetable.begin(rig.now_s)
    return rig


def adjustments(rig: Rig) -> list[tuple[Any, ...]]:
    return [call[1:] for call in rig.table.calls if call[0] == "adjust"]


HEAVY = "root.heavy: closed mon-fri 08:00-18:00; root: 3 daily 02:00-03:00"


def test_each_change_is_in_the_table_within_a_second_and_workers_are_not_told() -> None:
    rig = started(configured(HEAVY), "2026-11-30T01:59:58")
    rig.scan(a="ready")
    assert adjustments(rig) == []
    rig.step(3)
    assert adjustments(rig) == [(("root", 3, False),)]
    rig.step(3600)
    assert adjustments(rig)[1:] == [(("root", 4, False),)]
    rig.table.busy = 3
    rig.step(5 * 3600)
    assert adjustments(rig)[2:] == []
    for _ in range(3):
        rig.step(0.05)
    assert adjustments(rig)[2:] == [(("root.heavy", 2, True),)], "as soon as the table's lock is free"
    rig.step(10 * 3600)
    assert adjustments(rig)[3:] == [(("root.heavy", 2, False),)]
    assert rig.child("a").pipe.told == []


def test_a_start_in_the_middle_of_a_window() -> None:
    rig = started(configured(HEAVY), "2026-11-30T12:00")
    assert [(spec.name, spec.paused) for spec in rig.operations.timetable.channels()] == [
        ("root", False),
        ("root.heavy", True),
    ]
    rig.step(6 * 3600 + 1)
    assert adjustments(rig)[-1] == (("root.heavy", 2, False),)


def test_status_says_what_holds_until_when_and_what_comes() -> None:
    rig = started(configured(HEAVY), "2026-11-30T12:00")
    rig.table.channels = [ChannelView("root", capacity=4), ChannelView("root.heavy", capacity=2, paused=True)]
    status = rig.operations.status(rig.now_s)
    (limit,) = status["schedule"]["limits"]
    assert limit == {
        "channel": "root.heavy", "limit": 0, "until": "2026-11-30T18:00:00+01:00", "for_s": 21600.0,
        "text": "closed until 18:00",
    }  # fmt: skip
    assert [(each["channel"], each["at"], each["text"]) for each in status["schedule"]["next"]] == [
        ("root.heavy", "2026-11-30T18:00:00+01:00", "open"),
        ("root", "2026-12-01T02:00:00+01:00", "3 at once"),
        ("root", "2026-12-01T03:00:00+01:00", "open"),
    ]
    root, heavy = status["channels"]
    assert (root["closed"], root["schedule"], root["paused"]) == (False, None, False)
    assert (heavy["closed"], heavy["schedule"], heavy["paused"]) == (True, "closed until 18:00", False)
    assert Rig().operations.status(0.0)["schedule"] is None


def test_a_pause_by_hand_wins_and_resume_says_that_the_schedule_closes_it() -> None:
    rig = started(configured(HEAVY), "2026-11-30T17:59")
    rig.scan(a="ready")
    with pytest.raises(ProtocolError, match=r"not paused; root\.heavy is closed until 18:00, by schedule"):
        rig.orders.handle({"do": "resume", "channel": "heavy"})
    rig.orders.handle({"do": "pause", "channel": "heavy"})
    rig.step(120)
    heavy = rig.operations.status(rig.now_s)["channels"][1]
    assert (heavy["closed"], heavy["paused"]) == (False, True)
    assert rig.child("a").pipe.told[-1] == {"do": "pauses", "pauses": {"root.heavy": None}}


def test_a_reload_changes_it_in_place_and_takes_it_away() -> None:
    rig = started(configured(HEAVY), "2026-11-30T12:00")
    rig.scan(a="ready")
    rig.next_config = configured("root: 1 daily 00:00-24:00")
    assert rig.reload()["ok"]
    assert adjustments(rig)[-1] == (("root", 1, False), ("root.heavy", 2, False))
    rig.next_config = configured("")
    assert rig.reload()["ok"]
    assert adjustments(rig)[-1] == (("root", 4, False),)
    assert rig.operations.status(rig.now_s)["schedule"] is None
    assert not hasattr(rig, "clock_changed"), "nobody listens to the clock any more"
    assert {"do": "stop", "restart": True} not in rig.child("a").pipe.told


def test_a_reload_of_channels_keeps_the_schedule_in_force() -> None:
    rig = started(configured(HEAVY), "2026-11-30T12:00")
    rig.next_config = configured(HEAVY, "root:9,root.heavy:5")
    assert rig.reload()["channels_changed"]
    assert rig.operations.timetable.channels()[1].paused


def test_when_the_clock_is_set_it_is_looked_at_anew() -> None:
    rig = started(configured(HEAVY), "2026-11-30T12:00")
    rig.wall_offset_s += 6 * 3600
    rig.clock_changed(rig.now_s)
    assert adjustments(rig)[-1] == (("root.heavy", 2, False),)
    rig.wall_offset_s -= 6 * 3600
    rig.clock_changed(rig.now_s)
    assert adjustments(rig)[-1] == (("root.heavy", 2, True),)


def test_channels_of_the_databases_are_limited_by_their_workers_and_root_over_all() -> None:
    schedule = "root.heavy: closed mon-fri 08:00-18:00; root: 2 daily 12:00-13:00; root.mail: 1 daily 00:00-24:00"
    rig = started(configured(schedule, None), "2026-11-30T11:59")
    rig.scan(a="ready")
    told = rig.child("a").pipe.told
    assert told == [{"do": "limits", "limits": {"root.heavy": 0, "root.mail": 1}}]
    rig.step(61)
    assert adjustments(rig)[-1] == (("root", 2, False),)
    rig.reap("a", -9)
    rig.step(2)
    assert rig.child("a").pipe.told == [{"do": "limits", "limits": {"root.heavy": 0, "root.mail": 1}}]
    rig.step(6 * 3600)
    assert rig.child("a").pipe.told[-1] == {"do": "limits", "limits": {"root.mail": 1}}


def test_without_a_schedule_there_is_no_timer_and_nobody_listens_to_the_clock() -> None:
    rig = Rig()
    before = rig.loop.kept
    rig.operations.timetable.begin(rig.now_s)
    assert rig.loop.kept == before
    assert not hasattr(rig, "clock_changed")


@pytest.mark.parametrize(
    ("variables", "option", "complaint"),
    [
        ({"schedule": "root.heavi: closed daily 1:00-2:00"}, "schedule", r"channel 'root\.heavi' is not in channels; "),
        ({"schedule": "root: closed now"}, "schedule", "--schedule: entry 'root: closed now': allowed: CHANNEL"),
        ({"timezone": "Mars/Olympus"}, "timezone", "--timezone: 'Mars/Olympus' is no time zone; allowed"),
    ],
)  # fmt: skip
def test_wrong_values(variables: dict[str, str], option: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as raised:
        load(variables, {"ODOO_QUEUE_JOB_CHANNELS": "root:4,root.heavy:2", "ODOO_RC": "/dev/null"})
    assert raised.value.option == option


def test_a_number_that_lowers_nothing_is_doubted() -> None:
    assert "4 at once has no effect in root, whose capacity is 4" in configured("root: 4 daily 1:00-2:00").warnings[-1]
    assert configured("root: 3 daily 1:00-2:00").warnings == ()
    assert replace(configured(""), warnings=()).schedule.windows == ()
