"""What one channel is configured with. The text form is parsed by `config`; no behaviour here."""

from __future__ import annotations

from dataclasses import dataclass

ROOT = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """One channel of a tree; `name` is complete: 'root', 'root.sub', ..."""

    name: str
    #: Jobs at once in it and below it; None: no limit of its own; 0 (root only): nothing runs.
    capacity: int | None
    #: Strictly in order, one at a time, stops on a failed job.
    sequential: bool = False
    #: At least so many seconds between two starts.
    throttle_s: int = 0
    paused: bool = False
    #: For subchannels that nobody configured: None means no limit of their own.
    capacity_default: int | None = None
    sequential_default: bool = False
    #: Nobody configured it: it is what the defaults of an ancestor make.
    made: bool = False


def complete_name(channel: str | None) -> str:
    """The complete name of a job's channel: NULL and '' are the root, 'root.' may be left out."""
    if not channel or channel == ROOT:
        return ROOT
    return channel if channel.startswith(ROOT + ".") else f"{ROOT}.{channel}"


def parent_name(name: str) -> str | None:
    """The complete name one level up; None for the root."""
    return name.rpartition(".")[0] or None
