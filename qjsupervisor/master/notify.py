"""What systemd is told (sd_notify): ready, reloading, stopping, a line of status, and signs of life for WatchdogSec.

A datagram to the socket that $NOTIFY_SOCKET names; without it nothing is done. Only the master speaks.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from ..loop import Loop

#: Of the time that systemd allows between two signs of life.
_SHARE = 1 / 3


class Notifier:
    """Tells systemd, if it started us. A sign of life is a timer of the loop: it comes only while the loop turns."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        watchdog_us = environ.get("WATCHDOG_USEC", "")
        is_for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every_s = int(watchdog_us) / 1e6 * _SHARE if watchdog_us.isdigit() and is_for_us else 0.0

    def tell(self, *lines: str) -> None:
        """Send variables, as 'READY=1'; whether anybody hears them is not our business."""
        if not self._path.startswith(("/", "@")):
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode("utf-8", "replace"), address)

    def ready(self, status: str) -> None:
        """Started, or a reload is done."""
        self.tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """On the way out."""
        self.tell("STOPPING=1", f"STATUS={status}")

    def feed(self, loop: Loop, status: Callable[[], str]) -> None:
        """Give signs of life from now on, each with a line of status, if systemd wants any."""
        if not self._every_s:
            return

        def feed(now_s: float) -> None:
            loop.call_at(now_s + self._every_s, feed)
            self.tell("WATCHDOG=1", f"STATUS={status()}")

        loop.call_at(time.monotonic(), feed)
