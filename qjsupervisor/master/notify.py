"""Notifies systemd (sd_notify): ready, reloading, stopping, a status line, and keep-alives for WatchdogSec.

Sends datagrams to the socket in $NOTIFY_SOCKET; does nothing without it. Only the master uses this.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from ..loop import Loop

#: Interval between keep-alives, as a share of the time that systemd allows.
_SHARE = 1 / 3


class Notifier:
    """Notifies systemd if it started us. The keep-alive is a timer of the loop, so it stops when the loop does."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        watchdog_us = environ.get("WATCHDOG_USEC", "")
        is_for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every_s = int(watchdog_us) / 1e6 * _SHARE if watchdog_us.isdigit() and is_for_us else 0.0

    def tell(self, *lines: str) -> None:
        """Send variables such as 'READY=1'. Errors are ignored."""
        if not self._path.startswith(("/", "@")):
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode("utf-8", "replace"), address)

    def ready(self, status: str) -> None:
        """Report the end of the start-up or of a reload."""
        self.tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Report that the configuration is being reread."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """Report that we are stopping."""
        self.tell("STOPPING=1", f"STATUS={status}")

    def feed(self, loop: Loop, status: Callable[[], str]) -> None:
        """Start sending keep-alives, each with a status line, if systemd wants them."""
        if not self._every_s:
            return

        def feed(now_s: float) -> None:
            loop.call_at(now_s + self._every_s, feed)
            self.tell("WATCHDOG=1", f"STATUS={status()}")

        loop.call_at(time.monotonic(), feed)
