"""The channel string: queue_job's own examples, its odd corners, and what is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qjsupervisor.channelspec import (
    ChannelSpec,
    Rate,
    complete_tree,
    inherited,
    max_runtime_of,
    parent_name,
    spec_from,
)
from qjsupervisor.config.channel_string import checked, parse_channel_options, parse_channels, with_options


def spec(name: str, capacity: int | None, **more: bool | int) -> ChannelSpec:
    return ChannelSpec(name=name, capacity=capacity, **more)  # type: ignore[arg-type]  # keywords of several types


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("root", [spec("root", 1)]),
        ("root:4", [spec("root", 4)]),
        ("root:4,root.sub:2", [spec("root", 4), spec("root.sub", 2)]),
        ("sub:2", [spec("root", 1), spec("root.sub", 2)]),
        ("sub", [spec("root", 1), spec("root.sub", 1)]),
        ("root:4\nroot.sub:2", [spec("root", 4), spec("root.sub", 2)]),
        (" root : 4 ,\n ,, foo bar : 1 : throttle = 3 ,", [spec("root", 4), spec("root.foo bar", 1, throttle_s=3)]),
        ("\nroot:4\n\n  sub:2\n", [spec("root", 4), spec("root.sub", 2)]),
        (" , ", [spec("root", 1)]),
        ("root:0", [spec("root", 0)]),
        ("root:4,sub:0", [spec("root", 4), spec("root.sub", None)]),
        ("root:4,s:1:sequential", [spec("root", 4), spec("root.s", 1, sequential=True)]),
        ("root:4,s:1:sequential=true:paused", [spec("root", 4), spec("root.s", 1, sequential=True, paused=True)]),
        ("root:4,s:2:sequential=False:paused=no", [spec("root", 4), spec("root.s", 2)]),
        ("root:4:paused", [spec("root", 4, paused=True)]),
        ("root:4,s:throttle=2", [spec("root", 4), spec("root.s", None, throttle_s=2)]),
        ("root:4,s:sequential_default", [spec("root", 4), spec("root.s", None, sequential_default=True)]),
        ("root:4,s:3:capacity_default=2", [spec("root", 4), spec("root.s", 3, capacity_default=2)]),
        ("root:4:capacity_default=0", [spec("root", 4)]),
        ("sub:2,root:4", [spec("root", 4), spec("root.sub", 2)]),
    ],
)
def test_reads(text: str, tree: list[ChannelSpec]) -> None:
    assert list(parse_channels(text)) == tree


def test_what_lies_between_is_there_with_its_parents_defaults() -> None:
    tree = parse_channels("a.b.c:1, root:4:capacity_default=3")
    assert tree == (
        spec("root", 4, capacity_default=3),
        spec("root.a", 3),
        spec("root.a.b", None),
        spec("root.a.b.c", 1),
    )


def test_configured_parent_behind_its_child_is_no_gap() -> None:
    assert parse_channels("root:4,a.b:2,a:3") == (spec("root", 4), spec("root.a", 3), spec("root.a.b", 2))


def test_sequential_default_makes_one_at_a_time() -> None:
    parent = spec("root", 4, sequential_default=True, capacity_default=3)
    assert inherited("root.x", parent) == spec("root.x", 1, sequential=True)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("root:bogus", ["'root:bogus'", "'bogus'", "capacity"]),
        ("root:4,:2", ["':2'", "name is missing"]),
        ("root:-1", ["'root:-1'", "out of range", "0 to"]),
        ("root:1000001", ["out of range", "1000000"]),
        ("root:4_0", ["'4_0'", "not a whole number"]),
        ("root:٤", ["not a whole number"]),
        ("root:4 ; comment", ["'root:4 ; comment'", "line of its own"]),
        ("root:paused", ["root's capacity is missing"]),
        ("root:", ["'root:'", "capacity"]),
        ("root:4,sub:", ["'sub:'", "capacity"]),
        ("root:4,seq:2:sequential", ["'seq:2:sequential'", "needs capacity 1", "has capacity 2"]),
        ("root:4,seq:sequential", ["'seq:sequential'", "needs capacity 1", "no capacity"]),
        ("root:4,sub:1:sequentail", ["'sequentail'", "did you mean sequential?"]),
        ("root:4,sub:1:k=v", ["'k'", "allowed", "throttle"]),
        ("root:4,sub:1:throttle", ["throttle", "not a whole number"]),
        ("root:4,sub:1:throttle=1.5", ["throttle", "'1.5'"]),
        ("root:4,sub:1:throttle=-1", ["throttle", "out of range"]),
        ("root:4,sub:1:throttle=1=2", ["throttle", "'1=2'"]),
        ("root:4:capacity_default=bogus", ["capacity_default", "'bogus'"]),
        ("root:4,sub:1:paused=maybe", ["paused", "'maybe'", "yes"]),
        ("root:4,sub:1:max_runtime", ["max_runtime", "not a duration"]),
        ("root:4,sub:1:max_runtime=0", ["max_runtime", "allowed: 1 to"]),
        ("root:4,sub:1:paused:paused", ["paused is given twice"]),
        ("root:4,sub:1:", ["'sub:1:'"]),
        ("root:4,root:5", ["'root:5'", "twice"]),
        ("root:4,sub:1,root.sub:1", ["'root.sub:1'", "twice"]),
        ("root:4,a..b:1", ["'a..b:1'", "single dots"]),
        ("root:4,.a:1", ["single dots"]),
        ("root:4,root.:1", ["single dots"]),
        ("root:4,slow;1", ["'slow;1'", "not a channel name", "';'", "':'"]),
        ("root:4;slow:1", ["'4;slow'", "not a whole number"]),
        ("root:4,slow=1", ["'slow=1'", "not a channel name"]),
        ("root:4,a # b", ["not a channel name", "'#'"]),
        ("root:4," + "é" * 126 + ":1", ["too long a channel name", "256 bytes"]),
    ],
)
def test_what_is_wrong_is_named(text: str, parts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^entry ") as raised:
        parse_channels(text)
    for part in parts:
        assert part in str(raised.value)


def test_odd_names_that_can_be() -> None:
    names = ("root.a b", "root.ü-1", "root.x_y/z", "root." + "é" * 125)
    assert [spec.name for spec in parse_channels("root:4," + ",".join(f"{name}:1" for name in names))[1:]] == [*names]


def test_names_are_unicode() -> None:
    """Bytes of the environment that are not come as halves of characters."""
    with pytest.raises(ValueError, match="is not UTF-8"):
        parse_channels("root:4,a\udcff:1")


def test_error_is_one_short_line() -> None:
    with pytest.raises(ValueError, match="entry") as raised:
        parse_channels("root:4,a\x1b[31m" + "x" * 5000 + ":bogus\t1")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


@given(st.text(alphabet="ab.,:= \n14root-seqntial", max_size=40))
def test_any_text_is_a_tree_or_an_error_of_one_line(text: str) -> None:
    try:
        tree = parse_channels(text)
    except ValueError as error:
        tree, problem = (), str(error)
    else:
        problem = ""
    assert bool(tree) != bool(problem)
    assert problem.isprintable()
    assert not tree or tree[0].name == "root"
    for place, channel in enumerate(tree[1:], start=1):
        assert parent_name(channel.name) in [above.name for above in tree[:place]]
        assert channel == checked(channel)
    assert not tree or complete_tree(tree) == tree


def test_max_runtime() -> None:
    specs = {spec.name: spec for spec in parse_channels("root:4:max_runtime=1d,slow:1:max_runtime=2h,slow.a:1")}
    assert [specs[name].max_runtime_s for name in ("root", "root.slow", "root.slow.a")] == [86400, 7200, None]
    limits = {spec.name: spec.max_runtime_s for spec in specs.values() if spec.max_runtime_s}
    assert max_runtime_of("slow.a", limits) == ("root.slow", 7200)
    assert max_runtime_of(None, limits) == ("root", 86400)
    assert max_runtime_of("root.slow", {"root": 5, "root.slow": 7}) == ("root", 5)
    assert max_runtime_of("root.slow", {"root.other": 5}) is None


def test_channel_options() -> None:
    found = parse_channel_options("slow:max_runtime=2h, root:max_runtime=90:rate=5/1s:rate_default=1/1h")
    assert [(spec.name, spec.max_runtime_s) for spec in found] == [("root.slow", 7200), ("root", 90)]
    assert (found[1].rate, found[1].rate_default, found[0].rate) == (Rate(5, 1), Rate(1, 3600), None)
    assert parse_channel_options("") == ()


def test_rates() -> None:
    specs = {spec.name: spec for spec in parse_channels("root:4:rate=100/1m,mail:rate_default=10/30s,mail.a.b:2")}
    assert specs["root"].rate == Rate(100, 60)
    assert specs["root.mail"].rate is None
    assert specs["root.mail.a"].rate == Rate(10, 30)
    assert specs["root.mail.a.b"].rate is None
    assert specs["root.mail.a"] == spec_from(json.loads(json.dumps(asdict(specs["root.mail.a"]))))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("root:4:rate=", "'' is not a rate; allowed: STARTS/PERIOD, as in 100/1m"),
        ("root:4:rate=5", "'5' is not a rate"),
        ("root:4:rate=/1m", "'/1m' is not a rate"),
        ("root:4:rate=0/1m", "rate: 0 is out of range; allowed: 1 to 1000000"),
        ("root:4:rate=5/0", "the period '0' is out of range; allowed: 1s to 31d"),
        ("root:4:rate=5/x", "'x' is not a duration"),
        ("root:4:rate=5/1m:rate=5/1m", "rate is given twice"),
        ("root:4:rate_default=x/1m", "rate_default: 'x' is not a whole number"),
    ],
)
def test_wrong_rates_are_named(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=r"^entry ") as raised:
        parse_channels(text)
    assert part in str(raised.value)


def test_options_go_with_channels_that_are_there_or_not() -> None:
    specs = parse_channels("root:4,root.a:2")
    given = with_options(specs, parse_channel_options("a:rate=5/1m,b.c:rate=6/1m,d:max_runtime=1h"))
    assert [(spec.name, spec.capacity, spec.rate) for spec in given] == [
        ("root", 4, None),
        ("root.a", 2, Rate(5, 60)),
        ("root.b", None, None),
        ("root.b.c", None, Rate(6, 60)),
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("slow", ["'slow'", "allowed: NAME:KEY=VALUE", "max_runtime"]),
        (":max_runtime=1", ["allowed: NAME:KEY=VALUE"]),
        ("slow:3:max_runtime=1", ["'3'", "no known key"]),
        ("slow:throttle=3", ["throttle is set up in the database", "max_runtime"]),
        ("slow:max_runtme=3", ["did you mean max_runtime?"]),
        ("slow:max_runtime=x", ["max_runtime", "'x' is not a duration"]),
        ("slow:max_runtime=1,root.slow:max_runtime=2", ["root.slow", "given twice"]),
        ("slow:rate=1/1s:rate=1/1s", ["root.slow", "rate", "given twice"]),
        ("slow:rate=1", ["rate", "allowed: STARTS/PERIOD, as in 100/1m"]),
        ("a..b:max_runtime=1", ["single dots"]),
    ],
)
def test_wrong_channel_options_are_named(text: str, parts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^entry ") as raised:
        parse_channel_options(text)
    for part in parts:
        assert part in str(raised.value)
