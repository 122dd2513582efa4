"""What databases are guaranteed and limited to: as it is written, and whether it fits."""

from __future__ import annotations

import pytest

from qjsupervisor.channelspec import Share
from qjsupervisor.config.load import load
from qjsupervisor.config.shares import excess, parse_shares, resolved
from qjsupervisor.errors import ConfigError


def test_the_first_pattern_counts() -> None:
    config = load(
        {"db_capacity": "prod_*:min=2:max=8, staging:min=1:reserve, *:max=25%"},
        {"ODOO_QUEUE_JOB_CHANNELS": "root:10", "ODOO_RC": "/dev/null"},
    )
    assert config.share("prod_a") == Share(2, 8)
    assert config.share("staging") == Share(1, None, reserve=True)
    assert config.share("other") == Share(0, 3)


def test_nobody_is_limited_who_is_not_named() -> None:
    config = load({"db_capacity": "prod_*:max=8"}, {"ODOO_RC": "/dev/null"})
    assert config.share("other") == Share()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("prod", "entry 'prod': allowed: PATTERN[:min=SIZE][:max=SIZE][:reserve]"),
        (":min=1", "allowed: PATTERN"),
        ("a:min", "'min' is no setting"),
        ("a:least=1", "'least=1' is no setting"),
        ("a:min=x", "min: 'x' is not a whole number; allowed: 0 to 1000000; or a percentage, as in 50%"),
        ("a:min=-1", "min: -1 is out of range; allowed: 0 to 1000000"),
        ("a:max=0", "max: 0 is out of range; allowed: 1 to 1000000"),
        ("a:max=101%", "max: 101 is out of range; allowed: 1 to 100"),
        ("a:min=1:min=2", "min is given twice"),
        ("a:reserve", "reserve keeps a minimum free, and there is no min"),
        ("a:min=1:reserve=2", "'reserve=2' is no setting"),
    ],
)
def test_what_is_wrong_is_named(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=r"^entry ") as raised:
        parse_shares(text)
    assert part in str(raised.value)


@pytest.mark.parametrize(
    ("text", "capacity", "part"),
    [
        ("a:min=5:max=3", 10, "entry 'a': min is 5, 2 more than max, which is 3"),
        ("a:min=5", 4, "entry 'a': min is 5, 1 more than root has, which is 4"),
        ("a:max=50%", None, "entry 'a': 50% of root, which has no limit; allowed there: a number"),
    ],
)
def test_what_does_not_fit_says_by_how_much(text: str, capacity: int | None, part: str) -> None:
    with pytest.raises(ValueError, match=r"^entry ") as raised:
        resolved(parse_shares(text), capacity)
    assert str(raised.value) == part


def test_minimums_of_named_databases_have_to_fit() -> None:
    shares = parse_shares("a*:min=3,b:min=2")
    assert excess(shares, ("a1", "b", "c"), 5) == ""
    assert excess(shares, ("a1", "a2", "b"), 5) == "the minimums of 3 databases are 8, 3 more than root has (5)"
    assert excess(shares, ("a1", "a2", "b"), None) == ""


def test_the_start_is_refused() -> None:
    environ = {"ODOO_QUEUE_JOB_CHANNELS": "root:2", "ODOO_RC": "/dev/null"}
    with pytest.raises(ConfigError, match=r"db.capacity.*min is 3, 1 more than root has, which is 2"):
        load({"db_capacity": "*:min=3"}, environ)
