"""The connection to nobody that is played in the master."""

from __future__ import annotations

import os
import resource
import socket

import pytest

from qjsupervisor.postgres import first_connection


def test_a_connection_to_nobody_is_played_until_the_password_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    play = first_connection.heard

    def listening(*ends: object) -> bytes:
        found.append(play(*ends))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(first_connection, "heard", listening)
    first_connection.connect_once()
    assert b"c=biws" in found[-1]


def test_beside_the_descriptors_of_two_thousand_databases() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        first_connection.connect_once()
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_where_nobody_may_listen_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> socket.socket:
        raise PermissionError

    monkeypatch.setattr(socket, "create_server", refuse)
    first_connection.connect_once()
