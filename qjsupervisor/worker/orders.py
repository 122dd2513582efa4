"""A worker's orders: from its master, by a signal, or implied by its master's death.

Orders are noted here and carried out by the worker's loop, because a signal may arrive during a statement.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from ..config.settings import ServingRules
from ..control import Message, Pipe
from ..errors import ProtocolError
from ..loop import Alarm, Loop
from ..states import RELEASED

#: A worker that does not exit within this time after its master's death is ended by the kernel.
MASTER_GONE_LIMIT_S = 4
#: Orders that are done when the loop comes to it, and what notes them.
_FLAGS = {
    "channels": "rebuild",
    "resync": "rebuild",
    "look": "look",
    "doze": "doze",
    "take_over": "from_porter",
}


class Instructions:
    """The current orders of one worker."""

    def __init__(
        self,
        pipe: Pipe,
        wakeup: int,
        log: FilteringBoundLogger,
        loop: Loop,
        *,
        on_pauses: Callable[[], None],
        on_rules: Callable[[], None] = lambda: None,
    ) -> None:
        """`wakeup`: an eventfd the loop watches. `on_pauses`, `on_rules`: called when these change."""
        self._pipe = pipe
        self._wakeup = wakeup
        self._log = log
        self._on_pauses = on_pauses
        self._on_rules = on_rules
        self._loop = loop
        loop.register(pipe, selectors.EVENT_READ, self._hear)
        self._pause_end = Alarm(loop, self._end_pauses)
        self.stop = False
        #: Another worker of ours follows after the stop, so the database is not let go.
        self.returns = False
        #: The scout found that the database no longer exists.
        self.gone = False
        #: Channels and their jobs must be read again.
        self.rebuild = False
        #: Channel -> when its pause ends (None: only by order).
        self.pauses: dict[str, float | None] = {}
        #: Settings that change without a restart.
        self.rules = ServingRules()
        #: Check whether the database may be served and its jobs may run.
        self.look = False
        #: Start time of the server that new connections reach, as found by the scout; '' if unknown.
        self.server = ""
        #: The schedule's limits for the database's own channels: complete name -> jobs at once.
        self.limits: dict[str, int] = {}
        #: If set, only the database with this oid may be served under this name.
        self.only_oid: int | None = None
        #: Run jobs although modules are in transition.
        self.anyway = False
        #: The porter waits for the leader lock: hand it over, if there is still nothing to do.
        self.doze = False
        #: The porter has the leader lock, and hands it over.
        self.from_porter = False

    def attach(self) -> None:
        """Install the signal handlers."""
        signal.signal(signal.SIGTERM, self._note_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _note_stop(self, _signum: int, _frame: object) -> None:
        """SIGTERM: from an operator, or because the master died."""
        self.stop = True
        signal.alarm(MASTER_GONE_LIMIT_S)
        os.eventfd_write(self._wakeup, 1)  # a signal alone does not wake the loop

    def _hear(self, _now_s: float) -> None:
        try:
            for message in self._pipe.receive_all():
                self._obey(message)
        except EOFError:
            self._log.warning("master_lost")
            self._loop.unregister(self._pipe)
            self.stop = True
            signal.alarm(MASTER_GONE_LIMIT_S)
        except ProtocolError as error:
            self._log.error("order_refused", reason=str(error))

    def _obey(self, message: Message) -> None:
        """Do as a message says; one that makes no sense costs a line."""
        try:
            self._take(message)
        except (ProtocolError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"order {str(message.get('do'))[:80]!r} makes no sense: {type(error).__name__}: {error}"
            self._log.error("order_refused", reason=reason)

    def _take(self, message: Message) -> None:
        order = message.get("do")
        if order == "stop":
            self.gone = message.get("gone") is True
            self.stop = not self.gone
            self.returns = message.get("restart") is True
        elif order == "pauses":
            self._set_pauses(message["pauses"])
        elif order in _FLAGS:
            setattr(self, _FLAGS[order], True)
        elif order == "server":
            self.server = str(message.get("started"))
        elif order == "limits":
            self.limits = {str(name): int(limit) for name, limit in message["limits"].items()}
            self._on_pauses()
        elif order == "only":
            self.only_oid = None if message["oid"] is None else int(message["oid"])
            self.look = True
        elif order == "modules":
            self.anyway = self.look = message.get("anyway") is True
        elif order == "rules":
            self.rules = ServingRules.from_message(message["rules"])
            self._on_rules()
        else:
            self._log.error("order_refused", reason=f"unknown order {order!r}")

    @property
    def is_released(self) -> bool:
        """Whether the database is released to an administrator."""
        return RELEASED in self.pauses

    @property
    def paused_channels(self) -> set[str]:
        """Channels in which nothing starts."""
        return self.pauses.keys() - {RELEASED}

    def _set_pauses(self, pauses: dict[str, float | None]) -> None:
        pauses = {name: None if end_s is None else float(end_s) for name, end_s in pauses.items()}
        self.pauses = pauses
        self._pause_end.set(min([end_s for end_s in pauses.values() if end_s is not None], default=math.inf))
        self._on_pauses()

    def _end_pauses(self, now_s: float) -> None:
        """Forget expired pauses."""
        self._set_pauses({name: end_s for name, end_s in self.pauses.items() if end_s is None or end_s > now_s})
