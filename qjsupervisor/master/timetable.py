"""Puts the schedule in force: at each of its moments, at a start in the middle, at a reload, when the clock is set.

Channels of the configuration are limited in the shared table, without a word to the workers. Channels that are set up
in the databases are limited by the workers, which are told: {"do": "limits"}. What runs is left alone. Nothing is
polled: a timer rings at the next change.
"""

from __future__ import annotations

import math
from datetime import datetime
from itertools import islice
from typing import Any

from ..channelspec import ROOT, ChannelSpec
from ..config.schedule import Limit, LimitChange, limit_text
from ..config.settings import Config
from ..logs import get_logger
from ..loop import Alarm
from ..states import Mode
from .clock_watch import ClockWatch
from .fleet import Fleet
from .parts import MasterParts

#: The timer may ring a moment before the clock on the wall is there.
_LATE_S = 0.002
#: Changes to come that `status` shows.
_SHOWN = 3


class Timetable:
    """The schedule of one supervisor. `config` is replaced by `replace`."""

    def __init__(self, config: Config, parts: MasterParts, fleet: Fleet) -> None:
        self._config = config
        self._parts = parts
        self._fleet = fleet
        #: What is in force, by channel.
        self._limits: dict[str, Limit] = {}
        #: The next changes.
        self._next: tuple[LimitChange, ...] = ()
        #: Channels whose limits are not in the table yet.
        self._unapplied: set[str] = set()
        self._alarm = Alarm(parts.loop, self._look)
        self._watch: ClockWatch | None = None
        self._log = get_logger()

    def begin(self, now_s: float) -> None:
        """At the start, when the table was made with `channels`."""
        self._follow_clock()
        self._look(now_s)

    def replace(self, config: Config, now_s: float) -> None:
        """After a reload: `channels` are to be put in force, too, if they changed."""
        self._config = config
        self._follow_clock()
        self._look(now_s)

    def channels(self) -> tuple[ChannelSpec, ...]:
        """The configured channels as they are to be now."""
        return self._config.schedule.applied(self._config.channels, self._parts.wall())

    def closed_until(self, channel: str) -> str | None:
        """In words, where the schedule closes a channel now; None: it does not."""
        limit = self._limits.get(channel)
        return self._text(limit) if limit is not None and limit.limit == 0 else None

    def close_in_child(self) -> None:
        if self._watch is not None:
            self._watch.close_in_child()

    def view(self) -> dict[str, Any] | None:
        """For `status`; None: there is no schedule."""
        schedule, wall_s = self._config.schedule, self._parts.wall()
        if not schedule.windows:
            return None
        return {
            "timezone": schedule.timezone,
            "limits": [
                {
                    "channel": channel,
                    "limit": limit.limit,
                    "until": None if limit.until_s is None else _iso(schedule.local(limit.until_s)),
                    "for_s": None if limit.until_s is None else round(limit.until_s - wall_s, 1),
                    "text": self._text(limit),
                }
                for channel, limit in sorted(self._limits.items())
            ],
            "next": [
                {
                    "channel": change.channel,
                    "limit": change.limit,
                    "at": _iso(schedule.local(change.at_s)),
                    "in_s": round(change.at_s - wall_s, 1),
                    "text": limit_text(change.limit),
                }
                for change in self._next
            ],
        }

    def _text(self, limit: Limit) -> str:
        schedule = self._config.schedule
        until = None if limit.until_s is None else schedule.local(limit.until_s)
        return limit_text(limit.limit, until, schedule.local(self._parts.wall()))

    def _follow_clock(self) -> None:
        """Hear of a clock that is set, where that matters."""
        if self._config.schedule.windows and self._watch is None:
            try:
                self._watch = self._parts.watch_clock(self._parts.loop, self._look)
            except OSError as error:
                self._log.warning("clock_not_watched", reason=f"{error.strerror}: changes of the clock go unnoticed")
        elif not self._config.schedule.windows and self._watch is not None:
            self._watch.close()
            self._watch = None

    def _look(self, now_s: float) -> None:
        """See what is to be in force now, and when that changes."""
        schedule, wall_s = self._config.schedule, self._parts.wall()
        if not schedule.windows and not self._limits:
            return
        limits, former = schedule.limits(wall_s), self._limits
        self._limits = limits
        changed = [
            name for name in sorted({*limits, *former}) if _number(limits.get(name)) != _number(former.get(name))
        ]
        for name in changed:
            what = self._text(limits[name]) if name in limits else limit_text(None)
            self._log.info("schedule_changed", channel=name, limit=_number(limits.get(name)), reason=what)
        if changed:
            self._apply(changed)
        self._next = tuple(islice(schedule.changes(wall_s), _SHOWN))
        next_s = self._next[0].at_s if self._next else math.inf
        self._alarm.set(now_s + max(0.0, next_s - wall_s) + _LATE_S)

    def _apply(self, changed: list[str]) -> None:
        self._unapplied.update(changed)
        self._fleet.retried_calls.add("schedule", self._try_adjust)
        if self._config.mode is not Mode.SERVER_WIDE:
            self._fleet.limit({name: limit.limit for name, limit in self._limits.items() if name != ROOT})

    def _try_adjust(self) -> bool:
        specs = [spec for spec in self.channels() if spec.name in self._unapplied]
        if specs and not self._parts.table.try_adjust(specs):
            return False
        self._unapplied.clear()
        return True


def _number(limit: Limit | None) -> int | None:
    return None if limit is None else limit.limit


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
