"""Lines for the log that many databases may have for one cause: the master writes one for all of them.

See master/database_log.py.
"""

from __future__ import annotations

from typing import Any

from ..control import Pipe
from ..logs import EventLog


class ForwardingLog:
    """The lines of one worker. Where the master does not take one it is written here. Lines about jobs do not belong
    here: they are many, and of one database each."""

    def __init__(self, pipe: Pipe, log: EventLog) -> None:
        self._pipe = pipe
        self._log = log

    def debug(self, event: str, **facts: Any) -> None:
        self._log.debug(event, **facts)

    def info(self, event: str, **facts: Any) -> None:
        if not self._tell("info", event, facts):
            self._log.info(event, **facts)

    def warning(self, event: str, **facts: Any) -> None:
        if not self._tell("warning", event, facts):
            self._log.warning(event, **facts)

    def error(self, event: str, **facts: Any) -> None:
        if not self._tell("error", event, facts):
            self._log.error(event, **facts)

    def _tell(self, level: str, event: str, facts: dict[str, Any]) -> bool:
        return self._pipe.send({"is": "log", "level": level, "event": event, "facts": facts})
