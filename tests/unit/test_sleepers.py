"""What makes a sleeping database doze, with counters that are made up."""

from __future__ import annotations

from typing import Any

from qjsupervisor.errors import DatabaseUnavailable
from qjsupervisor.porter.settings import PorterSettings
from qjsupervisor.porter.sleepers import DOZE_S, Sleepers

from .supervised import FakeLoop


class Sleeper:
    """A database that notes how long it is to doze."""

    def __init__(self, oid: int, count: tuple[int, float] | None) -> None:
        self.database, self.oid, self.count = f"db{oid}", oid, count
        self.dozes: list[float] = []
        self.lost: list[str] = []

    def is_moved(self, counts: Any) -> bool:
        return bool(counts.get(self.oid) != self.count)

    def begin_doze(self, doze_s: float) -> None:
        self.dozes.append(doze_s)

    def say_lost(self, error: Exception) -> None:
        self.lost.append(str(error))


class Stand:
    def __init__(self) -> None:
        self.loop, self.connected = FakeLoop(), list[Any]()
        settings = PorterSettings(session_mark=1, connect_timeout_s=5, sleep_timeout_s=1)
        self.sleepers = Sleepers("here", {}, settings, self.loop, lambda dozer, _now_s: self.connected.append(dozer))  # type: ignore[arg-type]

    def read(self, **counts: tuple[int, float]) -> None:
        self.sleepers.take({int(name[2:]): count for name, count in counts.items()})

    def put(self, *sleepers: Sleeper) -> None:
        for each in sleepers:
            self.sleepers.put(each)  # type: ignore[arg-type]


def test_only_what_moved_dozes() -> None:
    stand, still, moved = Stand(), Sleeper(1, (5, 0.0)), Sleeper(2, (7, 0.0))
    stand.read(db1=(5, 0.0), db2=(7, 0.0))
    stand.put(still, moved)
    assert stand.connected == []
    stand.read(db1=(5, 0.0), db2=(8, 0.0))
    assert (still.dozes, moved.dozes) == ([], [DOZE_S])
    assert stand.connected == [moved]
    stand.read(db1=(5, 0.0), db2=(9, 0.0))
    assert stand.connected == [moved], "it does not sleep any more"


def test_what_moved_before_it_was_put_to_bed() -> None:
    stand, one = Stand(), Sleeper(1, (5, 0.0))
    stand.read(db1=(6, 0.0))
    stand.put(one)
    assert one.dozes == [DOZE_S]


def test_a_reset_and_a_database_that_is_gone_are_moves() -> None:
    stand, one, gone = Stand(), Sleeper(1, (5, 0.0)), Sleeper(2, (0, 0.0))
    stand.read(db1=(5, 0.0), db2=(0, 0.0))
    stand.put(one, gone)
    stand.read(db1=(5, 99.0))
    assert stand.connected == [one, gone]


def test_after_a_restart_all_are_looked_at_fifty_a_second() -> None:
    stand, sleepers = Stand(), [Sleeper(oid, None) for oid in range(1, 101)]
    stand.put(*sleepers)
    stand.sleepers.restarted()
    assert all(each.dozes == [0.0] for each in sleepers)
    began_s = stand.loop.next_s()
    for passed_ms in range(0, 1000, 5):
        stand.loop.run_until(began_s + passed_ms / 1000)
    assert 40 <= len(stand.connected) <= 50


def test_trouble_is_told_once() -> None:
    stand, one = Stand(), Sleeper(1, None)
    stand.put(one)
    for _ in range(2):
        stand.sleepers.failed(DatabaseUnavailable("postgres", "no"))
    assert one.lost == ["no"]
    stand.sleepers.restarted()
    stand.put(one)
    stand.sleepers.failed(DatabaseUnavailable("postgres", "again"))
    assert one.lost == ["no", "again"]
