"""Parsers of single values."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from qjsupervisor.config.environment import server_of
from qjsupervisor.config.values import (
    address,
    certificates,
    choice,
    duration_in,
    entries,
    first_match,
    host,
    integer_in,
    optional_duration_in,
    path,
    plain,
    rules_in,
    shown,
    socket_path,
    split_port,
    unset,
)


@pytest.mark.parametrize("text", [None, "", "  ", "False", "false", "None", " False "])
def test_says_nothing(text: str | None) -> None:
    assert unset(text)


@pytest.mark.parametrize("text", ["0", "no", "FALSE", "False,x"])
def test_says_something(text: str) -> None:
    assert not unset(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60), ("0.5", 0.5), (" 90s ", 90), ("5m", 300), ("2 h", 7200), ("1d", 86400), ("1.5m", 90), ("1h30m", 5400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_in(0.1, 86400)(text) == seconds


@pytest.mark.parametrize("text", ["inf", "nan", "1e3", "-1", "0", "2d", "5 minutes", "", "1h30", "60 # c", "1m 1"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"allowed: "):
        duration_in(0.1, 86400)(text)


@pytest.mark.parametrize(("text", "seconds"), [("0", None), ("0s", None), ("30", 30.0)])
def test_zero_may_mean_for_ever(text: str, seconds: float | None) -> None:
    assert optional_duration_in(1, 60)(text) == seconds


@pytest.mark.parametrize("text", ["0.5", "61", "-1"])
def test_but_not_nearly_zero(text: str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        optional_duration_in(1, 60)(text)


@pytest.mark.parametrize("text", ["0", "11", "1.0", "ten", "0x1", "1 ; one"])
def test_whole_numbers_have_a_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"allowed|whole number"):
        integer_in(1, 10)(text)


def test_choice_in_any_case() -> None:
    assert choice("json", "console")(" JSON ") == "json"
    with pytest.raises(ValueError, match=r"'yaml' is unknown; allowed: json, console"):
        choice("json", "console")("yaml")


def test_entries_between_commas_and_lines() -> None:
    assert entries(" a,, b \n c,\n") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("8", (("*", 8),)),
        ("prod_*:20,staging:2,*:5", (("prod_*", 20), ("staging", 2), ("*", 5))),
        (" prod_* : 20 \n *:5 ", (("prod_*", 20), ("*", 5))),
        ("a:b:3", (("a:b", 3),)),
        (",", ()),
    ],
)
def test_rules(text: str, rules: tuple[tuple[str, int], ...]) -> None:
    assert rules_in(0, 100)(text) == rules


@pytest.mark.parametrize("text", ["prod_*", "prod_*:", ":3", "a:-1", "a:101"])
def test_no_rules(text: str) -> None:
    with pytest.raises(ValueError, match=r"^entry '"):
        rules_in(0, 100)(text)


@pytest.mark.parametrize(
    ("database", "number"),
    [("prod_foo", 20), ("staging", 2), ("dev", 5), ("PROD_foo", 5), ("staging2", 5)],
)
def test_first_rule_that_fits_wins(database: str, number: int) -> None:
    assert first_match((("prod_*", 20), ("staging", 2), ("*", 5), ("dev", 9)), database) == number
    assert first_match((("prod_*", 20),), "dev") is None


@pytest.mark.parametrize(
    ("text", "url_part"),
    [
        ("localhost", "localhost"),
        ("odoo_1.example.com", "odoo_1.example.com"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
        ("[fe80::1%eth0]", "[fe80::1%eth0]"),
    ],
)
def test_hosts(text: str, url_part: str) -> None:
    assert host(text) == url_part


@pytest.mark.parametrize(
    "text", ["", "a b", "http://a", "a/b", "-a", "a\nb", "a?b", "[::1", "ä.example", "::::", "1:2:3"]
)
def test_no_hosts(text: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        host(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a", ("a", None)), ("a:80", ("a", 80)), ("::1", ("[::1]", None)), ("[::1]:80", ("[::1]", 80))],
)
def test_host_with_or_without_port(text: str, parts: tuple[str, int | None]) -> None:
    assert split_port(text) == parts


@pytest.mark.parametrize(("text", "result"), [("127.0.0.1:9100", ("127.0.0.1", 9100)), ("[::1]:9100", ("::1", 9100))])
def test_addresses(text: str, result: tuple[str, int]) -> None:
    assert address(text) == result


@pytest.mark.parametrize("text", ["9100", "localhost", ":9100", "a:0", "a:65536", "a:http", "::1"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="write HOST:PORT"):
        address(text)


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/odoo")
    assert path("run/pid") == str(tmp_path / "run/pid")
    assert path("~/pid") == "/home/odoo/pid"


def test_socket_path_has_a_limit() -> None:
    limit = 107
    longest = "/" + "s" * (limit - 1)
    assert socket_path(longest) == longest
    with pytest.raises(ValueError, match="107 bytes"):
        socket_path(longest + "s")
    with pytest.raises(ValueError, match="107 bytes"):
        socket_path("/" + "ä" * 60)


def test_certificates(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(ValueError, match="No such file"):
        certificates(str(file))
    file.write_text("not a certificate")
    with pytest.raises(ValueError, match="holds no certificate"):
        certificates(str(file))
    trustme.CA().cert_pem.write_to_path(str(file))
    assert certificates(str(file)) == str(file)
    with pytest.raises(ValueError, match="Is a directory"):
        certificates(str(tmp_path))


@pytest.mark.parametrize("parse", [plain, path], ids=["plain", "path"])
def test_no_control_characters(parse: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match="control character"):
        parse("a\x00b")


def test_shown_is_short_and_printable() -> None:
    assert shown("a\x1b\n" * 100).isprintable()
    assert len(shown("x" * 10_000)) < 100
    assert os.linesep not in shown("a\nb")


@pytest.mark.parametrize(
    ("dsn", "environ", "name"),
    [
        ({}, {}, "local socket:5432"),
        ({"host": "pg", "port": 5433}, {"PGHOST": "other", "PGPORT": "1"}, "pg:5433"),
        ({"host": ""}, {"PGHOST": "/run/pg", "PGPORT": "6432"}, "/run/pg:6432"),
        ({"host": "a,b"}, {}, "a,b:5432"),
        ({"hostaddr": "::1"}, {}, "[::1]:5432"),
        ({"service": "main"}, {}, "service main"),
    ],
)
def test_what_a_server_is_called(dsn: dict[str, object], environ: dict[str, str], name: str) -> None:
    assert server_of(dsn, environ) == name
