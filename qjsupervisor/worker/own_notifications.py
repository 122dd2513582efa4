"""Which notifications say something new, and which are echoes of a job of which all is known already.  Pure.

Odoo's own notifications of a job, from its start to `done`, come in while its request is open and for a moment after
its row was seen `done`. Each of the latter would cost a statement; they are expected, and let pass. One more than is
expected is news, and so is one that comes too late: what is let pass must never be somebody else's change.
"""

from __future__ import annotations

import time
from collections.abc import Container, Mapping

from ..states import JobState

#: Notifications of a job from its start to `done`.
FOREIGN_NOTIFICATIONS = 2
#: How long after a job was seen `done` they may come.
ECHO_S = 1.0
MAX_ECHOES = 1000


class Echoes:
    """How often each job was spoken of, and is still to be."""

    def __init__(self) -> None:
        #: How often each open request's job was spoken of.
        self._heard: dict[str, int] = {}
        #: How often those just done are still to be, and until when.
        self._owed: dict[str, tuple[int, float]] = {}

    def news(self, said: Mapping[str, int], open_uuids: Container[str], *, curious: bool) -> list[str]:
        """Of what was said (uuid, how often), that whose row is worth reading.

        A notification about an open request tells nothing that its end will not, unless somebody is `curious`.
        """
        news = []
        for uuid, times in said.items():
            if uuid in open_uuids:
                self._heard[uuid] = self._heard.get(uuid, 0) + times
                if curious:
                    news.append(uuid)
            elif uuid not in self._owed or not self._is_echo(uuid, times):
                news.append(uuid)
        return news

    def _is_echo(self, uuid: str, times: int) -> bool:
        """Whether a notification is one that a job that was just seen `done` still owed us, and says nothing new."""
        owed, until_s = self._owed.pop(uuid)
        if times < owed:
            self._owed[uuid] = (owed - times, until_s)
        return times <= owed and time.monotonic() < until_s

    def expect(self, uuid: str, state: str) -> None:
        """A request is over, its job in `state`: from here on the rest of its notifications are echoes."""
        owed = FOREIGN_NOTIFICATIONS - self._heard.pop(uuid, 0)
        if state == JobState.DONE and owed > 0:
            now_s = time.monotonic()
            if len(self._owed) >= MAX_ECHOES:
                self._owed = {u: echo for u, echo in self._owed.items() if echo[1] > now_s}
            self._owed[uuid] = (owed, now_s + ECHO_S)
