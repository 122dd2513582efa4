"""A wait for a server: a deadline, heartbeats meanwhile, and one call when the answer is late."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from psycopg2 import extensions

from qjsupervisor.postgres import waiter as module
from qjsupervisor.postgres.waiter import Waiter


class Connection:
    """Has an answer when a byte was written to its pipe; `states`: what each poll says before that."""

    def __init__(self, *states: int) -> None:
        self.states = list(states)
        self.readable, self.writable = os.pipe()
        self.polls = 0

    def fileno(self) -> int:
        return self.readable

    def poll(self) -> int:
        self.polls += 1
        return self.states.pop(0) if self.states else extensions.POLL_OK

    def close(self) -> None:
        os.close(self.readable)
        os.close(self.writable)


@pytest.fixture
def connection() -> Iterator[Connection]:
    made = Connection(extensions.POLL_READ, extensions.POLL_READ)
    yield made
    made.close()


def test_what_is_ready_is_not_waited_for(connection: Connection) -> None:
    connection.states.clear()
    stamps: list[float] = []
    Waiter(lambda: stamps.append(0)).wait(connection, 0.0)
    assert (connection.polls, stamps) == (1, [])


def test_it_polls_again_when_there_is_something_to_read(connection: Connection) -> None:
    os.write(connection.writable, b"x")
    Waiter().wait(connection, time.monotonic() + 10)
    assert connection.polls == 3


def test_a_silent_server_is_given_up_at_the_deadline(connection: Connection) -> None:
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):
        Waiter().wait(connection, began_s + 0.1)
    assert 0.1 <= time.monotonic() - began_s < 5


def test_a_worker_that_waits_looks_alive_and_hears_once_that_it_is_late(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_SLICE_S", 0.02)
    monkeypatch.setattr(module, "LATE_S", 0.05)
    stamps, late = [], []
    waiter = Waiter(lambda: stamps.append(time.monotonic()))
    waiter.on_late = lambda: late.append(time.monotonic())
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):
        waiter.wait(connection, began_s + 0.3)
    assert len(stamps) >= 3
    assert len(late) == 1
    assert late[0] - began_s >= 0.05


def test_an_error_of_the_connection_is_not_its_to_translate(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "poll", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        Waiter().wait(connection, time.monotonic() + 1)
