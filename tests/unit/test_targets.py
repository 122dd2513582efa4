"""Targets: which Odoo is asked for which database."""

from __future__ import annotations

import pytest

from qjsupervisor.config.settings import TargetSettings
from qjsupervisor.config.targets import ANY, completed, parse_hosts, parse_targets


def urls(text: str) -> list[tuple[str, list[str]]]:
    return [(glob, [target.url for target in targets]) for glob, targets in parse_targets(text)]


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("prod_*:https://a, *:http://b:8069", [("prod_*", ["https://a:443"]), ("*", ["http://b:8069"])]),
        ("http://b", [("*", ["http://b:80"])]),
        ("HTTP://b/", [("*", ["http://b:80"])]),
        ("p : http://a:1\n*:http://b:2\np:http://c:3", [("p", ["http://a:1", "http://c:3"]), ("*", ["http://b:2"])]),
        ("a:b:http://c", [("a:b", ["http://c:80"])]),
        ("x:http://[::1]:8069", [("x", ["http://[::1]:8069"])]),
    ],
)
def test_rules(text: str, rules: list[tuple[str, list[str]]]) -> None:
    assert urls(text) == rules


def test_credentials_of_a_target() -> None:
    (((_, (target,)),)) = parse_targets("x:https://jobs:s%2C%40%C3%A9@a:8443")
    assert target == TargetSettings(url="https://a:8443", user="jobs", password="s,@é")
    assert "é" not in repr(target)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("prod_*", "no URL"),
        ("prod_*:ftp://a", "no URL"),
        ("prod_*:a:8069", "no URL"),
        (":http://a", "pattern"),
        ("x:http://", "not a host"),
        ("x:http://a:0", "1 to 65535"),
        ("x:http://a/odoo", "nothing behind"),
        ("x:http://a?db=x", "nothing behind"),
    ],
)
def test_wrong_entry_is_quoted(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=r"^entry '") as raised:
        parse_targets("*:http://localhost:8069," + text)
    assert part in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "x:http://u:geheim@h:99999",
        "x:http://u:ge,heim@h",
        "x:http://u:ge/heim@h",
        "x:http://geheim:geheim@h/path",
        "x:u:geheim@h",
        "x:http://u:geheim@",
    ],
)
def test_wrong_entry_with_a_password_is_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"entry [0-9]") as raised:
        parse_targets(text)
    for piece in ("geheim", "ge", "heim"):
        assert piece not in str(raised.value).replace("letters and digits", "")


def test_hosts() -> None:
    assert parse_hosts("a, b:8070, ::1") == (("a", None), ("b", 8070), ("[::1]", None))


@pytest.mark.parametrize(
    ("text", "part"), [(",", "no host"), ("u:geheim@a", "http_auth_user"), ("http://a", "not a host")]
)
def test_no_hosts(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=part) as raised:
        parse_hosts(text)
    assert "geheim" not in str(raised.value)


COMMON = ((ANY, (TargetSettings(url="http://c:1", user="u", password="p", ca_file="/ca"),)),)


def test_any_database_has_a_target() -> None:
    assert [glob for glob, _ in completed(parse_targets("x:http://a"), COMMON)] == ["x", "*"]
    assert [glob for glob, _ in completed(parse_targets("*:http://a"), COMMON)] == ["*"]
    assert completed((), COMMON) == COMMON


def test_common_credentials_fill_in_what_is_missing() -> None:
    rules = completed(parse_targets("x:http://a, y:http://me:mine@b"), COMMON)
    assert [(targets[0].user, targets[0].password, targets[0].ca_file) for _, targets in rules] == [
        ("u", "p", "/ca"),
        ("me", "mine", "/ca"),
        ("u", "p", "/ca"),
    ]
