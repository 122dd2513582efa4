"""The porter: looks after dozing databases, so that none of them needs a worker. A child of the master.

It holds the leader lock and LISTEN connection of up to several hundred databases, and runs no statement while nothing
happens. When a database needs a worker, the porter sends "wake", keeps the lock until the worker waits for it, and
forgets the database (dozer.py).

    {"do": "take", "database", "dsn", "server", "failed", "waits", "asleep"}   see Dozer
                                        "waits": a worker hands the lock over; "asleep": it slept at a former porter
    {"do": "hand_over", "database"}     the worker is about to wait for the lock
    {"do": "drop", "database"}          close its connection at once
    {"do": "stop"}                      let all go, for other supervisors, and exit

    {"is": "waits", "database"}         it waits for the lock
    {"is": "holds", "database"}         it has it
    {"is": "asleep", "database"}        it has let it go, and watches what is written (sleepers.py)
    {"is": "wake", "database", "reason"}    a worker is needed; the lock is kept, if it was
    {"is": "lost", "database", "reason"}    the connection is lost, and tried again
    {"is": "away", "database", "for_s"}     so it is, by an administrator
    {"is": "left", "database"}          it is done with the database
    {"is": "alive"}                     heartbeat

If a porter dies, the next one takes over its databases and examines the rows of each.
"""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from .. import logs
from ..control import Message, Pipe
from ..errors import DatabaseError, ProtocolError
from ..loop import Alarm, Loop
from ..states import EXIT_STOPPED
from .dozer import Dozer
from .reconnects import Reconnects
from .settings import PorterSettings
from .sleepers import Sleepers

#: How often it shows that it lives.
HEARTBEAT_S = 5.0
#: Interval for resending messages the master had no room for.
_FLUSH_S = 0.02
#: Time limit for releasing all databases.
_STOP_S = 1.5


def run_porter(settings: PorterSettings, pipe: Pipe) -> int:
    """Run until told to stop or the master is gone; returns the exit code. Runs in the child, after the fork."""
    return Porter(settings, pipe).run()


class Porter:
    """One porter."""

    def __init__(self, settings: PorterSettings, pipe: Pipe) -> None:
        self._settings = settings
        self._pipe = pipe
        self._loop = Loop()
        self._dozers: dict[str, Dozer] = {}
        self._servers: dict[str, Reconnects] = {}
        self._sleepers: dict[str, Sleepers] = {}
        self._unsent: deque[Message] = deque()
        self._flush_alarm = Alarm(self._loop, self._flush)
        self._stopping = False
        self._stops_at_s = 0.0
        self._gone = False
        self._log = logs.get_logger(service="porter")

    def run(self) -> int:
        """Run the loop; returns the exit code."""
        self._loop.register(self._pipe, selectors.EVENT_READ, self._hear_master)
        self._beat(time.monotonic())
        while not self._is_over():
            self._loop.turn()
        self._loop.close()
        return EXIT_STOPPED

    def _is_over(self) -> bool:
        done = not self._dozers or time.monotonic() >= self._stops_at_s
        return self._gone or (self._stopping and done)

    def _beat(self, now_s: float) -> None:
        self._loop.call_at(now_s + HEARTBEAT_S, self._beat)
        self._pipe.send({"is": "alive"})

    # -- the master ----------------------------------------------------------------------------------------------

    def _hear_master(self, now_s: float) -> None:
        try:
            for message in self._pipe.receive_all():
                self._obey(message, now_s)
        except EOFError:
            self._gone = True  # the locks end with our sessions
        except ProtocolError as error:
            self._log.error("order_refused", reason=str(error))

    def _obey(self, message: Message, now_s: float) -> None:
        order, database = message.get("do"), str(message.get("database", ""))
        dozer = self._dozers.get(database)
        if order == "stop":
            self._stop(now_s)
        elif order == "take" and dozer is None:
            self._take(database, message, now_s)
        elif dozer is None:
            self.tell({"is": "left", "database": database})
        elif order == "hand_over":
            dozer.hand_over()
        elif order == "drop":
            dozer.end()

    def _take(self, database: str, message: Message, now_s: float) -> None:
        server = str(message["server"])
        if server not in self._servers:
            reconnects = self._servers[server] = Reconnects(self._loop)
            self._sleepers[server] = Sleepers(server, message["dsn"], self._settings, self._loop, reconnects.add)
        dozer = self._dozers[database] = Dozer(
            database,
            server,
            message["dsn"],
            str(message["failed"]),
            self._settings,
            self._loop,
            self.tell,
            self._settled,
            self._lost,
            self._sleepers[server],
        )
        if message["waits"]:
            dozer.connect(now_s, waits=True)
        elif message["asleep"]:
            dozer.sleep_soon()
            self._sleepers[server].look(dozer)
        else:
            self._servers[server].add(dozer, now_s)

    def _stop(self, now_s: float) -> None:
        self._stopping = True
        self._stops_at_s = now_s + _STOP_S
        self._loop.call_at(self._stops_at_s, lambda _now_s: None)
        for dozer in list(self._dozers.values()):
            dozer.leave()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send the master a message, in the order of the calls."""
        self._unsent.append(dict(message))
        self._flush(0.0)

    def _flush(self, _now_s: float) -> None:
        while self._unsent and self._pipe.send(self._unsent[0]):
            self._unsent.popleft()
        if self._unsent and not self._pipe.gone:
            self._flush_alarm.set(time.monotonic() + _FLUSH_S)

    # -- databases -----------------------------------------------------------------------------------------------

    def _settled(self, dozer: Dozer) -> None:
        """A database has its lock or is over."""
        if dozer.is_over and self._dozers.get(dozer.database) is dozer:
            del self._dozers[dozer.database]
        self._servers[dozer.server].settled(dozer, time.monotonic())

    def _lost(self, dozer: Dozer, error: DatabaseError, now_s: float) -> None:
        """A connection was lost or could not be made."""
        if self._stopping:
            dozer.end()
        else:
            self._servers[dozer.server].failed(dozer, error, now_s)
