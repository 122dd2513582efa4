"""What a request to an Odoo says, and what of a database's name a header can carry."""

from __future__ import annotations

import pytest

from qjsupervisor.config.settings import TargetSettings
from qjsupervisor.odoo.target import Target, header_problem
from qjsupervisor.table.servers import private_servers

(SERVER,) = private_servers(["http://odoo:8069"])


def lines(database: str, url: str = "http://odoo:8069", **settings: str) -> list[bytes]:
    return Target(TargetSettings(url=url, **settings), database, -1, SERVER).payload("u").split(b"\r\n")


@pytest.mark.parametrize("name", ["prod", "my db", "a+b%20&c", "café", "x\xff"])
def test_the_header_carries_the_name_as_it_is(name: str) -> None:
    assert header_problem(name) == ""
    assert b"X-Odoo-Database: " + name.encode("latin-1") in lines(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("база", "outside Latin-1"),
        ("a☃", "outside Latin-1"),
        ("a\r\nHost: other", "control characters"),
        ("a\x85b", "control characters"),
        ("\tx", "control characters"),
        (" x", "blank"),
        ("x ", "blank"),
    ],
)
def test_what_no_header_can_carry_is_left_to_the_query(name: str, why: str) -> None:
    assert why in header_problem(name)
    first, *headers = lines(name)
    assert first.startswith(b"GET /queue_job/runjob?db=")
    assert not any(line.startswith(b"X-Odoo-Database") for line in headers)
    assert sum(line.startswith(b"Host") for line in headers) == 1


def test_the_port_of_the_scheme_and_no_password_in_the_host() -> None:
    target = Target(TargetSettings(url="https://odoo"), "d", -1, SERVER)
    assert (target.host, target.context is not None) == ("odoo", True)
    assert b"Host: odoo:8069" in lines("d")
