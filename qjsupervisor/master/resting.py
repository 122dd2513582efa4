"""The master's side of the porters: which porter has which database, and the orders they get.

A worker reports that it is idle -> a porter is ordered to take its database and waits for the lock -> the worker hands
it over and exits -> the database dozes. A porter calls -> a worker is spawned and announces that it waits -> the porter
hands over the lock. Messages: see control and porter. A database's state is in its WorkerProcess; this module only
knows who has it. Used only if idle_timeout is set. A porter that dies is replaced and told what dozes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ..control import Message
from ..logs import get_logger
from ..loop import Alarm
from ..porter.settings import NONE_FAILED, PorterSettings
from ..states import Wakefulness, WorkerState
from .fleet import Fleet
from .parts import MasterParts
from .service import Service
from .worker_process import WorkerProcess

#: Most connections per porter. What sleeps has none: one porter can watch all that sleep.
MOST = 500
_WATCH_S = 5.0
#: After this many deaths in a row, each within HEALTHY_S, one of its databases may be what kills a porter. Another
#: porter takes half of them, and so on, until FEW are left; these get workers.
DEATHS = 4
HEALTHY_S = 30.0
FEW = 16
#: Most porters made this way, in case it is not a database that kills them.
MOST_HALVINGS = 16
#: Reports of a porter about databases it looks after.
_ATTENDS = {"holds": Wakefulness.DOZING, "asleep": Wakefulness.ASLEEP}
#: Databases moving from workers to porters at the same time; the others wait.
AT_ONCE = 8
#: Interval for resending orders a porter had no room for.
_FLUSH_S = 0.02


class _Porter:
    """One porter, its databases, and orders it could not take yet."""

    def __init__(self, resting: Resting, parts: MasterParts, number: int) -> None:
        name = "porter" if number == 1 else f"porter {number}"
        #: Database -> its failed jobs as counted by its worker; see postgres.rest.
        self.databases: dict[str, str] = {}
        #: Those of them that have no connection.
        self.asleep: set[str] = set()
        self.heard_s = self.started_s = 0.0
        #: Consecutive deaths soon after its start.
        self.early_deaths = 0
        self.settings = PorterSettings(session_mark=0, connect_timeout_s=0.0)
        self.unsent: deque[Message] = deque()
        self.flush_alarm = Alarm(parts.loop, self.flush)
        self.service = Service(
            name,
            parts.spawner,
            parts.loop,
            take=lambda message, now_s: resting.hear(self, message, now_s),
            on_start=lambda now_s: resting.started(self, now_s),
            on_end=lambda now_s: resting.ended(self, now_s),
        )

    def tell(self, message: Message, now_s: float) -> None:
        self.unsent.append(message)
        self.flush(now_s)

    def let_go(self, database: str) -> None:
        self.databases.pop(database, None)
        self.asleep.discard(database)

    def flush(self, now_s: float) -> None:
        while self.unsent and self.service.send(self.unsent[0]):
            self.unsent.popleft()
        if self.unsent and self.service.pid is not None:
            self.flush_alarm.set(now_s + _FLUSH_S)


class Resting:
    """All porters of one supervisor."""

    def __init__(
        self, parts: MasterParts, fleet: Fleet, settings: Callable[[], PorterSettings], hang_s: float, most: int = MOST
    ) -> None:
        self._parts = parts
        self._fleet = fleet
        self._settings = settings
        self._hang_s = hang_s
        self._most = most
        self._porters: list[_Porter] = []
        self._of: dict[str, _Porter] = {}
        #: Idle databases waiting for their turn, with their failed jobs, and those moving to a porter.
        self._idle: dict[str, str] = {}
        self._on_the_way: set[str] = set()
        self._watch_alarm = Alarm(parts.loop, self._watch)
        self._halvings = 0
        self._stopping = False
        self._log = get_logger()

    # -- workers -------------------------------------------------------------------------------------------------

    def hear_worker(self, worker: WorkerProcess, message: Mapping[str, Any], now_s: float) -> None:
        """Handle a worker's message about idleness."""
        said, database = message["is"], worker.database
        if said == "idle":
            self._idle[database] = str(message.get("failed", ""))
            self._give_next(now_s)
        elif said == "stays":
            self.forget(database, now_s)
        elif said == "door":
            self._tell(database, {"do": "hand_over"}, now_s)

    def begin(self, database: str, now_s: float) -> None:
        """A new database that needs no worker yet."""
        worker = self._fleet.workers[database]
        sleeps = self._settings().sleep_timeout_s is not None
        worker.doze_unread(Wakefulness.ASLEEP if sleeps else Wakefulness.DOZING)
        self._give(worker, NONE_FAILED, now_s, waits=False)

    def _give_next(self, now_s: float) -> None:
        """Give the next databases to porters. One that is no longer idle says so when asked for the lock."""
        while self._idle and len(self._on_the_way) < AT_ONCE and not self._stopping:
            database = next(iter(self._idle))
            failed = self._idle.pop(database)
            worker = self._fleet.workers.get(database)
            if worker is None or worker.pid is None or worker.state is not WorkerState.READY or database in self._of:
                continue
            self._on_the_way.add(database)
            self._give(worker, failed, now_s, waits=True)

    def _arrived(self, database: str, now_s: float) -> None:
        """A database is no longer moving to a porter."""
        if database in self._on_the_way:
            self._on_the_way.discard(database)
            self._give_next(now_s)

    def has(self, database: str) -> bool:
        """Whether a porter has the database's lock, or may have it."""
        return database in self._of

    def forget(self, database: str, now_s: float) -> None:
        """Take a database from its porter, which closes its connection at once."""
        self._tell(database, {"do": "drop"}, now_s)

    def _give(
        self, worker: WorkerProcess, failed: str, now_s: float, *, waits: bool, porter: _Porter | None = None
    ) -> None:
        porter = porter or self._with_room(now_s)
        porter.databases[worker.database] = failed
        is_asleep = worker.wakefulness is Wakefulness.ASLEEP
        if is_asleep:
            porter.asleep.add(worker.database)
        self._of[worker.database] = porter
        order: Message = {
            "do": "take",
            "database": worker.database,
            "dsn": worker.settings.connect_kwargs,
            "server": worker.settings.server,
            "failed": failed,
            "waits": waits,
            "asleep": is_asleep,
        }
        porter.tell(order, now_s)

    def _tell(self, database: str, order: Message, now_s: float) -> None:
        porter = self._of.get(database)
        if porter is not None:
            porter.tell({**order, "database": database}, now_s)

    # -- porters -------------------------------------------------------------------------------------------------

    def _with_room(self, now_s: float) -> _Porter:
        for porter in self._porters:
            if len(porter.databases) - len(porter.asleep) < self._most:
                return porter
        return self._add_porter(now_s)

    def _add_porter(self, now_s: float) -> _Porter:
        porter = _Porter(self, self._parts, len(self._porters) + 1)
        self._porters.append(porter)
        self._run(porter, now_s)
        self._watch_alarm.set(now_s + _WATCH_S)
        return porter

    def _run(self, porter: _Porter, now_s: float) -> None:
        porter.settings, run = self._settings(), self._parts.run_porter
        porter.service.run(lambda pipe: run(porter.settings, pipe), now_s)

    def reload(self, now_s: float, *, is_wanted: bool) -> None:
        """The configuration was read again; `is_wanted` False: nothing may doze any more."""
        for porter in self._porters:
            if porter.settings != self._settings():
                self._run(porter, now_s)
        if not is_wanted:
            for worker in self._fleet.workers.values():
                worker.wake(now_s)

    def started(self, porter: _Porter, now_s: float) -> None:
        """A porter was forked: send it its orders."""
        porter.heard_s = porter.started_s = now_s
        porter.flush(now_s)

    def ended(self, porter: _Porter, now_s: float) -> None:
        """A porter died and its locks are gone: the next one takes dozing databases; living workers keep theirs."""
        porter.unsent.clear()
        lived_s = now_s - porter.started_s
        porter.early_deaths = porter.early_deaths + 1 if lived_s < HEALTHY_S else 0
        left, porter.databases = sorted(porter.databases.items()), {}
        porter.asleep.clear()
        takers = self._takers(porter, len(left), now_s)
        for number, (database, failed) in enumerate(left):
            self._of.pop(database, None)
            self._on_the_way.discard(database)
            worker = self._fleet.workers.get(database)
            if worker is None or self._stopping:
                continue
            if not takers or worker.wakefulness is Wakefulness.AWAKE:
                worker.wake(now_s)  # in case it has handed over its lock and is about to exit
            else:
                worker.doze_troubled("the porter ended; another one takes the database")
                self._give(worker, failed, now_s, waits=False, porter=takers[number % len(takers)])

    def _takers(self, porter: _Porter, many: int, now_s: float) -> list[_Porter]:
        """The porters that take the `many` databases of one that died; none: workers do."""
        if porter.early_deaths < DEATHS or self._stopping:
            return [porter]
        died = f"it died {DEATHS} times in a row" if porter.early_deaths == DEATHS else "it died again"
        if many <= FEW:
            self._log.error("porter_fails", databases=many, reason=f"{died}: its databases get workers instead")
            return []
        if self._halvings == MOST_HALVINGS:
            return [porter]
        self._halvings += 1
        self._log.error("porter_fails", databases=many, reason=f"{died}: another porter takes half of its databases")
        other = self._add_porter(now_s)
        other.early_deaths = porter.early_deaths = DEATHS
        return [porter, other]

    def hear(self, porter: _Porter, message: Mapping[str, Any], now_s: float) -> None:
        """Handle a porter's message."""
        porter.heard_s = now_s
        said, database = message.get("is"), str(message.get("database", ""))
        worker = self._fleet.workers.get(database)
        if said == "left":
            self._left(porter, database, worker, now_s)
        elif worker is None or self._of.get(database) is not porter:
            if said not in ("alive", None):
                porter.tell({"do": "drop", "database": database}, now_s)
        elif said == "waits":
            worker.send({"do": "doze"})
        elif said in _ATTENDS:
            self._arrived(database, now_s)
            (porter.asleep.add if said == "asleep" else porter.asleep.discard)(database)
            worker.doze_well(_ATTENDS[str(said)])
        elif said == "lost":
            worker.doze_troubled(str(message.get("reason") or ""))
        elif said == "away":
            self._fleet.leave_alone(database, now_s + float(message.get("for_s") or 0.0))
        elif said == "wake":
            worker.wake(now_s, str(message.get("reason") or "") or None)

    def _left(self, porter: _Porter, database: str, worker: WorkerProcess | None, now_s: float) -> None:
        """A porter is done with a database, which may now need a worker."""
        porter.let_go(database)
        if self._of.get(database) is porter:
            del self._of[database]
            self._arrived(database, now_s)
        if worker is not None and not self._stopping:
            worker.wake(now_s)

    def _watch(self, now_s: float) -> None:
        """Replace porters that hang."""
        for porter in self._porters:
            if porter.service.age_s(now_s) > self._hang_s and now_s > porter.heard_s + self._hang_s:
                porter.service.replace(f"no heartbeat for {self._hang_s:g} s")
        self._watch_alarm.set(now_s + _WATCH_S)

    # -- for the master ------------------------------------------------------------------------------------------

    def reaped(self, pid: int, exit_code: int, now_s: float) -> bool:
        """Handle the exit of a child; False if it was no porter."""
        return any(porter.service.reaped(pid, exit_code, now_s) for porter in self._porters)

    @property
    def pids(self) -> list[int]:
        """Process ids of the running porters."""
        return [porter.service.pid for porter in self._porters if porter.service.pid is not None]

    @property
    def problem(self) -> str | None:
        """Why dozing databases are not looked after, or None."""
        dead = next((each.service for each in self._porters if each.service.pid is None and each.databases), None)
        return f"the porter does not run: {dead.last_error}" if dead and dead.last_error else None

    def close_in_child(self) -> None:
        for porter in self._porters:
            porter.service.close_in_child()

    def dismiss(self) -> None:
        """The supervisor stops: have porters release all databases and exit."""
        self._stopping = True
        self._watch_alarm.clear()
        for porter in self._porters:
            porter.service.dismiss()

    def kill(self) -> None:
        """Kill all porters."""
        self._stopping = True
        self._watch_alarm.clear()
        for porter in self._porters:
            porter.service.kill()
