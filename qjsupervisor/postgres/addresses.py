"""The addresses that a server may have, one at a time.

libpq applies its connect_timeout to each address only where it blocks. We do not let it block, so that a first address
that swallows packets would be tried for ever. Hence each one is given to libpq alone, and whoever connects gives each
its time.
"""

from __future__ import annotations

# getaddrinfo loads it, and the tables behind it, at its first name: here once for all workers, before they are forked.
import encodings.idna  # noqa: F401
import os
import random
import socket
from collections.abc import Iterator, Mapping
from typing import Any

#: What the next round is for: an address answered, but its server is not the kind that was asked for.
_WRONG_SERVER = ("session is read-only", "session is not read-only", "hot standby mode")


def rounds(connect_kwargs: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Keyword arguments for psycopg2.connect, one dictionary for each address to try, in rounds.

    A later round is only for when a server of the round before was refused for what it is (see is_wrong_server). Where
    there are several addresses and nothing was said, the server has to be one that can be written to; the round after
    takes any, so that whoever asks it can say what is wrong with it. Blocks while names are looked up.
    """
    if "service" in connect_kwargs or "PGSERVICE" in os.environ:
        return [[dict(connect_kwargs)]]  # libpq alone knows what is in that file
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
    """Whether libpq refused a server for what it is, by its words."""
    return any(words in message for words in _WRONG_SERVER)


def _each(connect_kwargs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    hosts = _listed(connect_kwargs, "host", "PGHOST")
    numeric = _listed(connect_kwargs, "hostaddr", "PGHOSTADDR")
    ports = _listed(connect_kwargs, "port", "PGPORT")
    number = len(numeric) or len(hosts) or 1
    if len(ports) not in (0, 1, number) or (hosts and numeric and len(hosts) != number):
        yield dict(connect_kwargs)  # libpq says what is wrong with it
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
    """With each address of its host's name; the name stays, for certificates and passwords."""
    host = one.get("host", "")
    if not host or host[0] in "/@":
        yield one
        return
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        yield one  # libpq says so in its own words
        return
    for address in dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found):
        yield {**one, "hostaddr": address}


def _listed(connect_kwargs: Mapping[str, Any], name: str, variable: str) -> list[str]:
    value = connect_kwargs.get(name, os.environ.get(variable))
    return [] if value in (None, "") else [each.strip() for each in str(value).split(",")]
