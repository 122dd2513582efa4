"""The findings of `check`: problems, warnings and notes."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Level(enum.Enum):
    """How serious a finding is."""

    #: Jobs would not run.
    PROBLEM = "problem"
    #: Jobs would run, but not always or not as they should.
    WARNING = "warning"
    NOTE = "note"


class Finding(NamedTuple):
    """One line: what is wrong, where, what to do."""

    level: Level
    text: str


def problem(text: str) -> Finding:
    """A finding because of which jobs would not run."""
    return Finding(Level.PROBLEM, text)


def warning(text: str) -> Finding:
    """A finding that needs attention."""
    return Finding(Level.WARNING, text)


def note(text: str) -> Finding:
    """A finding that is only information."""
    return Finding(Level.NOTE, text)
