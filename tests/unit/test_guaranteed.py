"""For whom permits are, from numbers as the status has them."""

from __future__ import annotations

import pytest

from qjsupervisor.config.guaranteed import Guaranteed, Subtree, guaranteed, lacking_databases


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


@pytest.mark.parametrize(
    ("channel", "databases", "found"),
    [
        ("root.a.y", {}, Guaranteed("root.a", 1, {"root.a.x": 1})),
        ("root.a.x", {}, None),
        ("root.b", {}, None),
        ("root", {}, Guaranteed("root", 2, {"root.a.x": 1, "root.b": 1})),
        ("root.c", {"db": 9}, None),
        ("root.d", {"db": 1}, Guaranteed("root", 2, {"root.a.x": 1, "root.b": 1, "db": 1})),
        ("root.a", {}, Guaranteed("root.a", 1, {"root.a.x": 1})),
    ],
)
def test_whose_permits_hold_up_a_job(channel: str, databases: dict[str, int], found: Guaranteed | None) -> None:
    assert guaranteed(TREE, channel, databases) == found


def test_where_there_is_room_for_all_nobody_is_held_up() -> None:
    assert guaranteed({**TREE, "root": branch(6, running=3)}, "root", {}) is None
    assert guaranteed({**TREE, "root": branch(None, running=3)}, "root", {}) is None


def test_what_databases_lack() -> None:
    def view(name: str, least: int, used: int, *, reserve: bool = False, wait_s: float = 0) -> dict[str, object]:
        share = {"min": least, "max": None, "reserve": reserve, "used": used}
        return {"name": name, "share": share, "wait_s": wait_s}

    views = [view("a", 3, 1, wait_s=2.0), view("b", 2, 0), view("c", 2, 0, reserve=True), view("d", 1, 1, wait_s=1.0)]
    status = {"databases": [*views, {"name": "e", "share": None}]}
    assert lacking_databases(status, "e") == {"a": 2, "c": 2}
    assert lacking_databases(status, "b") == {}
