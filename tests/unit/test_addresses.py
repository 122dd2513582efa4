"""The addresses of a server: one at a time, in rounds, as libpq reads them. Connections: test_postgres_session."""

from __future__ import annotations

import random
import socket
from typing import Any

import pytest

from qjsupervisor.postgres.addresses import is_wrong_server, rounds


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """`two` has two addresses, every other name none; no variable of libpq is set."""
    for name in ("PGSERVICE", "PGHOST", "PGHOSTADDR", "PGPORT", "PGLOADBALANCEHOSTS", "PGTARGETSESSIONATTRS"):
        monkeypatch.delenv(name, raising=False)

    def getaddrinfo(name: bytes | str, _port: object, **_kwargs: object) -> list[Any]:
        if name != b"two":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        ends = [("::1", 0, 0, 0), ("10.0.0.1", 0), ("10.0.0.1", 0)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", end) for end in ends]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def where(connect_kwargs: dict[str, Any]) -> list[tuple[Any, ...]]:
    """(host, hostaddr, port) of the first round."""
    return [(one.get("host"), one.get("hostaddr"), one.get("port")) for one in rounds(connect_kwargs)[0]]


@pytest.mark.parametrize(
    ("connect_kwargs", "expected"),
    [
        ({}, [(None, None, None)]),
        ({"host": "/run/postgresql"}, [("/run/postgresql", None, None)]),
        ({"host": "two", "port": 5433}, [("two", "::1", "5433"), ("two", "10.0.0.1", "5433")]),
        ({"host": "a, two", "port": "1,2"}, [("a", None, "1"), ("two", "::1", "2"), ("two", "10.0.0.1", "2")]),
        ({"host": "unknown"}, [("unknown", None, None)]),
        ({"hostaddr": "10.0.0.8,10.0.0.9", "port": "1"}, [(None, "10.0.0.8", "1"), (None, "10.0.0.9", "1")]),
        ({"host": "a,b", "hostaddr": "10.0.0.8,10.0.0.9"}, [("a", "10.0.0.8", None), ("b", "10.0.0.9", None)]),
        # What does not go together is libpq's to complain of.
        ({"host": "a,b", "port": "1,2,3"}, [("a,b", None, "1,2,3")]),
        ({"host": "a", "hostaddr": "1.1.1.1,2.2.2.2"}, [("a", "1.1.1.1,2.2.2.2", None)]),
        ({"service": "s", "host": "two"}, [("two", None, None)]),
    ],
)
def test_one_address_at_a_time(connect_kwargs: dict[str, Any], expected: list[tuple[Any, ...]]) -> None:
    assert where(connect_kwargs) == expected


def test_variables_of_libpq_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "two")
    monkeypatch.setenv("PGPORT", "7")
    assert where({}) == [("two", "::1", "7"), ("two", "10.0.0.1", "7")]
    monkeypatch.setenv("PGSERVICE", "s")
    assert where({}) == [(None, None, None)]


def attributes(connect_kwargs: dict[str, Any]) -> list[list[str | None]]:
    return [[one.get("target_session_attrs") for one in each] for each in rounds(connect_kwargs)]


def test_of_several_the_one_that_can_be_written_to_is_wanted_first() -> None:
    assert attributes({"host": "two"}) == [["read-write"] * 2, ["any"] * 2]
    assert attributes({"host": "unknown"}) == [[None]], "of one only it can be said what is wrong"
    assert attributes({"host": "two", "target_session_attrs": "standby"}) == [["standby"] * 2]
    assert attributes({"host": "two", "target_session_attrs": "prefer-standby"}) == [["standby"] * 2, ["any"] * 2]


def test_load_is_balanced_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "shuffle", lambda found: found.reverse())
    assert where({"host": "two", "load_balance_hosts": "random"}) == [("two", "10.0.0.1", None), ("two", "::1", None)]


def test_a_server_of_the_wrong_kind_is_known_by_libpq_s_words() -> None:
    assert is_wrong_server('connection to server at "h" failed: session is read-only\n')
    assert not is_wrong_server("Connection refused")
