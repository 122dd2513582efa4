"""Holds back a database's jobs while one of its modules is half installed.

Jobs that run on half-installed code damage data, so nothing starts while any module is `to install`, `to upgrade` or
`to remove`. Running jobs continue, and connection and leader lock stay. The start of a transition is noticed by the
claim itself, which then returns nothing (claim_queries.PREPARE), by each reconcile, and by scans; its end by checks
while it lasts. An operator's order lets jobs run anyway, for this transition only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..loop import Deadline
from ..postgres.database import Database
from ..postgres.eligibility import waits_for

#: Interval of checks while modules are in transition.
LOOK_S = 2.0


class ModuleGate:
    """One database's gate. `tell` sends changes to the master."""

    def __init__(self, database: Database, tell: Callable[[Mapping[str, Any]], None], look: Deadline) -> None:
        """`look`: when to check again; not set while no module is in transition."""
        self._database = database
        self._tell = tell
        self._told: dict[str, str] | None = None
        self.look = look

    @property
    def is_closed(self) -> bool:
        """Whether nothing may start."""
        return bool(self._database.modules) and not self._database.ignores_modules

    @property
    def reason(self) -> str:
        """Why the gate is closed; '' if open."""
        return waits_for(self._database.modules) if self.is_closed else ""

    def let_through(self, anyway: bool) -> None:
        """An operator's order: run jobs although modules are in transition, or withdraw that."""
        self._database.ignores_modules = anyway

    def looked(self, now_s: float) -> None:
        """Module states were read (Database.check)."""
        modules = self._database.modules
        self.look.set(now_s + LOOK_S if modules else math.inf)
        if not modules:
            self._database.ignores_modules = False  # the order was for this transition, not for the next one
        if modules != self._told:
            self._told = dict(modules)
            self._tell({"is": "modules", "modules": self._told})
