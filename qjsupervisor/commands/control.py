"""`reload`, `stop`, `pause`, `release`, `resume`: each sends one order to the running supervisor."""

from __future__ import annotations

import os
import selectors
from collections.abc import Mapping
from typing import Any

from ..config.load import Config
from ..postgres.eligibility import named
from ..text import seconds
from .arguments import ScopeArgument
from .client import RELOAD_TIMEOUT_S, order, status
from .output import print_line

#: Time beyond graceful_timeout that ending stubborn children may take.
EXTRA_S = 10.0
_EXIT_STILL_THERE = 1


def reload(config: Config) -> int:
    """Make the supervisor read its configuration again; it answers with any error."""
    answer = order(config, "reload", timeout_s=RELOAD_TIMEOUT_S)
    print_line("configuration read again")
    for option in _names(answer, "needs_restart"):
        print_line(f"{option}: takes effect at the next start only")
    restarted = _names(answer, "restarted")
    if restarted:
        print_line(f"workers restarted, because their settings changed: {', '.join(restarted)}")
    return 0


def stop(config: Config) -> int:
    """Stop the supervisor and wait for its end."""
    pid = status(config).get("pid")
    with _Watch(pid if isinstance(pid, int) else None) as watch:
        order(config, "stop")
        timeout_s = config.graceful_timeout_s + EXTRA_S
        if not watch.can_tell:
            print_line("told to stop")
        elif watch.wait(timeout_s):
            print_line(f"stopped (was process {pid})")
        else:
            print_line(f"process {pid} was told to stop and is still there after {timeout_s:.0f} s")
            return _EXIT_STILL_THERE
    return 0


def pause(config: Config, scope: ScopeArgument, for_s: float | None) -> int:
    """Start no more jobs in the scope, for a time or until resumed."""
    answer = order(config, "pause", database=scope.database, channel=scope.channel, for_s=for_s)
    until = "until resumed" if for_s is None else f"for {seconds(for_s)}"
    print_line(f"paused {until}: {scope}; what runs in Odoo runs on")
    _print_warning(answer)
    return 0


def release(config: Config, database: str, for_s: float | None) -> int:
    """Close the connection to a database and stay away, for a time or until resumed."""
    order(config, "release", database=database, for_s=for_s)
    until = "until resumed" if for_s is None else f"for {seconds(for_s)}"
    print_line(f"released {until}: {database}; what runs in Odoo runs on")
    return 0


def resume(config: Config, scope: ScopeArgument, *, anyway: bool = False) -> int:
    """End a pause; `anyway`: run jobs although modules are half installed."""
    if anyway:
        answer = order(config, "resume", database=scope.database, channel=scope.channel, anyway=True)
        print_line(f"{scope}: jobs run although {named(_states(answer))}")
        return 0
    answer = order(config, "resume", database=scope.database, channel=scope.channel)
    print_line(f"resumed: {scope}")
    _print_warning(answer)
    return 0


def _print_warning(answer: Mapping[str, Any]) -> None:
    if answer.get("warning"):
        print_line(f"note: {answer['warning']}")


def _states(answer: Mapping[str, Any]) -> dict[str, str]:
    value = answer.get("modules")
    return {str(name): str(state) for name, state in value.items()} if isinstance(value, dict) else {}


def _names(answer: Mapping[str, Any], key: str) -> list[str]:
    value = answer.get(key)
    return [str(each) for each in value] if isinstance(value, list) else []


class _Watch:
    """Waits for the end of a process that is not our child.

    Created before the process is told to end, so that a reused process id cannot be mistaken for it.
    """

    def __init__(self, pid: int | None) -> None:
        self._fd: int | None = None
        if pid is not None:
            try:
                self._fd = os.pidfd_open(pid)
            except OSError:  # an old kernel, or a process in another container
                self._fd = None

    @property
    def can_tell(self) -> bool:
        """Whether `wait` works here."""
        return self._fd is not None

    def wait(self, timeout_s: float) -> bool:
        """Wait; whether the process ended within the time."""
        assert self._fd is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._fd, selectors.EVENT_READ)
            return bool(selector.select(timeout_s))

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._fd is not None:
            os.close(self._fd)
