"""Requests to the running supervisor over its control socket."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..config.load import Config
from ..control_client import NotRunning, ask
from ..errors import ProtocolError, QJSupervisorError

#: sysexits.h EX_UNAVAILABLE: no supervisor answers.
EX_UNAVAILABLE = 69
#: The supervisor answered and refused.
EX_REFUSED = 1
TIMEOUT_S = 5.0
#: Twice the supervisor's limit for reading its configuration, as another reload may be under way.
RELOAD_TIMEOUT_S = 25.0


class Unavailable(QJSupervisorError):
    """No supervisor answers."""

    exit_status = EX_UNAVAILABLE


class Refused(QJSupervisorError):
    """The supervisor refused an order; the message is its own."""

    exit_status = EX_REFUSED


def order(config: Config, do: str, *, timeout_s: float = TIMEOUT_S, **details: object) -> dict[str, Any]:
    """Send an order, stating who gives it, and return the answer. Raises Unavailable or Refused."""
    return _ask(config, do, timeout_s, {**details, "by": _who()})


def note(config: Config, order: str, **details: object) -> None:
    """Have the running supervisor, if any, log what this command did itself."""
    with suppress(Unavailable, Refused):
        _ask(config, "note", TIMEOUT_S, {"order": order, **details, "by": _who()})


def _who() -> str:
    """Who gives the order, for the log."""
    try:
        return f"{pwd.getpwuid(os.getuid()).pw_name} (command line)"
    except KeyError:  # a container's user without a passwd entry
        return f"user id {os.getuid()} (command line)"


def _ask(config: Config, do: str, timeout_s: float, details: Mapping[str, object]) -> dict[str, Any]:
    path = config.control_socket
    try:
        answer = ask(path, {"do": do, **details}, timeout_s=timeout_s)
    except (NotRunning, ProtocolError, OSError) as error:
        raise Unavailable(str(error)) from error
    if not answer.get("ok", True) or "error" in answer:
        raise Refused(str(answer.get("error") or f"the supervisor refused to {do}"))
    return answer


def status(config: Config) -> dict[str, Any]:
    """What `status --json` prints. Raises Unavailable."""
    answer = _ask(config, "status", TIMEOUT_S, {})
    inner = answer.get("status", answer)
    return {key: value for key, value in inner.items() if key != "ok"} if isinstance(inner, dict) else {}


def status_or_none(config: Config) -> Mapping[str, Any] | None:
    """The status, or None if no supervisor answers."""
    try:
        return status(config)
    except Unavailable:
        return None
