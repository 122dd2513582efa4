"""Resolves host names without ever blocking a worker's loop.

Numeric addresses and 'localhost' are answered at once. Other names are looked up in a thread that lives for that one
lookup: getaddrinfo cannot be interrupted, and a dead name server blocks it for half a minute.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from .request import Address

#: How long an answer is used before the next lookup.
FRESH_S = 30.0
#: How long a failure is used, so that all who waited for it share it.
FAILED_S = 0.5
#: How long an unreachable address is tried last; after that one request tries it again.
AVOIDED_S = 30.0


class NoThreadError(OSError):
    """No thread could be started for a lookup."""


class Resolver:
    """Looks up one host; `wakeup` is an eventfd that is written when a lookup ends.

    `turn`: which address comes first at the first time. Each worker has its own resolver, and most send few jobs: with
    one value for all of them, the first address would get them all.
    """

    def __init__(self, host: str, port: int, wakeup: int, turn: int = 0) -> None:
        self._host = host
        self._port = port
        self._wakeup = wakeup
        self._local = host == "localhost" or _is_number(host)
        self._running = False
        self._found_at_s = 0.0
        self._addresses: list[Address] = []
        self._turns = turn
        #: Until when an address is tried last.
        self._avoided: dict[Address, float] = {}
        self._error = ""
        self._failed_at_s = 0.0

    def addresses(self) -> list[Address] | None:
        """The addresses in the order to try them; None while a lookup is running. Raises OSError if it failed.

        The addresses of the first one's family take turns at the front, so that several Odoos behind one name share the
        jobs.
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
        except RuntimeError as error:  # no thread available
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
        if first in self._avoided:  # a single request finds out whether it is back
            self._avoided[first] = now_s + AVOIDED_S
        at = equal.index(first)
        order = [*equal[at:], *equal[:at]]
        return order + [address for address in good if address not in order] + [a for a in known if a not in good]

    def note_reached(self, address: Address | None, unreachable: Sequence[Address]) -> None:
        """Note that a connection was made after others were `unreachable`, which are then tried last for a while."""
        for other in unreachable:
            self._avoided[other] = time.monotonic() + AVOIDED_S
        if self._avoided and address is not None:
            self._avoided.pop(address, None)

    def _look_up_aside(self) -> None:
        self._look_up()
        self._running = False
        with suppress(OSError):  # closed: the worker is exiting
            os.eventfd_write(self._wakeup, 1)

    def _look_up(self) -> None:
        try:
            # Bytes, because a plain name needs no IDNA, whose tables would take half a megabyte in each worker.
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
