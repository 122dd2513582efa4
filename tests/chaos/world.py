"""What faults happen to: a cluster, its databases, a stand-in Odoo, the supervisor; and what is known of the faults."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import extensions

from qjsupervisor.testing import schema
from qjsupervisor.testing.odoo_stats import Run
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..acceptance.link import Link
from ..helpers import Supervisor, odoo_conf, wait_until
from ..replica import Replica
from . import record, rules
from .rules import Rules

CAPACITIES = {"root": 6, "root.slow": 2, "root.seq": 1}
#: A change of the configuration is in force after so long at the latest, on a machine that is busy.
IN_FORCE_S = 3.0
_TEMPLATE = "chaos_template"
#: The database that the brokers of a cluster meet in.
_LEDGER = "chaos_ledger"
#: What the first supervisor keeps for when it is cut off from them.
_FLOOR = "root:2,root.slow:1"
#: Short, so that many of each happen in a minute.
_OPTIONS = {"rescan_interval": 2, "reconcile_interval": 4, "hang_timeout": 3, "boot_timeout": 20, "connect_timeout": 5}
#: More than any channel string gives: a job in Odoo's backlog is no matter here.
_ODOO_WORKERS = 14
SQL_TIMEOUT = "-c statement_timeout=5000 -c lock_timeout=2000"


class Interruption(NamedTuple):
    """Jobs that ran in Odoo at that time (time.time()) may have been ended by it, and may run again."""

    from_s: float
    to_s: float
    database: str | None = None
    uuid: str | None = None


class Kind(NamedTuple):
    """What is not the same in all worlds."""

    #: How much more than configured at first a channel is given now and then. In half of the worlds nothing: what is
    #: too much is seen at once then.
    more: int
    #: The supervisor's connections to PostgreSQL go through a link that can swallow packets.
    link: bool
    #: Some jobs go on for long, whatever happens to PostgreSQL, and `dead_after_restart` is as long as by default.
    long: bool
    #: Databases doze and sleep after a moment without jobs; the porter is killed and stopped like any other process.
    sleeps: bool = False
    #: More than one: they are a cluster, and each may lead each database.
    supervisors: int = 1
    #: A rate, minimums and maximums, weights and ageing are configured: see rules.py.
    rules: Rules = Rules.NONE

    @classmethod
    def drawn(cls, chance: random.Random) -> Kind:
        return cls(
            more=chance.choice((0, 3)),
            link=chance.random() < 0.7,
            long=chance.random() < 0.4,
            sleeps=chance.random() < 0.4,
            supervisors=chance.choice((1, 1, 2, 3)),
            rules=chance.choice((Rules.NONE, Rules.CHANNEL, Rules.DATABASE)),
        )


class Place:
    """One supervisor, and what was done to it."""

    supervisor: Supervisor

    def __init__(self, link: Link | None) -> None:
        self.link = link
        self.master_killed = False
        self.master_stopped = False
        self.link_is_silent = False
        #: When its master is started again, where it has ended.
        self.restart_s: float | None = None


class World:
    """Owned and used by one thread; `close` ends everything."""

    def __init__(self, seed: int, databases: int, folder: Path, kind: Kind) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.kind = kind
        self.names = [f"chaos_{number}" for number in range(databases)]
        #: Dropped and made again now and then.
        self.scratch = self.names[-1]
        #: Databases whose trigger is disabled at the moment: later jobs may overtake those inserted now.
        self.deaf: set[str] = set()
        #: What was configured when, oldest first.
        self.capacities: list[tuple[float, dict[str, int]]] = []
        self.interruptions: list[Interruption] = []
        #: When the supervisor may have lost its open requests, or Odoo ended them while the jobs went on.
        self.lapses: list[Interruption] = []
        #: When a server or a link kept answers back, from when to when.
        self.delays: list[tuple[float, float]] = []
        self._hangs_until_s = 0.0
        self.restarted_s = -math.inf
        #: When a link that was silent last spoke again, and until when a ledger without its history may rely on all.
        self.silent_until_s = self.barrier_until_s = 0.0
        #: The ledger's documents of the last seconds, and when they were read.
        self._ledgers: deque[tuple[float, str]] = deque(maxlen=20)
        #: Runs in stand-ins that were stopped since.
        self.runs: list[Run] = []
        self.violations: list[str] = []
        self.places: list[Place] = []
        self._sessions: dict[str, extensions.connection] = {}
        self._stack = ExitStack()
        try:
            self._build()
        except BaseException:  # Ctrl-C included: servers must not stay
            self.close()
            raise

    #: Settings of the server.
    server: Mapping[str, str | int] = {"max_connections": 400}
    #: Until all databases are served at first.
    start_s = 40.0

    def _build(self) -> None:
        self.postgres = self._stack.enter_context(ThrowawayPostgres(settings=self.server))
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
        self.capacities.append((time.time(), dict(CAPACITIES)))
        for _ in range(self.kind.supervisors):
            link = self._stack.enter_context(Link((self.postgres.host, self.postgres.port))) if self.kind.link else None
            self.places.append(Place(link))
        for place in self.places:
            place.supervisor = Supervisor(self._conf(CAPACITIES, place.link), self.folder)
            self._stack.callback(place.supervisor.close)
        #: The one that is struck now.
        self.place = self.places[0]
        if self.kind.supervisors > 1:
            self.postgres.create_database(_LEDGER)
            done = self.place.supervisor.run("cluster", "init", timeout_s=60)
            assert done.returncode == 0, done.stderr
        for place in self.places:
            place.supervisor.start()
        wait_until(lambda: set(self.names) <= self.ready(), lambda: f"ready: there are {self.ready()}", self.start_s)

    def ready(self) -> set[str]:
        """Databases that some supervisor serves."""
        found = [place.supervisor.run("status", "--json") for place in self.places]
        states = [each for done in found if not done.returncode for each in json.loads(done.stdout)["databases"]]
        return {each["name"] for each in states if each["state"] == "ready"}

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
        self.expect_answers()
        connection = self._sessions.pop(name, None)
        if connection is None:
            connection = psycopg2.connect(**{**self.postgres.dsn(name), "options": SQL_TIMEOUT})
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

    def ask(self, statement: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """What one statement of the superuser's returns."""
        self.expect_answers()
        return self.postgres.execute("postgres", statement, params, superuser=True)

    def sessions(self, application: str = "qjsupervisor") -> list[int]:
        """The server processes of the supervisor's sessions, or of Odoo's."""
        who = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s ORDER BY datname, application_name"
        rows = self.ask(who, (application + "%",))
        return [pid for (pid,) in rows]

    def standby(self) -> Replica:
        """A synchronous one of the present server."""
        self.expect_answers()
        with ExitStack() as stack:
            new = stack.enter_context(Replica(self.postgres))
            stack.callback(self._wait_for_no_standby, self.postgres)
            self.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.ask("SELECT pg_reload_conf()")
            synchronous = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
            wait_until(lambda: self.ask(synchronous), "the standby is synchronous")
            stack.pop_all()
        return self._stack.enter_context(closing(new))

    @staticmethod
    def _wait_for_no_standby(postgres: ThrowawayPostgres) -> None:
        """Without that a server whose standby is gone would answer no commit."""

        def is_done() -> bool:
            with suppress(psycopg2.Error):
                postgres.execute("postgres", "ALTER SYSTEM RESET synchronous_standby_names", superuser=True)
                postgres.execute("postgres", "SELECT pg_reload_conf()", superuser=True)
                return True
            return False

        wait_until(is_done, "the server waits for no standby")

    # -- the cluster's ledger ----------------------------------------------------------------------------------------

    def keep_ledger(self) -> None:
        """Remember how it is now. psycopg2.Error where it cannot be read."""
        if self.kind.supervisors > 1:
            with self.session(_LEDGER) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT document::text FROM qjsupervisor.ledger")
                self._ledgers.extend((time.time(), document) for (document,) in cursor)

    def ledger_of(self, at_s: float) -> str | None:
        """The ledger as it was then, if it was read."""
        return next((document for read_s, document in reversed(self._ledgers) if read_s <= at_s), None)

    def put_ledger(self, document: str) -> None:
        with self.session(_LEDGER) as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE qjsupervisor.ledger SET document = %s, version = version + 1", (document,))

    # -- a server that hangs -----------------------------------------------------------------------------------------

    def expect_answers(self) -> None:
        """psycopg2.Error while the server hangs: faults and jobs go on around it."""
        if time.time() < self._hangs_until_s:
            raise psycopg2.OperationalError("the server hangs")

    def hang(self, seconds: float) -> None:
        """The whole server stands still."""
        self.postgres.freeze()
        self._hangs_until_s = time.time() + seconds + 0.1
        self.thaw_after(seconds)

    def thaw_after(self, seconds: float) -> None:
        """Server processes that were stopped go on. From a thread: that of the faults may itself wait for one."""
        self.delays.append((time.time(), time.time() + seconds))
        timer = threading.Timer(seconds, self.postgres.thaw)
        timer.daemon = True
        timer.start()

    # -- configuration ---------------------------------------------------------------------------------------------

    def configure(self, capacities: dict[str, int]) -> None:
        """Write the configurations with these capacities, which are in force from now on."""
        self.capacities.append((time.time(), dict(capacities)))
        for place in self.places:
            place.supervisor.write_conf(self._conf(capacities, place.link))

    def _conf(self, capacities: dict[str, int], link: Link | None) -> str:
        channels = "root:{root},root.slow:{slow},root.seq:1:sequential".format(
            root=capacities["root"], slow=capacities["root.slow"]
        )
        channels += rules.channels(self.kind.rules, is_cluster=self.kind.supervisors > 1)
        options: dict[str, object] = {**_OPTIONS, "dead_after_restart": None if self.kind.long else 0}
        options |= rules.options(self.kind.rules, self.names[0], is_cluster=self.kind.supervisors > 1)
        options |= self.options()
        sections: dict[str, dict[str, object]] = {"qjsupervisor": options}
        if self.kind.supervisors > 1:
            options |= {"cluster": "chaos", "cluster_database": _LEDGER}
            options["coordination_floor"] = _FLOOR if link is not None and link is self.places[0].link else None
        if link is not None:
            sections["options"] = {"db_host": link.host, "db_port": link.port}
        return odoo_conf(self.postgres, self.odoo.port, channels=channels, sections=sections)

    def options(self) -> dict[str, object]:
        """What else is in the section [qjsupervisor]."""
        return {"idle_timeout": 1, "sleep_timeout": 1} if self.kind.sleeps else {}

    def in_force(self, channel: str, from_s: float, to_s: float) -> int:
        """The largest capacity of a channel at that time."""
        found = 0
        for at_s, capacities in self.capacities:
            if at_s <= from_s - IN_FORCE_S:
                found = capacities[channel]
            elif at_s <= to_s:
                found = max(found, capacities[channel])
        return found

    # -- Odoo ------------------------------------------------------------------------------------------------------

    def keep_runs(self) -> None:
        """Take over what the stand-in has seen, before it forgets."""
        with suppress(OSError):
            self.runs += self.odoo.stats()["runs"]
            self.odoo.reset()

    def lapse(self, seconds: float = 0.0, database: str | None = None) -> None:
        """From now on for so long."""
        self.lapses.append(Interruption(time.time(), time.time() + seconds, database))

    def note_interruption(self, from_s: float, margin_s: float = 0.0) -> None:
        """Jobs that ran since then may have been ended; `margin_s`: so much longer, where that shows later."""
        self.interruptions.append(Interruption(from_s, time.time() + margin_s))

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """What happens in the block may end jobs that run."""
        from_s = time.time()
        try:
            yield
        finally:
            self.note_interruption(from_s)


#: Undoes a fault, or is its next step: then it returns what follows, and after how many seconds. Called again where it
#: raises.
Heal = Callable[[], "tuple[float, Heal] | None"]
