"""What a supervisor of a cluster keeps for when it is cut off."""

from __future__ import annotations

import re

import pytest

from qjsupervisor.channelspec import ChannelSpec, Rate
from qjsupervisor.config.floor import check_floor, parse_floor

CHANNELS = (
    ChannelSpec(name="root", capacity=8),
    ChannelSpec(name="root.mail", capacity=3),
    ChannelSpec(name="root.free", capacity=None),
    ChannelSpec(name="root.free.deep", capacity=2),
    ChannelSpec(name="root.seq", capacity=1, sequential=True),
    ChannelSpec(name="root.slow", capacity=2, throttle_s=5),
    ChannelSpec(name="root.rated", capacity=2, rate=Rate(3, 60)),
)


@pytest.mark.parametrize(
    ("text", "floor"),
    [
        ("", {}),
        ("2", {"root": 2}),
        ("root:2, mail:1", {"root": 2, "root.mail": 1}),
        ("root:0", {}),
    ],
)
def test_reads_permits_by_channel(text: str, floor: dict[str, int]) -> None:
    assert parse_floor(text) == floor


@pytest.mark.parametrize("text", ["x", "root:x", "root:-1", "2,root:3", "root:1:2", "root:"])
def test_refuses_what_it_cannot_read(text: str) -> None:
    with pytest.raises(ValueError, match="entry"):
        parse_floor(text)


@pytest.mark.parametrize(
    ("floor", "why"),
    [
        ({"root": 9}, "root has a capacity of 8, less than 9"),
        ({"root.never": 1}, "root.never has no capacity"),
        ({"root": 1, "root.free": 1}, "root.free has no capacity"),
        ({"root": 1, "root.seq": 1}, "root.seq needs the coordinator"),
        ({"root": 1, "root.slow": 1}, "root.slow needs the coordinator"),
        ({"root": 1, "root.rated": 1}, "root.rated needs the coordinator"),
        ({"root": 1, "root.mail": 2}, "root.mail keeps 2, root above it 1"),
        ({"root.free.deep": 1}, "root.free.deep keeps 1, root above it 0"),
    ],
)
def test_a_floor_that_could_not_be_used_is_refused(floor: dict[str, int], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        check_floor(floor, CHANNELS)


def test_a_floor_that_fits() -> None:
    check_floor({"root": 8, "root.mail": 3, "root.free.deep": 2}, CHANNELS)
