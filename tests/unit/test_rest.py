"""Whether a database can do without a worker, by what its rows say."""

from __future__ import annotations

import pytest

from qjsupervisor.postgres.rest import Rest


@pytest.mark.parametrize(
    ("row", "lasts"),
    [
        ((False, None, 1000.0, "0/0"), True),
        ((True, None, 1000.0, "0/0"), False),
        ((False, float("-inf"), 1000.0, "0/0"), False),
        ((False, 1010.0, 1000.0, "0/0"), False),
        ((False, 1011.0, 1000.0, "0/0"), True),
        ((False, float("inf"), 1000.0, "0/0"), True),
    ],
)
def test_rest(row: tuple[object, ...], lasts: bool) -> None:
    assert Rest.of(row).lasts(10.0) is lasts
