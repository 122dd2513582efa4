"""What `check` says of minimums and weights."""

from __future__ import annotations

import pytest

from qjsupervisor.commands.check_shares import about_minimums, about_shares
from qjsupervisor.commands.findings import Level
from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config


def config(channels: str, **options: str) -> Config:
    return load({"config": "/dev/null", **options}, {"HOME": "/nowhere", "ODOO_QUEUE_JOB_CHANNELS": channels})


@pytest.mark.parametrize(
    ("channels", "shares", "said"),
    [
        ("root:4", "a:min=2,b:min=2", None),
        ("root:4,x:2:min=2", "", None),
        ("root:4,x:2:min=2", "a:min=2", None),
        ("root:4,x:2:min=2", "a:min=3", "are 5 together, 1 more than root has (4)"),
    ],
)
def test_minimums_that_do_not_fit_together(channels: str, shares: str, said: str | None) -> None:
    options = {"db_capacity": shares} if shares else {}
    found = list(about_minimums(config(channels, **options), ["a", "b"]))
    assert len(found) == (said is not None)
    if said is not None:
        assert found[0].level is Level.WARNING
        assert said in found[0].text


def test_databases_that_are_not_there_count_for_nothing() -> None:
    assert list(about_minimums(config("root:4,x:2:min=2", db_capacity="a:min=3"), ["b"])) == []


def test_who_comes_first_and_who_starts_how_often() -> None:
    texts = [found.text for found in about_shares(config("root:8,x:4:min=2:reserve,y:4:min=1:weight=3,z:4"))]
    assert len(texts) == 2
    assert "root.x 2 (kept free), root.y 1" in texts[0]
    assert "root.y 3" in texts[1]
    assert list(about_shares(config("root:8,x:4"))) == []
