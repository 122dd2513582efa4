"""Parses arguments of the commands: durations and scopes. Raises ValueError, for argparse."""

from __future__ import annotations

from typing import NamedTuple

from ..channelspec import ROOT, complete_name
from ..config.values import duration
from ..master.pauses import LONGEST_S


class ScopeArgument(NamedTuple):
    """What `pause` and `resume` apply to; `database` None means every database."""

    database: str | None
    #: Complete name; root means all channels.
    channel: str

    def __str__(self) -> str:
        what = "all jobs" if self.channel == ROOT else f"channel {self.channel}"
        return f"{what} of {self.database or 'every database'}"


def parse_duration(text: str) -> float:
    """Seconds of '90', '90s', '30m', '1h30m' or '2d'; must be positive."""
    seconds = duration(text)
    if not 0 < seconds <= LONGEST_S:
        raise ValueError(f"a duration is more than 0 and at most ten years, not {text!r}")
    return seconds


def parse_scope(text: str) -> ScopeArgument:
    """Parse "db", "db:channel", ":channel" or "" (everything). The last colon separates; names may contain others."""
    database, colon, channel = text.rpartition(":")
    if not colon:
        database, channel = channel, ""
    return ScopeArgument(database or None, parse_channel(channel))


def parse_channel(text: str) -> str:
    """The complete name of a channel; 'root.' may be omitted, '' is root."""
    name = complete_name(text.strip())
    if not all(name.split(".")):
        raise ValueError(f"{text!r} is not a channel: write root.sub or root.sub.subsub")
    return name
