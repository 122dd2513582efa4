"""What faults happen to: a cluster, its databases, a stand-in Odoo, the supervisor; and what is known of the faults."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psycopg2
from psycopg2 import extensions

from qjsupervisor.testing import schema
from qjsupervisor.testing.odoo_stats import Run
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..helpers import Supervisor, odoo_conf
from . import record

CAPACITIES = {"root": 6, "root.slow": 2, "root.seq": 1}
_TEMPLATE = "chaos_template"
#: Short, so that many of each happen in a minute.
_OPTIONS = {"rescan_interval": 2, "reconcile_interval": 4, "hang_timeout": 3, "boot_timeout": 20, "connect_timeout": 2}
#: More than any channel string gives: a job in Odoo's backlog is no matter here.
_ODOO_WORKERS = 14
_SQL_TIMEOUT = "-c statement_timeout=5000 -c lock_timeout=2000"


class Interruption(NamedTuple):
    """Jobs that ran in Odoo at that time (time.time()) may have been ended by it, and may run again."""

    from_s: float
    to_s: float
    database: str | None = None
    uuid: str | None = None


class World:
    """Owned and used by one thread; `close` ends everything."""

    def __init__(self, seed: int, databases: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        #: How much more than configured at first a channel is given now and then. In half of the runs nothing: what
        #: is too much is seen at once then.
        self.more = self.chance.choice((0, 3))
        self.names = [f"chaos_{number}" for number in range(databases)]
        #: Dropped and made again now and then.
        self.scratch = self.names[-1]
        #: Databases whose trigger is disabled at the moment: later jobs may overtake those inserted now.
        self.deaf: set[str] = set()
        self.largest = dict(CAPACITIES)
        self.interruptions: list[Interruption] = []
        self.stopped: set[int] = set()
        #: Runs in stand-ins that were stopped since.
        self.runs: list[Run] = []
        self.violations: list[str] = []
        self.master_killed = False
        self._sessions: dict[str, extensions.connection] = {}
        self._stack = ExitStack()
        try:
            self._build()
        except BaseException:  # Ctrl-C included: servers must not stay
            self.close()
            raise

    def _build(self) -> None:
        self.postgres = self._stack.enter_context(ThrowawayPostgres(settings={"max_connections": 200}))
        self.postgres.create_database(_TEMPLATE)
        with closing(self.postgres.connect(_TEMPLATE)) as connection, connection.cursor() as cursor:
            schema.install(connection)
            cursor.execute(record.INSTALL)
        self.postgres.make_template(_TEMPLATE)
        for name in self.names:
            self.make_database(name)
        self.odoo = self._stack.enter_context(
            StandIn(self.postgres, workers=_ODOO_WORKERS, log=self.folder / "odoo.log")
        )
        self.supervisor = Supervisor(self.conf(CAPACITIES), self.folder)
        self._stack.callback(self.supervisor.close)
        self.supervisor.start()
        self.supervisor.wait_ready(*self.names, timeout_s=30)

    def close(self) -> None:
        for connection in self._sessions.values():
            connection.close()
        self._stack.close()

    def note(self, what: str) -> None:
        """For whoever looks for a violation's cause: what was done when."""
        with (self.folder / "faults.log").open("a") as log:
            log.write(f"{time.time():.3f} {what}\n")

    # -- databases -------------------------------------------------------------------------------------------------

    def make_database(self, name: str) -> None:
        self.postgres.create_database(name, _TEMPLATE)

    @contextmanager
    def session(self, name: str) -> Iterator[extensions.connection]:
        """A session of the role `odoo`, in autocommit, kept while it works; psycopg2.Error where it cannot be had."""
        connection = self._sessions.pop(name, None)
        if connection is None:
            connection = psycopg2.connect(**{**self.postgres.dsn(name), "options": _SQL_TIMEOUT})
            connection.autocommit = True
        try:
            yield connection
        except psycopg2.Error:
            connection.close()
            raise
        self._sessions[name] = connection

    def forget_session(self, name: str) -> None:
        connection = self._sessions.pop(name, None)
        if connection is not None:
            connection.close()

    # -- configuration ---------------------------------------------------------------------------------------------

    def conf(self, capacities: dict[str, int]) -> str:
        """The configuration with these capacities; the largest of each channel is what it may not exceed."""
        for name, capacity in capacities.items():
            self.largest[name] = max(self.largest[name], capacity)
        channels = "root:{root},root.slow:{slow},root.seq:1:sequential".format(
            root=capacities["root"], slow=capacities["root.slow"]
        )
        return odoo_conf(self.postgres, self.odoo.port, channels=channels, sections={"qjsupervisor": _OPTIONS})

    # -- Odoo ------------------------------------------------------------------------------------------------------

    def keep_runs(self) -> None:
        """Take over what the stand-in has seen, before it forgets."""
        with suppress(OSError):
            self.runs += self.odoo.stats()["runs"]
            self.odoo.reset()

    @contextmanager
    def interrupting(self, database: str | None = None, margin_s: float = 0.0) -> Iterator[None]:
        """What happens in the block may end jobs that run; so much longer, where that shows later."""
        from_s = time.time()
        try:
            yield
        finally:
            self.interruptions.append(Interruption(from_s, time.time() + margin_s, database))


#: Undoes a fault; called again where it raises.
Heal = Callable[[], None]
