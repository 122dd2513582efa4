"""Schedules: times at which a channel is closed or limited.  Pure, except for time zone lookups.

    schedule = root.heavy: closed mon-fri 08:00-18:00; root: 4 daily 02:00-03:00
    timezone = Europe/Berlin

Each entry is a window of local time on some days of the week; one that ends before it begins ends on the next day.
It limits the jobs that run at once in the channel and its subchannels; `closed` means none. If windows overlap, the
smallest limit applies.
A local time means the first moment at which a wall clock shows that time or a later one. A time skipped when clocks
go forward therefore becomes the next valid one, and of a time that occurs twice when they go back the first counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from functools import cache
from typing import Any, NamedTuple

from ..channelspec import ChannelSpec, complete_name
from .channel_string import checked
from .sizes import HIGHEST_CAPACITY
from .values import integer_in, shown

CLOSED = 0
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAILY = ("daily", *_DAYS)
_DAY_S = 86400
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
_UTC = ("UTC", "Etc/UTC", "Zulu", "Etc/Zulu", "UCT", "Etc/UCT", "Universal", "Etc/Universal")
#: Days to search: back for a window that covers a given moment, ahead for the next change.
_BACK, _AHEAD = 2, 16
_ALLOWED = "CHANNEL: closed DAYS HH:MM-HH:MM, or a number instead of closed; DAYS: daily, mon-fri, sat,sun"
LOCALTIME, TIMEZONE = "/etc/localtime", "/etc/timezone"


class ScheduleEntry(NamedTuple):
    """One entry of the schedule."""

    #: Complete channel name.
    channel: str
    #: Most jobs at once in the channel and its subchannels; CLOSED for none.
    limit: int
    #: 0 is Monday.
    days: tuple[int, ...]
    #: Seconds since local midnight.
    start_s: int
    #: Likewise, of the day it starts on; more than a day's seconds if the window ends on the next day.
    end_s: int


class _Span(NamedTuple):
    """A window on one particular day, in UTC seconds."""

    start_s: float
    end_s: float
    window: ScheduleEntry


class LimitChange(NamedTuple):
    """The limit that applies to a channel from a moment on."""

    #: UTC seconds.
    at_s: float
    channel: str
    #: None: no limit from the schedule.
    limit: int | None


class Limit(NamedTuple):
    """The limit that applies to a channel now."""

    limit: int
    #: UTC seconds; None if it never ends.
    until_s: float | None


class Schedule(NamedTuple):
    """All windows, in one time zone."""

    windows: tuple[ScheduleEntry, ...] = ()
    #: IANA name.
    timezone: str = "UTC"

    @property
    def zone(self) -> tzinfo:
        return find_zone(self.timezone)

    def limits(self, now_s: float) -> dict[str, Limit]:
        """Channel -> the limit that applies now."""
        held, until = _held(self._spans(now_s, 0), now_s), dict[str, float]()
        for change in self.changes(now_s) if held else ():
            if change.channel in held:
                until.setdefault(change.channel, change.at_s)
            if len(until) == len(held):
                break
        return {channel: Limit(limit, until.get(channel)) for channel, limit in held.items()}

    def changes(self, after_s: float) -> Iterator[LimitChange]:
        """Later changes in order of time, for at least two weeks ahead."""
        spans, last_s = self._spans(after_s, _AHEAD), after_s + (_AHEAD - 1) * _DAY_S
        held = _held(spans, after_s)
        edges = {edge for span in spans for edge in (span.start_s, span.end_s)}
        for moment in sorted(edge for edge in edges if after_s < edge <= last_s):
            now = _held(spans, moment)
            for channel in sorted({*held, *now}):
                if held.get(channel) != now.get(channel):
                    yield LimitChange(moment, channel, now.get(channel))
            held = now

    def _spans(self, at_s: float, ahead: int) -> list[_Span]:
        """The windows on the days around a moment; some may be empty."""
        if not self.windows:
            return []
        zone = self.zone
        today = datetime.fromtimestamp(at_s, zone).date()
        days = [today + timedelta(days=number) for number in range(-_BACK, ahead + 2)]
        return [
            _Span(moment_of(day, window.start_s, zone), moment_of(day, window.end_s, zone), window)
            for window in self.windows
            for day in days
            if day.weekday() in window.days
        ]

    def applied(self, channels: Sequence[ChannelSpec], now_s: float) -> tuple[ChannelSpec, ...]:
        """The channels with the limits that apply now; the smaller of capacity and schedule wins."""
        limits = self.limits(now_s) if self.windows else {}
        return tuple(_limited(spec, limits[spec.name].limit) if spec.name in limits else spec for spec in channels)

    def local(self, at_s: float) -> datetime:
        """A moment in local time."""
        return datetime.fromtimestamp(at_s, self.zone)


def _limited(spec: ChannelSpec, limit: int) -> ChannelSpec:
    if limit == CLOSED:
        return replace(spec, paused=True)
    return replace(spec, capacity=limit if spec.capacity is None else min(spec.capacity, limit))


def _held(spans: Iterable[_Span], at_s: float) -> dict[str, int]:
    """Channel -> its smallest limit at a moment."""
    found: dict[str, int] = {}
    for start_s, end_s, window in spans:
        if start_s <= at_s < end_s:
            found[window.channel] = min(window.limit, found.get(window.channel, window.limit))
    return found


def moment_of(day: date, second: int, zone: tzinfo) -> float:
    """The first moment, in UTC seconds, at which local time is at or past this second of a day (or of the next)."""
    wall = datetime.combine(day, time()) + timedelta(seconds=second)
    before, after = (_utc_s(wall, zone, fold) for fold in (0, 1))
    if _wall(before, zone) == wall:
        return before  # the first of two
    low, high = int(after), int(before)  # clocks go forward in between
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _wall(middle, zone) >= wall else (middle, high)
    return float(high)


def _utc_s(wall: datetime, zone: tzinfo, fold: int) -> float:
    return wall.replace(tzinfo=zone, fold=fold).timestamp()


def _wall(at_s: float, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(at_s, zone).replace(tzinfo=None, fold=0)


# -- text --------------------------------------------------------------------------------------------------------


def parse_schedule(text: str) -> tuple[ScheduleEntry, ...]:
    """Parse the windows. Raises ValueError naming the entry."""
    entries = filter(None, (part.strip() for part in re.split(r"[;\n]", text)))
    return tuple(map(_parse_entry, entries))


def _parse_entry(entry: str) -> ScheduleEntry:
    try:
        return _parse_window(entry)
    except ValueError as error:
        raise ValueError(f"entry {shown(entry)}: {error}") from None


def _parse_window(entry: str) -> ScheduleEntry:
    name, colon, rest = entry.partition(":")
    words = re.sub(r"\s*([,-])\s*", r"\1", rest).split()
    if not colon or not name.strip() or len(words) != 3:
        raise ValueError(f"allowed: {_ALLOWED}")
    what, days, times = words
    limit = CLOSED if what.lower() == "closed" else integer_in(1, HIGHEST_CAPACITY)(what)
    spec = checked(ChannelSpec(name=complete_name(name.strip()), capacity=None))
    start_s, end_s = _parse_times(times)
    return ScheduleEntry(spec.name, limit, _parse_days(days), start_s, end_s)


def _parse_days(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        if part == "daily":
            found.update(range(7))
        elif first in _DAYS and (last in _DAYS or not dash):
            start, end = _DAYS.index(first), _DAYS.index(last or first)
            found.update((start + day) % 7 for day in range((end - start) % 7 + 1))
        else:
            raise ValueError(f"{shown(part)} is no day; allowed: {', '.join(_DAILY)}, and ranges as mon-fri")
    return tuple(sorted(found))


def _parse_times(text: str) -> tuple[int, int]:
    start, dash, end = text.partition("-")
    start_s, end_s = _parse_time(start), _parse_time(end) if dash else -1
    if not dash or start_s == _DAY_S:
        raise ValueError(f"{shown(text)} is no time of day from and to; allowed: 00:00-24:00")
    if start_s == end_s:
        raise ValueError(f"{shown(text)} ends when it begins; the whole day is 00:00-24:00")
    return start_s, end_s if end_s > start_s else end_s + _DAY_S


def _parse_time(text: str) -> int:
    found = _TIME.fullmatch(text)
    hour, minute, second = (int(part or 0) for part in found.groups()) if found else (99, 0, 0)
    total = hour * 3600 + minute * 60 + second
    if minute > 59 or second > 59 or total > _DAY_S:
        raise ValueError(f"{shown(text)} is no time of day; allowed: 00:00 to 24:00")
    return total


# -- time zones --------------------------------------------------------------------------------------------------


@cache
def find_zone(name: str) -> tzinfo:
    """The time zone with this IANA name. Raises ValueError if there is none."""
    if name in _UTC:
        return timezone.utc
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones  # imported only if there is a schedule

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    if not available_timezones():
        raise ValueError(
            f"{shown(name)} cannot be looked up, as this machine has no time zones; install the package tzdata"
            " (of the system, or `pip install tzdata`); allowed without it: UTC"
        )
    raise ValueError(f"{shown(name)} is no time zone; allowed: a name of IANA's, as Europe/Berlin, or UTC")


def parse_timezone(text: str) -> str:
    """Check that a time zone is known on this machine, and return its IANA name."""
    name = text.strip()
    find_zone(name)
    return name


def own_timezone(environ: Mapping[str, str]) -> str:
    """The machine's time zone, as cron uses it. Raises ValueError if it has no IANA name."""
    named = environ.get("TZ", "").removeprefix(":")
    if not named and os.path.islink(LOCALTIME):
        named = os.path.realpath(LOCALTIME).partition("zoneinfo/")[2]
    if not named and os.path.exists(TIMEZONE):
        with open(TIMEZONE, encoding="ascii", errors="replace") as file:
            named = file.read(200).strip()
    if not named and os.path.exists(LOCALTIME):
        raise ValueError("the machine's own time zone has no name that could be told; set it, as Europe/Berlin")
    return parse_timezone(named or "UTC")


# -- words -------------------------------------------------------------------------------------------------------


def limit_text(limit: int | None, until: datetime | None = None, now: datetime | None = None) -> str:
    """'closed until 18:00', '4 at once until Mon 08:00', 'open'."""
    what = "open" if limit is None else "closed" if limit == CLOSED else f"{limit} at once"
    if until is None:
        return what
    clock = until.strftime("%H:%M:%S" if until.second else "%H:%M")
    return f"{what} until {clock}" if now is None or until.date() == now.date() else f"{what} until {until:%a} {clock}"


def unknown(windows: Iterable[ScheduleEntry], channels: Iterable[ChannelSpec]) -> list[str]:
    """Channels in the schedule that do not exist."""
    known = {spec.name for spec in channels}
    return [window.channel for window in windows if window.channel not in known]


def of_channel(view: Mapping[str, Any] | None, channel: str) -> Mapping[str, Any]:
    """The entry for a channel under "schedule" in `status`, or {}."""
    limits = (view or {}).get("limits", ())
    return next((each for each in limits if each.get("channel") == channel), {})
