"""Durations and scopes as people type them."""

from __future__ import annotations

import pytest

from qjsupervisor.commands.arguments import ScopeArgument, parse_duration, parse_scope


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        ("0.5h", 1800),
        (" 2W ", 1209600),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "m", "1x", "1h 30", "1e9", "inf", "nan", "99999999d", "\u0663m"])
def test_wrong_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("", ScopeArgument(None, "root")),
        ("db", ScopeArgument("db", "root")),
        ("db:", ScopeArgument("db", "root")),
        (":slow", ScopeArgument(None, "root.slow")),
        ("db:root", ScopeArgument("db", "root")),
        ("db:root.a.b", ScopeArgument("db", "root.a.b")),
        ("a:b:c", ScopeArgument("a:b", "root.c")),
    ],
)
def test_scope(text: str, scope: ScopeArgument) -> None:
    assert parse_scope(text) == scope


@pytest.mark.parametrize("text", ["db:.", "db:a..b", "db:root."])
def test_wrong_scope(text: str) -> None:
    with pytest.raises(ValueError, match="not a channel"):
        parse_scope(text)


def test_scope_in_words() -> None:
    assert str(ScopeArgument(None, "root")) == "all jobs of every database"
    assert str(ScopeArgument("db", "root.a")) == "channel root.a of db"
