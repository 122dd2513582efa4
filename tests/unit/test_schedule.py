"""Schedules: the grammar, moments over both changes of the clock, what holds and what comes next."""

from __future__ import annotations

import os
from datetime import date, datetime, time, timedelta, timezone
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config import schedule as module
from qjsupervisor.config.schedule import (
    Limit,
    LimitChange,
    Schedule,
    limit_text,
    moment_of,
    own_timezone,
    parse_schedule,
)

#: Both hemispheres, half an hour (Lord_Howe), midnight (Havana, Beirut), a day that was left out (Apia), none (UTC).
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Beirut", "Pacific/Apia",
         "America/Sao_Paulo", "UTC", "Asia/Kathmandu")  # fmt: skip


def at(text: str, zone: str = "Europe/Berlin", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def berlin(text: str) -> Schedule:
    return Schedule(parse_schedule(text), "Europe/Berlin")


# -- text ----------------------------------------------------------------------------------------------------


def test_the_example_of_the_documentation() -> None:
    heavy, root = parse_schedule("root.heavy: closed mon-fri 08:00-18:00; root: 4 daily 02:00-03:00")
    assert heavy == ("root.heavy", 0, (0, 1, 2, 3, 4), 8 * 3600, 18 * 3600)
    assert root == ("root", 4, tuple(range(7)), 2 * 3600, 3 * 3600)


def test_ways_to_write_it() -> None:
    (one,) = parse_schedule("heavy : CLOSED  Sat , sun 22:00 - 06:00 ;")
    assert one == ("root.heavy", 0, (5, 6), 22 * 3600, 30 * 3600)
    assert parse_schedule("a: 2 fri-mon 0:00-24:00")[0].days == (0, 4, 5, 6)
    assert parse_schedule("a: 2 mon 12:00:30-12:01")[0].start_s == 43230
    assert len(parse_schedule("a: 1 daily 1:00-2:00\nb: 1 daily 1:00-2:00")) == 2
    assert parse_schedule(" ; ") == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("root", "allowed: CHANNEL: closed DAYS"),
        ("root: closed", "allowed: CHANNEL"),
        (": closed daily 1:00-2:00", "allowed: CHANNEL"),
        ("root: open daily 1:00-2:00", "'open' is not a whole number"),
        ("root: 0 daily 1:00-2:00", "0 is out of range; allowed: 1 to"),
        ("root: -1 daily 1:00-2:00", "out of range"),
        ("root: closed weekdays 1:00-2:00", "'weekdays' is no day; allowed: daily, mon"),
        ("root: closed mon-x 1:00-2:00", "'mon-x' is no day"),
        ("root: closed mon- 1:00-2:00", "allowed: CHANNEL"),
        ("root: closed daily 25:00-26:00", "'25:00' is no time of day"),
        ("root: closed daily 08:60-09:00", "is no time of day"),
        ("root: closed daily 08:00", "no time of day from and to"),
        ("root: closed daily 24:00-08:00", "no time of day from and to"),
        ("root: closed daily 08:00-08:00", "ends when it begins; the whole day is 00:00-24:00"),
        ("root..a: closed daily 08:00-09:00", "not a channel name"),
        ("root: closed daily 08:00-09:00 now", "allowed: CHANNEL"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match="entry ") as raised:
        parse_schedule(f"a: closed daily 1:00-2:00; {text}")
    assert complaint in str(raised.value)


def test_time_zones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert module.parse_timezone(" Europe/Berlin ") == "Europe/Berlin"
    for name in ("Europe/Nowhere", "../../etc/passwd", "/etc/passwd", "Europe", "", "a\0b", "CEST"):
        with pytest.raises(ValueError, match=r"no time zone; allowed: .* as Europe/Berlin"):
            module.parse_timezone(name)
    monkeypatch.setattr("zoneinfo.ZoneInfo", _no_zone)
    monkeypatch.setattr("zoneinfo.available_timezones", set)
    module.find_zone.cache_clear()
    with pytest.raises(ValueError, match="install the package tzdata"):
        module.parse_timezone("Europe/Berlin")
    assert module.parse_timezone("UTC") == "UTC"
    module.find_zone.cache_clear()


def _no_zone(name: str) -> None:
    raise ValueError(name)


def test_the_machines_own_time_zone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert own_timezone({"TZ": ":Asia/Kathmandu"}) == "Asia/Kathmandu"
    link, name = tmp_path / "localtime", tmp_path / "timezone"
    monkeypatch.setattr(module, "LOCALTIME", str(link))
    monkeypatch.setattr(module, "TIMEZONE", str(name))
    assert own_timezone({}) == "UTC"
    link.write_bytes(b"TZif")
    with pytest.raises(ValueError, match="has no name that could be told"):
        own_timezone({})
    name.write_text("Europe/Vienna\n")
    assert own_timezone({}) == "Europe/Vienna"
    os.unlink(link)
    link.symlink_to("/usr/share/zoneinfo/America/Lima")
    assert own_timezone({}) == "America/Lima"
    with pytest.raises(ValueError, match="no time zone"):
        own_timezone({"TZ": "<+0545>-5:45"})


# -- moments -------------------------------------------------------------------------------------------------


@given(
    zone=st.sampled_from(ZONES),
    day=st.dates(date(2005, 1, 1), date(2035, 12, 31)),
    second=st.integers(0, 2 * 86400),
)
def test_a_moment_is_the_first_at_which_the_wall_shows_at_least_that(zone: str, day: date, second: int) -> None:
    found = moment_of(day, second, ZoneInfo(zone))
    wanted = datetime.combine(day, time()) + timedelta(seconds=second)

    def wall(moment: float) -> datetime:
        return datetime.fromtimestamp(moment, ZoneInfo(zone)).replace(tzinfo=None)

    assert wall(found) >= wanted
    assert wall(found - 1) < wanted
    assert all(wall(found - back) < wanted for back in range(900, 4 * 3600, 900)), "an earlier one of two"


@given(zone=st.sampled_from(ZONES), start=st.integers(1_100_000_000, 2_080_000_000), data=st.data())
def test_windows_as_a_clock_on_the_wall_shows_them(zone: str, start: int, data: st.DataObject) -> None:
    """Away from changes of the clock: a window covers what the wall says."""
    days = data.draw(st.lists(st.sampled_from(range(7)), min_size=1, unique=True))
    begin, end = data.draw(st.integers(0, 1439)), data.draw(st.integers(1, 1440))
    if begin == end:
        end = (begin + 60) % 1440 or 1440
        if begin == end:
            return
    end_s = end * 60 if end > begin else end * 60 + 86400
    window = module.ScheduleEntry("root", 0, tuple(sorted(days)), begin * 60, end_s)
    info = ZoneInfo(zone)
    offsets = {datetime.fromtimestamp(start + hour * 3600, info).utcoffset() for hour in range(-60, 61)}
    if len(offsets) > 1:
        return
    wall = datetime.fromtimestamp(start, info)
    second = wall.hour * 3600 + wall.minute * 60 + wall.second
    covers = (wall.weekday() in days and begin * 60 <= second < end_s) or (
        (wall.weekday() - 1) % 7 in days and second + 86400 < end_s
    )
    assert bool(Schedule((window,), zone).limits(start)) is covers


@given(zone=st.sampled_from(ZONES), start=st.integers(1_100_000_000, 2_080_000_000), data=st.data())
def test_what_is_foretold_comes_true_and_nothing_else_happens(zone: str, start: int, data: st.DataObject) -> None:
    minutes = st.integers(0, 1439).map(lambda minute: f"{minute // 60:02d}:{minute % 60:02d}")
    entry = st.tuples(
        st.sampled_from(["root", "root.a"]),
        st.sampled_from(["closed", "2", "5"]),
        st.sampled_from(["daily", "mon-fri", "sat,sun", "sun"]),
        st.tuples(minutes, minutes).filter(lambda pair: pair[0] != pair[1]),
    )
    entries = data.draw(st.lists(entry, min_size=1, max_size=3))
    text = "; ".join(f"{name}: {what} {days} {a}-{b}" for name, what, days, (a, b) in entries)
    schedule = Schedule(parse_schedule(text), zone)
    held = {name: limit.limit for name, limit in schedule.limits(start).items()}
    last_s = float(start)
    for change in islice(schedule.changes(start), 6):
        assert change.at_s >= last_s
        if change.at_s > last_s:
            for moment in ((last_s + change.at_s) / 2, change.at_s - 0.5):
                if moment > last_s:
                    assert {name: limit.limit for name, limit in schedule.limits(moment).items()} == held, text
        last_s = change.at_s
        if change.limit is None:
            del held[change.channel]
        else:
            assert held.get(change.channel) != change.limit
            held[change.channel] = change.limit
        if change.limit is not None:
            assert schedule.limits(change.at_s)[change.channel].limit == change.limit


def test_a_skipped_time_is_the_next_valid_one() -> None:
    """2026-03-29 in Berlin: after 01:59:59 comes 03:00."""
    night = berlin("root: closed daily 02:30-04:00")
    assert [change.at_s for change in islice(night.changes(at("2026-03-29T00:00")), 2)] == [
        at("2026-03-29T03:00"),
        at("2026-03-29T04:00"),
    ]
    within = berlin("root: closed daily 02:10-02:50")
    assert next(within.changes(at("2026-03-29T00:00"))).at_s == at("2026-03-30T02:10"), "nothing of it is left"


def test_of_a_doubled_time_the_first_one_counts() -> None:
    """2026-10-25 in Berlin: after 02:59:59 comes 02:00 again."""
    night = berlin("root: closed daily 02:30-03:00")
    start, end = (change.at_s for change in islice(night.changes(at("2026-10-25T00:00")), 2))
    assert start == at("2026-10-25T02:30", fold=0)
    assert end == at("2026-10-25T03:00")
    assert end - start == 90 * 60
    opens = next(berlin("root: closed daily 00:00-02:30").changes(at("2026-10-25T01:00")))
    assert opens == LimitChange(at("2026-10-25T02:30", fold=0), "root", None)


def test_over_midnight_and_over_the_end_of_the_week() -> None:
    weekend = berlin("root: closed sun 22:00-06:00")
    assert weekend.limits(at("2026-11-29T23:00"))["root"] == Limit(0, at("2026-11-30T06:00"))
    assert weekend.limits(at("2026-11-30T05:59"))
    assert not weekend.limits(at("2026-11-30T06:00"))
    assert not weekend.limits(at("2026-11-28T23:00"))


def test_windows_that_touch_are_one_and_what_never_ends_has_no_end() -> None:
    both = berlin("root: closed daily 08:00-12:00; root: closed daily 12:00-18:00")
    assert both.limits(at("2026-11-30T09:00"))["root"].until_s == at("2026-11-30T18:00")
    always = berlin("root: closed daily 00:00-24:00")
    assert always.limits(at("2026-03-29T12:00"))["root"] == Limit(0, None)
    assert not list(always.changes(at("2026-03-29T12:00")))


def test_of_two_the_smaller_and_of_the_configured_one_too() -> None:
    schedule = berlin("root: 4 daily 00:00-24:00; root: 2 daily 02:00-03:00; root.a: closed daily 02:00-03:00")
    channels = [ChannelSpec(name="root", capacity=3), ChannelSpec(name="root.a", capacity=None)]
    night, day = at("2026-11-30T02:30"), at("2026-11-30T12:00")
    assert [(spec.capacity, spec.paused) for spec in schedule.applied(channels, night)] == [(2, False), (None, True)]
    assert list(schedule.applied(channels, day)) == channels
    assert Schedule().applied(channels, day) == tuple(channels)
    free = [ChannelSpec(name="root", capacity=None)]
    assert schedule.applied(free, day)[0].capacity == 4


def test_words() -> None:
    until, now = datetime(2026, 11, 30, 18, tzinfo=timezone.utc), datetime(2026, 11, 30, 9, tzinfo=timezone.utc)
    assert limit_text(0, until, now) == "closed until 18:00"
    assert limit_text(4, until, now - timedelta(days=2)) == "4 at once until Mon 18:00"
    assert limit_text(0) == "closed"
    assert limit_text(None) == "open"
