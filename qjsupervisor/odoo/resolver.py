"""Host names to addresses, without ever holding up a worker's loop.

Numbers and 'localhost' are answered at once. Other names are looked up in a thread that lives as long as
the one look-up: getaddrinfo cannot be interrupted, and a dead name server holds it for half a minute.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from .request import Address

#: How long an answer is used before the name is looked up again.
FRESH_S = 30.0
#: How long a failure is: all who waited for it share it.
FAILED_S = 0.5
#: For how long an address that could not be reached comes after the others; then one request tries it.
AVOIDED_S = 30.0


class NoThreadError(OSError):
    """This process has no thread to look a name up in."""


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
        #: How often an address was handed out first.
        self._turns = 0
        #: Until when an address is tried last.
        self._avoided: dict[Address, float] = {}
        self._error = ""
        self._failed_at_s = 0.0

    def addresses(self) -> list[Address] | None:
        """What is known, in the order to try it; None while a look-up is under way; raises OSError with its failure.

        The addresses of the first one's family take turns at being first, so that several Odoos behind one name share
        the jobs.
        """
        if self._running:
            return None
        if self._error and time.monotonic() - self._failed_at_s < FAILED_S:
            raise OSError(self._error)
        fresh = time.monotonic() - self._found_at_s < FRESH_S
        if self._addresses and (fresh or self._local):
            return self._in_turn(self._addresses)
        if self._local:
            self._look_up()
            return self.addresses()
        self._running = True
        try:
            threading.Thread(target=self._look_up_aside, name=f"resolve {self._host}", daemon=True).start()
        except RuntimeError as error:  # no thread to be had
            self._running = False
            raise NoThreadError(f"{self._host}: {error}") from error
        return None

    def _in_turn(self, known: list[Address]) -> list[Address]:
        if len(known) == 1:
            return known
        now_s = time.monotonic()
        good = [address for address in known if self._avoided.get(address, 0.0) <= now_s] or known
        equal = [address for address in good if address.family == good[0].family]
        first = equal[self._turns % len(equal)]
        self._turns += 1
        if first in self._avoided:  # only one request finds out whether it is back
            self._avoided[first] = now_s + AVOIDED_S
        at = equal.index(first)
        order = [*equal[at:], *equal[:at]]
        return order + [address for address in good if address not in order] + [a for a in known if a not in good]

    def note_reached(self, address: Address | None, unreachable: Sequence[Address]) -> None:
        """A connection was made, after others were `unreachable`: for a while they are tried last."""
        for other in unreachable:
            self._avoided[other] = time.monotonic() + AVOIDED_S
        if self._avoided and address is not None:
            self._avoided.pop(address, None)

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
        self._avoided = {address: s for address, s in self._avoided.items() if address in self._addresses}
        self._found_at_s = time.monotonic()


def _is_number(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False
