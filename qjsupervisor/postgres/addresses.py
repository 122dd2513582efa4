"""Resolves a server to its addresses, so that they can be tried one at a time; tells whether one is silent.

libpq applies connect_timeout to each address only when it blocks. We connect without blocking, so libpq would try a
first address that swallows packets for ever. Hence libpq gets one address at a time, and the caller limits each try.
"""

from __future__ import annotations

# getaddrinfo loads this codec and its tables on first use; loaded here, before the fork, it is shared by all workers.
import encodings.idna  # noqa: F401  (loaded for its effect, see above)
import os
import random
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

#: libpq's words when a server answered but is not of the requested kind. Then the next round is worth a try.
_WRONG_SERVER = ("session is read-only", "session is not read-only", "hot standby mode")

#: SSLRequest of PostgreSQL's protocol: a server answers it with one byte before it knows which database is wanted.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def rounds(connect_kwargs: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Keyword arguments for psycopg2.connect, one dictionary per address to try, in rounds.

    A later round is only tried if a server of the previous one was of the wrong kind (is_wrong_server). With several
    addresses and no target_session_attrs, the first round asks for a writable server; the second accepts any, so that
    the caller can say what is wrong with it. Blocks during name resolution.
    """
    if "service" in connect_kwargs or "PGSERVICE" in os.environ:
        return [[dict(connect_kwargs)]]  # only libpq reads the service file
    each = list(_each(connect_kwargs))
    if connect_kwargs.get("load_balance_hosts", os.environ.get("PGLOADBALANCEHOSTS")) == "random":
        random.shuffle(each)
    wanted = connect_kwargs.get("target_session_attrs", os.environ.get("PGTARGETSESSIONATTRS"))
    if wanted == "prefer-standby":
        attributes = ["standby", "any"]
    elif wanted is not None or len(each) == 1:
        return [each]
    else:
        attributes = ["read-write", "any"]
    return [[{**one, "target_session_attrs": attribute} for one in each] for attribute in attributes]


def is_wrong_server(message: str) -> bool:
    """Whether libpq's message says that the server is of the wrong kind."""
    return any(words in message for words in _WRONG_SERVER)


def is_silent(fd: int, limit_s: float) -> bool:
    """Whether the server at the other end of a socket accepts connections and answers nobody, whatever the database.

    False where the socket is not connected. Blocks for `limit_s` at most.
    """
    with socket.socket(fileno=os.dup(fd)) as waiting:
        try:
            peer = waiting.getpeername()
        except OSError:
            return False
        with socket.socket(waiting.family, socket.SOCK_STREAM) as asking:
            asking.settimeout(limit_s)
            try:
                asking.connect(peer)
                asking.sendall(_SSL_REQUEST)
                asking.recv(1)
            except TimeoutError:
                return True
            except OSError:  # it says no, which is an answer
                return False
    return False


def _each(connect_kwargs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    hosts = _listed(connect_kwargs, "host", "PGHOST")
    numeric = _listed(connect_kwargs, "hostaddr", "PGHOSTADDR")
    ports = _listed(connect_kwargs, "port", "PGPORT")
    number = len(numeric) or len(hosts) or 1
    if len(ports) not in (0, 1, number) or (hosts and numeric and len(hosts) != number):
        yield dict(connect_kwargs)  # libpq reports what is wrong
        return
    for index in range(number):
        one = dict(connect_kwargs)
        if ports:
            one["port"] = ports[index if len(ports) > 1 else 0]
        if hosts:
            one["host"] = hosts[index]
        if numeric:
            yield {**one, "hostaddr": numeric[index]}
        else:
            yield from _resolved(one)


def _resolved(one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One copy per address of the host. The name stays, for certificates and the password file."""
    host = one.get("host", "")
    if not host or host[0] in "/@":
        yield one
        return
    try:
        # As bytes, ASCII needs no codec.
        name = host.encode() if host.isascii() else host
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        yield one  # libpq reports the failed lookup
        return
    for address in dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found):
        yield {**one, "hostaddr": address}


def _listed(connect_kwargs: Mapping[str, Any], name: str, variable: str) -> list[str]:
    value = connect_kwargs.get(name, os.environ.get(variable))
    return [] if value in (None, "") else [each.strip() for each in str(value).split(",")]
