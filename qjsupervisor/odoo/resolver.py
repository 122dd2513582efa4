"""Host names to addresses, without ever holding up a worker's loop.

Numbers and 'localhost' are answered at once. Other names are looked up in a thread that lives as long as
the one look-up: getaddrinfo cannot be interrupted, and a dead name server holds it for half a minute.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress

from .request import Address

#: How long an answer is used before the name is looked up again.
FRESH_S = 30.0
#: How long a failure is: all who waited for it share it.
FAILED_S = 0.5


class Resolver:
    """Looks up one host; `wakeup` is an eventfd that is written when a look-up ended."""

    def __init__(self, host: str, port: int, wakeup: int) -> None:
        self._host = host
        self._port = port
        self._wakeup = wakeup
        self._local = host == "localhost" or _is_number(host)
        self._running = False
        self._found_at_s = 0.0
        self._addresses: list[Address] = []
        self._error = ""
        self._failed_at_s = 0.0

    def addresses(self) -> list[Address] | None:
        """What is known, best first; None while a look-up is under way; raises OSError with its failure."""
        if self._running:
            return None
        if self._error and time.monotonic() - self._failed_at_s < FAILED_S:
            raise OSError(self._error)
        fresh = time.monotonic() - self._found_at_s < FRESH_S
        if self._addresses and (fresh or self._local):
            return self._addresses
        if self._local:
            self._look_up()
            return self.addresses()
        self._running = True
        try:
            threading.Thread(target=self._look_up_aside, name=f"resolve {self._host}", daemon=True).start()
        except RuntimeError as error:  # no thread to be had
            self._running = False
            raise OSError(f"{self._host}: {error}") from error
        return None

    def prefer(self, address: Address | None) -> None:
        """This one could be reached: try it first from now on."""
        if address in self._addresses[1:]:
            self._addresses.sort(key=lambda other: other != address)

    def _look_up_aside(self) -> None:
        self._look_up()
        self._running = False
        with suppress(OSError):  # closed: the worker is on its way out
            os.eventfd_write(self._wakeup, 1)

    def _look_up(self) -> None:
        try:
            # Bytes: a plain name needs no IDNA, whose tables are half a megabyte in each worker.
            host = self._host.encode("ascii" if self._host.isascii() else "idna")
            found = socket.getaddrinfo(host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self._error = f"{self._host}: {error.strerror if isinstance(error, OSError) else error}"
            self._failed_at_s = time.monotonic()
            return
        self._error = ""
        self._addresses = [Address(family, sockaddr) for family, _, _, _, sockaddr in found]
        self._found_at_s = time.monotonic()


def _is_number(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False
