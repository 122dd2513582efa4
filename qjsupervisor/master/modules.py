"""What a worker tells of modules that are half installed, and for how long that has been so. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Modules:
    """The modules of one database that are in transition."""

    def __init__(self) -> None:
        #: By name.
        self.states: Mapping[str, str] = {}
        #: An operator lets jobs run all the same, while this lasts.
        self.anyway = False
        self._since_s = 0.0
        self._reported = False

    def note(self, states: Mapping[str, str], now_s: float) -> None:
        """These are in transition now; empty: none is."""
        if not self.states:
            self._since_s, self._reported = now_s, False
        if not states:
            self.anyway = False
        self.states = states

    def is_overdue(self, now_s: float, timeout_s: float) -> bool:
        """Whether it is to be reported now that this takes so long: once."""
        if self._reported or self.anyway or not self.states or now_s < self._since_s + timeout_s:
            return False
        self._reported = True
        return True

    def view(self, now_s: float, timeout_s: float) -> dict[str, Any] | None:
        """For `status`; None: there are none."""
        if not self.states:
            return None
        for_s = now_s - self._since_s
        return {
            "states": dict(self.states),
            "for_s": round(for_s, 1),
            "overdue": for_s >= timeout_s,
            "anyway": self.anyway,
        }
