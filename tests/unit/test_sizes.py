"""Sizes of channels, weights and minimums: as they are written, in numbers, and whether they fit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from qjsupervisor.channelspec import ChannelSpec, spec_from
from qjsupervisor.commands.check_shares import about_db_capacity, about_minimums, about_shares
from qjsupervisor.config.channel_string import parse_channel_options, parse_channels, with_options
from qjsupervisor.config.load import load
from qjsupervisor.errors import ConfigError


def tree(channels: str, options: str = "") -> dict[str, ChannelSpec]:
    found = with_options(parse_channels(channels), parse_channel_options(options))
    assert all(spec == spec_from(json.loads(json.dumps(asdict(spec)))) for spec in found)
    return {spec.name: spec for spec in found}


def test_max_is_the_capacity() -> None:
    found = tree("root:max=10,a:max=3,b:2:min=1:reserve,c:min=2:weight=3,d:reserve:min=1:max=20%")
    assert {name: (spec.capacity, spec.minimum, spec.reserve, spec.weight) for name, spec in found.items()} == {
        "root": (10, 0, False, 0),
        "root.a": (3, 0, False, 0),
        "root.b": (2, 1, True, 0),
        "root.c": (None, 2, False, 3),
        "root.d": (2, 1, True, 0),
    }


def test_a_percentage_is_of_the_parent_and_rounded_up() -> None:
    found = tree("root:5,a:50%:capacity_default=50%,a.b:50%:min=1%,c,c.d:max=40%,e:min=20%,e.f:100%")
    assert {name: (spec.capacity, spec.minimum) for name, spec in found.items()} == {
        "root": (5, 0),
        "root.a": (3, 0),
        "root.a.b": (2, 1),
        "root.c": (1, 0),
        "root.c.d": (1, 0),
        "root.e": (None, 1),
        "root.e.f": (5, 0),
    }
    assert found["root.a"].capacity_default == 2


def test_options_give_a_database_s_channels_shares() -> None:
    found = tree("root:10,a:8", "a:max=50%:min=2:weight=2,b:min=10%:reserve,c.d:weight=4")
    assert {name: (spec.capacity, spec.minimum, spec.weight) for name, spec in found.items()} == {
        "root": (10, 0, 0),
        "root.a": (5, 2, 2),
        "root.b": (None, 1, 0),
        "root.c": (None, 0, 0),
        "root.c.d": (None, 0, 4),
    }
    assert tree("root:10,a:3", "a:max=4")["root.a"].capacity == 3


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("root:4,a:2:max=3", "entry 'a:2:max=3': max is what the capacity before it is; keep one of them"),
        ("root:4,a:max=3:max=3", "max is given twice"),
        ("root:4,a:max=0", "max: 0 is out of range; allowed: 1 to 1000000; or a percentage, as in 50%"),
        ("root:4,a:max=101%", "max: 101 is out of range; allowed: 1 to 100"),
        ("root:4,a:x%", "neither a capacity nor a known key"),
        ("root:4,a:0%", "capacity: 0 is out of range; allowed: 1 to 100"),
        ("root:4,a:min=-1", "min: -1 is out of range; allowed: 0 to 1000000; or a percentage, as in 50%"),
        ("root:4,a:min", "min: '' is not a whole number"),
        ("root:4,a:reserve", "reserve keeps a minimum free, and there is no min"),
        ("root:4,a:min=1:reserve=x", "reserve: 'x'"),
        ("root:4,a:weight=0", "weight: 0 is out of range; allowed: 1 to 100"),
        ("root:4,a:weight=101", "weight: 101 is out of range; allowed: 1 to 100"),
        ("root:4,a:weight=x", "weight: 'x' is not a whole number; allowed: 1 to 100"),
        ("root:4:min=1", "min, weight and reserve are for channels below root"),
        ("root:4:weight=2", "min, weight and reserve are for channels below root"),
        ("root:50%", "entry 'root:50%': root is 50% of nothing; allowed: a number"),
        ("root:4,a:50%:sequential", "a sequential channel needs capacity 1, this one has capacity 50%"),
    ],
)
def test_what_is_wrong_is_named(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=r"^entry ") as raised:
        parse_channels(text)
    assert part in str(raised.value)


@pytest.mark.parametrize(
    ("channels", "options", "part"),
    [
        ("root:4,a:2:min=3", "", "channel root.a: min is 3, 1 more than its max, which is 2"),
        ("root:4,a:min=5", "", "channel root: minimums below it are 5 (root.a 5), 1 more than 4"),
        ("root:4,a:min=2,b:min=3", "", "channel root: minimums below it are 5 (root.a 2, root.b 3), 1 more than 4"),
        ("root:9,a:4,a.b:min=3,a.c:min=2", "", "channel root.a: minimums below it are 5 (root.a.b 3, root.a.c 2), 1"),
        ("root:4,a:min=3,a.b:min=2,c:min=2", "", "channel root: minimums below it are 5 (root.a 3, root.c 2), 1 more"),
        ("root:4,a:weight=1,a.b:min=3,c:min=2", "", "channel root: minimums below it are 5 (root.a 3, root.c 2), 1"),
        ("root:4", "a:min=3:max=2", "channel root.a: min is 3, 1 more than its max, which is 2"),
        ("root:8," + ",".join(f"c{i}:min=1" for i in range(9)), "", "root.c4 1 and 4 more), 1 more than 8"),
    ],
)
def test_minimums_that_do_not_fit_say_by_how_much(channels: str, options: str, part: str) -> None:
    with pytest.raises(ValueError, match=r"^channel root") as raised:
        tree(channels, options)
    assert part in str(raised.value)


@pytest.mark.parametrize(
    ("keys", "option", "part"),
    [
        ({"channels": "root:4,a:min=5"}, "channels", "environment variable ODOO_QUEUE_JOB_CHANNELS: channel root: min"),
        ({"channels": "root:4", "options": "a:min=5"}, "channel_options", "--channel-options: channel root: minimums"),
        ({"max_capacity": "4", "options": "a:min=2,b:75%"}, "channel_options", "'75%'"),
        ({"max_capacity": "4", "options": "a:min=2,b:min=3"}, "channel_options", "root.a 2, root.b 3), 1 more"),
        ({"options": "a:min=2"}, "channel_options", "minimums below it are 2 (root.a 2), 1 more than 1"),
    ],
)
def test_the_start_is_refused(keys: dict[str, str], option: str, part: str) -> None:
    environ = {"ODOO_RC": "/dev/null"}
    environ |= {f"ODOO_QUEUE_JOB_{key.upper()}": value for key, value in keys.items() if key != "options"}
    with pytest.raises(ConfigError) as raised:
        load({"channel_options": keys.get("options", "")}, environ)
    assert raised.value.option == option
    assert part in str(raised.value)


def findings(channels: str, options: str = "", db_capacity: str = "") -> list[str]:
    environ = {"ODOO_QUEUE_JOB_CHANNELS": channels, "ODOO_RC": "/dev/null"}
    config = load({"channel_options": options, "db_capacity": db_capacity}, environ)
    return [each.text for each in (*about_minimums(config, ["db1", "db2"]), *about_shares(config))]


def test_check_says_what_it_will_do() -> None:
    assert findings("root:4,a:2") == []
    assert findings("root:9,a:min=2:reserve:weight=3,b:min=1,c") == [
        "minimums: root.a 2 (kept free), root.b 1; a channel that waits below its minimum comes first",
        "weights below root: root.a 3, root.b 1, root.c 1, and 1 for what else waits there: so many starts in turn",
    ]
    assert findings("root:4,a:rate=3/1m,b:rate_default=1/1s") == [
        "rates, over all databases: root.a 3/1m, each other channel below root.b 1/1s at most, in any window"
    ]
    config = load({"db_capacity": "db1:min=1:max=50%,*:max=1,never:max=1"}, {"ODOO_QUEUE_JOB_CHANNELS": "root:4"})
    (found,) = about_db_capacity(config, ["db1", "db2", "db3"])
    assert found.text == (
        "db_capacity, jobs at once of each database: db1 1 to 2 (1 database), * max 1 (2 databases),"
        " never max 1 (no databases); the first pattern that fits counts"
    )
    assert "both are kept only by jobs that count for both" in findings("root:3,a:min=2", "", "*:min=1")[0]


WRONG = [
    ("channels", "root:4,a:rate=5", "rate: '5' is not a rate; allowed: STARTS/PERIOD"),
    ("channels", "root:4,a:rate_default=0/1m", "rate_default: 0 is out of range; allowed: 1 to 1000000"),
    ("channels", "root:4,a:min=x", "min: 'x' is not a whole number; allowed: 0 to 1000000; or a percentage, as in 50%"),
    ("channels", "root:4,a:2:max=3", "max is what the capacity before it is; keep one of them"),
    ("channels", "root:4,a:weight=0", "weight: 0 is out of range; allowed: 1 to 100"),
    ("channels", "root:4,a:reserve", "reserve keeps a minimum free, and there is no min"),
    ("channels", "root:4,a:max_runtime=0", "max_runtime: "),
    ("channels", "root:50%", "root is 50% of nothing; allowed: a number"),
    ("channels", "root:4,a:min=3,b:min=2", "minimums below it are 5 (root.a 3, root.b 2), 1 more than 4"),
    ("channel_options", "a:min=5", "channel root: minimums below it are 5 (root.a 5), 1 more than 4"),
    ("channel_options", "a:2", "'2' is no known key; allowed: min, max, reserve, weight, rate"),
    ("channel_options", "a:rate=1/1m,root.a:min=1", "channel 'root.a' is given twice; keep one"),
    ("channel_options", "a:min=75%,b:min=50%", "below it are 125% (root.a 75%, root.b 50%), 25% too much"),
    ("db_capacity", "a:min=1,b:max=1,a:max=2", "entry 'a:max=2': pattern 'a' is given twice; keep one"),
    ("db_capacity", "*:min=5", "entry '*': min is 5, 1 more than root has, which is 4"),
    ("db_capacity", "*:min=x", "min: 'x' is not a whole number"),
    ("ageing", "soon", "'soon' is not a duration"),
    ("schedule", "root: shut", "root: shut"),
    ("timezone", "Mars/Base", "Mars/Base"),
    ("serve_neutralized", "perhaps", "'perhaps'"),
    ("upgrade_timeout", "-1", "-1"),
    ("max_runtime_action", "shout", "allowed: "),
]


@pytest.mark.parametrize(("key", "value", "said"), WRONG)
def test_each_key_refuses_what_is_wrong_with_its_place(key: str, value: str, said: str, tmp_path: Path) -> None:
    section = "queue_job" if key == "channels" else "qjsupervisor"
    file = tmp_path / "odoo.conf"
    channels = "" if key == "channels" else "[queue_job]\nchannels = root:4\n"
    file.write_text(f"[options]\n{channels}[{section}]\n{key} = {value}\n")
    with pytest.raises(ConfigError) as raised:
        load({"config": str(file)}, {})
    assert str(raised.value).startswith(f"{file}: [{section}] {key}: "), str(raised.value)
    assert said in str(raised.value)


#: With a place for a value; those that name a channel need one in `channels` or a tree in each database.
KEYS = [
    *(("channels", f"root:4,root.a:3:{key}=%s") for key in ("min", "weight", "rate", "rate_default", "max_runtime")),
    ("channels", "root:4,root.a:max=%s"),
    ("channels", "root:4,root.a:min=1:reserve=%s"),
    ("channel_options", "root.a:rate=%s"),
    ("channel_options", "root.a:min=%s"),
    ("db_capacity", "*:min=%s"),
    ("db_capacity", "*:max=%s"),
    ("schedule", "root: %s daily 08:00-09:00"),
    ("schedule", "root: closed %s 08:00-09:00"),
    ("schedule", "root: closed daily %s"),
    *((key, "%s") for key in ("ageing", "timezone", "serve_neutralized", "upgrade_timeout", "max_runtime_action")),
    ("state_dir", "%s"),
]
HOSTILE = (
    *("-1", "1e400", "nan", "inf", "9" * 19, "9" * 5000, "1_0", "0x1", "\u0661", "\uff15", "\U0001f600", "\u202e5"),
    *("a" * 3000, "101%", "50%%", "%", "0/1m", "1/0", "1/1m/1", "%/1m", "1/", "'5'", "5=6", "1 ; a comment", "$HOME"),
)


@pytest.mark.parametrize(("key", "written"), KEYS)
def test_no_hostile_value_is_taken_or_ends_in_a_traceback(key: str, written: str, tmp_path: Path) -> None:
    section, file = "queue_job" if key == "channels" else "qjsupervisor", tmp_path / "odoo.conf"
    for value in HOSTILE:
        channels = "" if key == "channels" else "[queue_job]\nchannels = root:4,root.a\n"
        file.write_text(f"{channels}[{section}]\n{key} = {written % value}\n")
        with pytest.raises(ConfigError) as raised:
            load({"config": str(file)}, {})
        said = str(raised.value)
        assert said.startswith(f"{file}: [{section}] {key}: "), said
        assert said.isprintable()
        assert len(said) < 900
        assert "allowed" in said or "; add " in said, said
