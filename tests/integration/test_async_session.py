"""A porter's connection, against a real PostgreSQL."""

from __future__ import annotations

import fcntl
import os
import sys
import termios
import time
from contextlib import suppress
from typing import Any

import pytest

from qjsupervisor.errors import DatabaseError, DatabaseGone, ServerDown
from qjsupervisor.loop import Loop
from qjsupervisor.postgres.async_session import AsyncSession, Script

from ..conftest import DatabaseFactory
from ..helpers import Database, wait_until
from ..scripted import unused_port


def pump(loop: Loop) -> None:
    """One turn."""
    loop.turn(0.01)


class Stand:
    def __init__(self, one: Database, **changes: Any) -> None:
        self.loop, self.notified, self.lost, self.said = Loop(), list[Any](), list[DatabaseError](), list[Any]()
        dsn = {**one.dsn(), **changes}
        self.session = AsyncSession(
            str(dsn["dbname"]), dsn, self.loop, 5.0, server="here", notified=self.notified.append,
            on_lost=lambda error, _now_s: self.lost.append(error),
        )  # fmt: skip

    def script(self, *statements: str, pause_s: float | None = None) -> Script:
        for statement in statements:
            if pause_s is not None:
                yield pause_s
            rows = yield statement, None
            self.said.append(rows)

    def until_said(self, count: int) -> None:
        wait_until(lambda: pump(self.loop) or len(self.said) == count, lambda: f"{self.said} {self.lost}")


def test_scripts_follow_each_other(database: DatabaseFactory) -> None:
    stand = Stand(database())
    stand.session.run(stand.script("SELECT 1", "SET lock_timeout = 0", pause_s=0.05))
    stand.until_said(1)
    stand.session.run(stand.script("SELECT 2"))
    stand.until_said(3)
    assert stand.said == [[(1,)], [], [(2,)]]
    stand.session.close()
    assert stand.loop.watched == 0


def test_hears_while_nothing_runs_and_with_an_answer(database: DatabaseFactory) -> None:
    one = database()
    stand = Stand(one)
    stand.session.run(stand.script("LISTEN here", "NOTIFY here, 'own'"))
    stand.until_said(2)
    one.execute("NOTIFY here, 'other'")
    wait_until(lambda: pump(stand.loop) or len(stand.notified) == 2, "both")
    assert [each.payload for each in stand.notified] == ["own", "other"]
    stand.session.close()


def test_hears_what_arrives_behind_an_answer(database: DatabaseFactory) -> None:
    """libpq reads both at once, so the socket signals nothing more: a job announced so waited for an hour."""
    one = database()
    before = sockets()
    stand = Stand(one)
    (ours,) = sockets() - before
    stand.session.run(stand.script("LISTEN here", "SELECT pg_sleep(0.2)"))
    stand.until_said(1)
    answered = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%' AND state = 'idle'"
    wait_until(lambda: one.execute(answered) and unread(ours), "it is answered, and nobody has read that")
    length = unread(ours)
    one.execute("NOTIFY here, 'behind'")
    wait_until(lambda: unread(ours) > length, "the notification lies behind the answer")
    stand.until_said(2)
    assert [each.payload for each in stand.notified] == ["behind"]
    stand.session.close()


def sockets() -> set[int]:
    """The descriptors of this process that are connections."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                found.add(int(name))
    return found


def unread(descriptor: int) -> int:
    """Bytes that have arrived and were not read."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({"dbname": "there_is_none"}, DatabaseGone), ({"port": None}, ServerDown), ({"password": "wrong"}, DatabaseError)],
)
def test_no_connection(changes: dict[str, Any], kind: type, database: DatabaseFactory) -> None:
    if "port" in changes:
        changes = {"port": unused_port(), "host": "127.0.0.1"}
    stand = Stand(database(), **changes)
    wait_until(lambda: pump(stand.loop) or stand.lost, "it says so")
    assert isinstance(stand.lost[0], kind)
    assert not stand.session.is_open
    assert stand.loop.watched == 0


def test_an_error_ends_it_once(database: DatabaseFactory) -> None:
    stand = Stand(database())
    stand.session.run(stand.script("SELECT 1", "SELECT 1 / 0", "SELECT 2"))
    wait_until(lambda: pump(stand.loop) or stand.lost, "it says so")
    assert "division by zero" in str(stand.lost[0])
    assert stand.said == [[(1,)]]
    end_s = time.monotonic() + 0.1
    wait_until(lambda: pump(stand.loop) or time.monotonic() > end_s, "nothing more")
    assert len(stand.lost) == 1
