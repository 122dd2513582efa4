"""For whom permits are, from numbers as the status has them."""

from __future__ import annotations

import pytest

from qjsupervisor.config.guaranteed import Guaranteed, KeptPermits, Lack, Subtree, branches_of, lacking_databases


def branch(capacity: int | None = None, minimum: int = 0, running: int = 0, **more: bool) -> Subtree:
    return Subtree(capacity, minimum, more.get("reserve", False), running, more.get("waits", False))


TREE = {
    "root": branch(5, running=3),
    "root.a": branch(3, running=2),
    "root.a.x": branch(minimum=1, reserve=True),
    "root.a.y": branch(running=2),
    "root.b": branch(minimum=1, waits=True),
    "root.c": branch(minimum=4, running=1),
}


WAITING = {"db": Lack(9, reserve=False, waits=True)}
RESERVED = {"db": Lack(1, reserve=True, waits=False)}
#: All but two permits of the root are in use, and these are kept for root.a.
TIGHT = {
    "root": branch(6, running=4),
    "root.a": branch(minimum=2, reserve=True),
    "root.c": branch(minimum=1, waits=True),
    "root.e": branch(running=4),
    "root.p": branch(running=2),
    "root.p.x": branch(minimum=1, reserve=True),
}


@pytest.mark.parametrize(
    ("channel", "databases", "found"),
    [
        ("root.a.y", {}, Guaranteed("root.a", 1, {"root.a.x": 1})),
        ("root.a.x", {}, None),
        ("root.b", {}, None),
        ("root", {}, Guaranteed("root", 2, {"root.a.x": 1, "root.b": 1})),
        ("root.c", WAITING, None),
        ("root.c", RESERVED, Guaranteed("root", 2, {"root.a.x": 1, "db": 1})),
        ("root.d", RESERVED, Guaranteed("root", 2, {"root.a.x": 1, "root.b": 1, "db": 1})),
        ("root.d", WAITING, Guaranteed("root", 2, {"root.a.x": 1, "root.b": 1, "db": 9})),
        ("root.a", {}, Guaranteed("root.a", 1, {"root.a.x": 1})),
    ],
)
def test_whose_permits_hold_up_a_job(channel: str, databases: dict[str, Lack], found: Guaranteed | None) -> None:
    assert KeptPermits(TREE, databases).holding_up(channel, "mine") == found


@pytest.mark.parametrize(
    ("channel", "lacks"),
    [
        ("root.c", {"root.a": 2, "root.p.x": 1}),
        ("root.e", {"root.a": 2, "root.p.x": 1, "root.c": 1}),
        ("root.p.y", {"root.a": 2, "root.p.x": 1, "root.c": 1}),
        ("root.a", None),
        ("root.p.x", None),
    ],
)
def test_a_reserve_holds_up_what_is_below_its_minimum_too(channel: str, lacks: dict[str, int] | None) -> None:
    found = KeptPermits(TIGHT, {}).holding_up(channel, "mine")
    assert (found and found.lacks) == lacks


def test_where_there_is_room_for_all_nobody_is_held_up() -> None:
    assert KeptPermits({**TREE, "root": branch(6, running=3)}, {}).holding_up("root", "mine") is None
    assert KeptPermits({**TREE, "root": branch(None, running=3)}, {}).holding_up("root", "mine") is None


def test_a_channel_that_could_not_start_anything_has_nothing_guaranteed() -> None:
    root = {"name": "root", "capacity": 4, "running": 3}
    waiting = {"name": "root.a", "minimum": 2, "pending": 3}
    for shut in ({}, {"paused": True}, {"stopped": True}, {"throttled_for_s": 1.0}, {"rate": {"next_in_s": 2.0}}):
        status = {"channels": [root, {**waiting, **shut}]}
        found = KeptPermits(branches_of(status), {}).holding_up("root.b", "mine")
        assert (found is None) is bool(shut)


def test_what_databases_lack() -> None:
    def view(name: str, least: int, used: int, *, reserve: bool = False, wait_s: float = 0) -> dict[str, object]:
        share = {"min": least, "max": None, "reserve": reserve, "used": used}
        return {"name": name, "share": share, "wait_s": wait_s}

    views = [view("a", 3, 1, wait_s=2.0), view("b", 2, 0), view("c", 2, 0, reserve=True), view("d", 1, 1, wait_s=1.0)]
    databases = lacking_databases({"databases": [*views, {"name": "e", "share": None}]})
    assert databases == {"a": Lack(2, False, True), "b": Lack(2, False, False), "c": Lack(2, True, False)}
    guarantees = KeptPermits({"root": branch(5, running=3)}, databases)
    found = {name: guarantees.holding_up("root", name) for name in "abcde"}
    assert {name: each and each.lacks for name, each in found.items()} == {
        "a": {"c": 2},
        "b": {"c": 2},
        "c": None,
        "d": {"a": 2, "c": 2},
        "e": {"a": 2, "c": 2},
    }
