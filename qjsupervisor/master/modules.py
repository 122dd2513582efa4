"""The modules in transition that a worker reported, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Modules:
    """The modules of one database that are in transition."""

    def __init__(self) -> None:
        #: Name to state.
        self.states: Mapping[str, str] = {}
        #: Whether an operator lets jobs run anyway until it is over.
        self.anyway = False
        #: The modules of which an operator said so to a former supervisor, until our worker told of its own.
        self.kept: Mapping[str, str] = {}
        self._since_s = 0.0
        self._reported = False

    def note(self, states: Mapping[str, str], now_s: float) -> None:
        """Record the modules now in transition; empty if none."""
        if not self.states:
            self._since_s, self._reported = now_s, False
        if not states:
            self.anyway = False
        elif states.items() <= self.kept.items():
            self.anyway = True  # the same transition goes on
        self.states, self.kept = states, {}

    def to_keep(self) -> dict[str, str]:
        """What another life has to know; empty: nothing."""
        return dict(self.states if self.anyway else self.kept)

    def is_overdue(self, now_s: float, timeout_s: float) -> bool:
        """Whether to report now, once, that it takes longer than `timeout_s`."""
        if self._reported or self.anyway or not self.states or now_s < self._since_s + timeout_s:
            return False
        self._reported = True
        return True

    def view(self, now_s: float, timeout_s: float) -> dict[str, Any] | None:
        """For `status`; None if there are none."""
        if not self.states:
            return None
        for_s = now_s - self._since_s
        return {
            "states": dict(self.states),
            "for_s": round(for_s, 1),
            "overdue": for_s >= timeout_s,
            "anyway": self.anyway,
        }
