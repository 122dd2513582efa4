"""Checks whether the database may be served, whether its jobs may run now, and which jobs run too long."""

from __future__ import annotations

from ..errors import DatabaseGone, DatabaseUnavailable
from ..states import Phase
from .long_runs import LongRuns
from .module_gate import ModuleGate
from .orders import Instructions
from .parts import WorkerParts
from .progress import Progress
from .serving import Serving


class Checks:
    """One worker's checks of its database. Methods that query it raise DatabaseError."""

    def __init__(self, parts: WorkerParts, progress: Progress, instructions: Instructions) -> None:
        self._database = parts.database
        self._progress = progress
        self._instructions = instructions
        self.module_gate = ModuleGate(parts.database, parts.reporting.tell, parts.deadline())
        self.long_runs = LongRuns(parts.database, parts.dispatcher, parts.log, parts.reporting.tell, parts.deadline())
        self.long_runs.apply(instructions.rules)

    def check(self, now_s: float) -> None:
        """Check whether the database may be served, and whether its jobs may run now."""
        only, about = self._instructions.only_oid, self._database.about
        if only is not None and about is not None and about.oid != only:
            raise DatabaseGone(self._database.name, "another database has its name since it was looked at")
        self._database.refuses_neutralized = not self._instructions.rules.serve_neutralized
        self._database.check()
        self._note_modules(now_s)

    def look(self, serving: Serving, now_s: float) -> None:
        """Run the checks that are due: what may run, and what runs too long."""
        if self._instructions.server:
            self._see_server()
        if self._instructions.look:
            self._instructions.look = False
            self.check(now_s)
        elif self._database.modules_suspected or self.module_gate.look.is_due:
            self._database.check_modules()
            self._note_modules(now_s)
        if self.long_runs.due.is_due:
            self.long_runs.look(serving.backlog.holding(), serving.jobs, now_s)
        if self.long_runs.is_idle and (serving.backlog.permits or self.long_runs.any_overdue):
            self.long_runs.expect()

    def _see_server(self) -> None:
        """Check whether new connections lead to another server, as when an old primary lives on after a failover."""
        found, self._instructions.server = self._instructions.server, ""
        about = self._database.about
        if about is not None and found != about.started:
            raise DatabaseUnavailable(self._database.name, "new connections lead to another server: connects anew")

    def _note_modules(self, now_s: float) -> None:
        """Module states were read: open or close the gate."""
        self.module_gate.let_through(self._instructions.anyway)
        self.module_gate.looked(now_s)
        self._instructions.anyway = self._database.ignores_modules
        if self._progress.phase is Phase.SERVING:
            self.show_gate()

    def show_gate(self) -> None:
        """Report whether jobs run or wait for a module; jobs already running in Odoo continue either way."""
        reason = self.module_gate.reason
        self._progress.show(Phase.BLOCKED if reason else Phase.SERVING, reason)
