"""What is made ready in the master before workers are forked."""

from __future__ import annotations

import socket

import pytest

from qjsupervisor.master import memory
from qjsupervisor.postgres import first_connection


def pages(size: int) -> int:
    """On how many pages a few new objects of this size are."""
    return len({id(block) // 4096 for block in [bytes(size) for _ in range(50)]})


@pytest.mark.parametrize("size", [60, 200, 450, 800])
def test_new_objects_do_not_go_into_gaps(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_filling", [])
    blocks = [bytes(size) for _ in range(4000)]
    # One gap a page.
    kept = [block for number, block in enumerate(blocks) if number % (4096 // size)]
    del blocks
    assert pages(size) > 25
    memory.fill_gaps()
    assert pages(size) <= 50 * (size + 64) // 4096 + 4
    assert kept


def test_a_connection_to_nobody_is_played_until_the_password_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    play = first_connection._heard

    def listening(*ends: object) -> bytes:
        heard.append(play(*ends))  # type: ignore[arg-type]
        return heard[-1]

    monkeypatch.setattr(first_connection, "_heard", listening)
    first_connection.connect_once()
    assert b"c=biws" in heard[-1]


def test_where_nobody_may_listen_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> socket.socket:
        raise PermissionError

    monkeypatch.setattr(socket, "create_server", refuse)
    first_connection.connect_once()
