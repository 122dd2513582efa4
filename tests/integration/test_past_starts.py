"""Rates count what was started before the worker was: read once, aside, and nothing is started meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from qjsupervisor.config.channel_string import parse_channels
from qjsupervisor.worker.past_starts import LONGEST_S, MOST, past_starts_params

from ..conftest import DatabaseFactory
from .served import MakeRig, Rig

STARTED = """
INSERT INTO queue_job (uuid, state, channel, date_enqueued, date_done)
SELECT 'done' || n, 'done', %s, now() AT TIME ZONE 'UTC' - interval '20 s', now() AT TIME ZONE 'UTC'
  FROM generate_series(1, %s) n
"""


@pytest.mark.parametrize(
    ("channels", "like"),
    [
        ("root:4", None),
        ("root:4,mail:2:rate=3/1m", ["root.mail", "root.mail.%", "mail", "mail.%"]),
        ("root:4:rate=3/1m", ["%"]),
        ("root:4,a_b:2:rate=3/1m", ["root.a\\_b", "root.a\\_b.%", "a\\_b", "a\\_b.%"]),
        ("root:4,mail:2:rate_default=3/1m", ["root.mail", "root.mail.%", "mail", "mail.%"]),
    ],
)
def test_which_rows_tell(channels: str, like: list[str] | None) -> None:
    rated = [spec for spec in parse_channels(channels) if spec.rate or spec.rate_default]
    params: dict[str, Any] | None = past_starts_params(rated)
    assert (None if params is None else params["like"]) == like
    if params is not None:
        assert params["limit"] == MOST
        assert 60 < params["within_s"] < 62


def test_rows_tell_of_no_more_than_an_hour() -> None:
    rated = [spec for spec in parse_channels("root:4,mail:2:rate=3/1d") if spec.rate]
    assert (past_starts_params(rated) or {})["within_s"] == LONGEST_S


def sent(rig: Rig) -> int:
    return len(rig.odoo.requests)


def test_what_was_started_within_the_period_counts(make_rig: MakeRig, database: DatabaseFactory) -> None:
    one = database()
    one.execute(STARTED, ("mail", 2))
    one.insert_jobs(5, channel="root.mail")
    one.insert_jobs(1, channel="root.free")
    rig = make_rig(one, "root:9,mail:9:rate=3/1m,free:9")
    rig.until(lambda: sent(rig) == 2, "one of three is left, and what has no rate goes on")
    rig.go_on(0.3)
    assert sent(rig) == 2
    assert rig.worker.parts.worker_slot.starts_known


def test_nothing_is_read_where_no_channel_has_a_rate(rig: Rig) -> None:
    assert rig.worker.parts.worker_slot.starts_known
    assert rig.heard("starts") == []


def test_the_master_is_told_of_new_starts(make_rig: MakeRig) -> None:
    rig = make_rig(channels="root:9:rate=5/1m")
    rig.send(1)
    rig.until(lambda: rig.heard("starts") != [], "it is told")
