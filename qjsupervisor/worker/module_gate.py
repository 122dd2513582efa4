"""Whether a database's jobs have to wait because a module of it is half installed.

Jobs that run on half-installed code damage data. So nothing is started while any module is `to install`, `to upgrade`
or `to remove`; what runs goes on, and the connection and the lead stay. That a transition began is seen by the claim
itself, which gets nothing then (queries.PREPARE), by each reconcile, and where a scan met it; that it is over, by
looking again while it lasts. An operator's word lets the jobs run anyway, for as long as this transition lasts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..loop import Deadline
from ..postgres.database import Database
from ..postgres.eligibility import waits_for

#: How often it is looked at while modules are in transition.
LOOK_S = 2.0


class ModuleGate:
    """One database's gate. `tell` sends the master what changed."""

    def __init__(self, database: Database, tell: Callable[[Mapping[str, Any]], None], look: Deadline) -> None:
        """`look`: when to look again; not set while no module is in transition."""
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
        """Why; '' while it is open."""
        return waits_for(self._database.modules) if self.is_closed else ""

    def let_through(self, anyway: bool) -> None:
        """An operator says that jobs run though modules are in transition, or takes that back."""
        self._database.ignores_modules = anyway

    def looked(self, now_s: float) -> None:
        """The database was looked at (Database.check)."""
        modules = self._database.modules
        self.look.set(now_s + LOOK_S if modules else math.inf)
        if not modules:
            self._database.ignores_modules = False  # it was said of this transition, not of the next one
        if modules != self._told:
            self._told = dict(modules)
            self._tell({"is": "modules", "modules": self._told})
