"""What an HTTP status means, in words of what to do."""

from __future__ import annotations

import pytest

from qjsupervisor.odoo.http_status import KNOWN, meaning


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (200, "dbfilter"),
        (204, "another program"),
        (301, "redirects"),
        (303, "database selector"),
        (401, "http_auth_user"),
        (403, "denies access"),
        (404, "server_wide_modules"),
        (418, "see its log"),
        (429, "limits the rate"),
        (500, "dbfilter"),
        (502, "cannot reach Odoo"),
        (503, "is starting"),
        (504, "in time"),
        (599, "see its log"),
    ],
)
def test_meaning(status: int, said: str) -> None:
    assert said in meaning(status)


def test_each_known_status_has_a_meaning_of_its_own() -> None:
    assert len({meaning(status) for status in KNOWN}) == len(KNOWN)
    assert meaning(418) not in {meaning(status) for status in KNOWN}
