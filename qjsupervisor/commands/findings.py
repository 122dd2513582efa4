"""What `check` finds: the vocabulary of its modules."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Level(enum.Enum):
    """How bad it is."""

    #: Jobs would not run.
    PROBLEM = "problem"
    #: Jobs would run, but not as they should, or not always.
    WARNING = "warning"
    NOTE = "note"


class Finding(NamedTuple):
    """One line: what is wrong, where, what to do."""

    level: Level
    text: str


def problem(text: str) -> Finding:
    """Jobs would not run."""
    return Finding(Level.PROBLEM, text)


def warning(text: str) -> Finding:
    """Something to look at."""
    return Finding(Level.WARNING, text)


def note(text: str) -> Finding:
    """Nothing is wrong."""
    return Finding(Level.NOTE, text)
