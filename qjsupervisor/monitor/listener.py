"""The monitor's listening socket, opened by the master so that one monitor can replace another without a gap."""

from __future__ import annotations

import socket

#: Limit of connections waiting to be accepted.
_BACKLOG = 512


def listen(address: tuple[str, int]) -> socket.socket:
    """A non-blocking listener. Raises OSError if the address cannot be used."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
