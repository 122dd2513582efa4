"""A worker's reports besides its state and errors, as kept by the master. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ProtocolError
from ..states import StoppedChannel, TargetHealth, TargetState
from .modules import Modules

#: Limit for leaving a database alone, whatever its worker says.
LONGEST_AWAY_S = 60.0


class WorkerReport:
    """One worker's report. Most of it concerns one process; modules belong to the database."""

    def __init__(self) -> None:
        #: Whether this process has read its database's rows once.
        self.has_read = False
        #: Rates counted new starts since this was last cleared.
        self.has_started = False
        #: The health of its targets as this process reports it.
        self.targets: list[TargetHealth] = []
        #: Number of jobs that have been running for longer than max_runtime.
        self.overdue = 0
        #: Sequential channels stopped by a failed job of its database.
        self.stopped: list[StoppedChannel] = []
        #: Until when the database is left to an administrator who ended the worker's session.
        self.away_until_s = 0.0
        #: Modules in transition; kept when the process is replaced.
        self.modules = Modules()

    def begin(self) -> None:
        """A new process has started and reported nothing yet."""
        self.has_read = False
        self.targets, self.stopped, self.overdue = [], [], 0

    def take(self, message: Mapping[str, Any], now_s: float) -> bool:
        """Apply a message. False if it is not a report. Raises ProtocolError if it is invalid."""
        said = message.get("is")
        if said == "read":
            self.has_read = True
        elif said == "targets":
            self.targets = _healths(message.get("targets"))
        elif said == "away":
            self.away_until_s = now_s + min(_number(message.get("for_s")), LONGEST_AWAY_S)
        elif said == "stopped":
            self.stopped = _stopped(message.get("channels"))
        elif said == "overdue":
            self.overdue = int(_number(message.get("jobs")))
        elif said == "starts":
            self.has_started = True
        elif said == "modules":
            self.modules.note(_states(message.get("modules")), now_s)
        else:
            return False
        return True


def _number(told: object) -> float:
    if not isinstance(told, int | float | None):
        raise ProtocolError(f"no number: {told!r:.40}")
    return float(told or 0)


def _states(told: object) -> dict[str, str]:
    if not isinstance(told, dict):
        raise ProtocolError("modules are an object")
    return {str(name): str(state) for name, state in told.items()}


def _stopped(told: object) -> list[StoppedChannel]:
    if not isinstance(told, list):
        raise ProtocolError("stopped channels are a list")
    try:
        return [StoppedChannel(*each) for each in told]
    except TypeError as error:
        raise ProtocolError(f"no stopped channel: {error}") from error


def _healths(told: object) -> list[TargetHealth]:
    if not isinstance(told, list):
        raise ProtocolError("targets are a list")
    try:
        return [TargetHealth(url, TargetState(state), *rest) for url, state, *rest in told]
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"no target: {error}") from error
