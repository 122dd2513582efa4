"""`eventlistener`: under supervisord, restarts a supervisor whose master does not answer, and logs its states.

supervisord itself only sees whether the process exists. On TICK events this command asks over the control socket; if
there is no answer for `patience_s`, it has supervisord restart the program. Standard output belongs to supervisord's
protocol, so messages go to standard error.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any
from xmlrpc.client import Error as RpcError  # nosec B411  (its answers come from supervisord, who runs us)

from supervisor import childutils

from ..config.settings import Config
from ..control_client import ask
from ..errors import QJSupervisorError
from ..text import printable

#: Shorter than the interval of TICK_5 events.
_ASK_S = 4.0


class Watch:
    """Decides when to restart, from when the master last answered; calls `restart` with the reason."""

    def __init__(self, patience_s: float, restart: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._patience_s = patience_s
        self._restart = restart
        self._clock = clock
        self._answered_s = clock()

    def begin(self) -> None:
        """The program was started: begin to measure its silence anew."""
        self._answered_s = self._clock()

    def look(self, answers: bool) -> None:
        """Note whether the master answered."""
        if answers:
            self.begin()
            return
        silent_s = self._clock() - self._answered_s
        if silent_s >= self._patience_s:
            self._restart(f"no answer for {silent_s:.0f} s")
            self.begin()


def run(config: Config, program: str, patience_s: float) -> int:
    """Listen until supervisord ends this process."""
    if "SUPERVISOR_SERVER_URL" not in os.environ:
        raise QJSupervisorError("eventlistener is run by supervisord, which needs [unix_http_server]; see conf/")
    watch = Watch(patience_s, lambda reason: _restart(program, reason), time.monotonic)
    while True:
        headers, payload = childutils.listener.wait(sys.stdin, sys.stdout)
        event = headers["eventname"]
        if event.startswith("TICK"):
            if _is_running(program):
                watch.look(_answers(config.control_socket))
            else:
                watch.begin()
        elif event.startswith("PROCESS_STATE"):
            _log_state(event, childutils.get_headers(payload), program)
        childutils.listener.ok(sys.stdout)


def _answers(path: str) -> bool:
    try:
        ask(path, {"do": "status"}, timeout_s=_ASK_S)
    except QJSupervisorError:
        return False
    return True


def _rpc() -> Any:
    return childutils.getRPCInterface(os.environ).supervisor


def _is_running(program: str) -> bool:
    """Whether the program is running: not starting, stopping, or stopped by an operator."""
    try:
        return bool(_rpc().getProcessInfo(program)["statename"] == "RUNNING")
    except (RpcError, OSError) as error:
        _say(f"supervisord does not tell how {program} is: {error}")
        return False


def _restart(program: str, reason: str) -> None:
    _say(f"{program} is restarted: {reason}")
    try:
        _rpc().stopProcess(program)
        _rpc().startProcess(program)
    except (RpcError, OSError) as error:
        _say(f"{program} could not be restarted: {error}")


def _log_state(event: str, facts: Mapping[str, str], program: str) -> None:
    if facts.get("processname") == program.rpartition(":")[2]:
        state, former = event.removeprefix("PROCESS_STATE_"), facts.get("from_state")
        expected = {"0": ", unexpectedly"}.get(facts.get("expected", ""), "")
        _say(f"{program}: {former} -> {state}{expected}, process {facts.get('pid', '-')}")


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {printable(text)}\n")
    sys.stderr.flush()
