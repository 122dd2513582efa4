"""An eta is judged by the server's clock, whatever ours says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory
from ..helpers import odoo_conf
from .injected import FaultySupervisor


@pytest.fixture
def faulty(postgres: ThrowawayPostgres, odoo: StandIn, tmp_path: Path) -> Iterator[FaultySupervisor]:
    made = FaultySupervisor(odoo_conf(postgres, odoo.port), tmp_path, "clock_ahead")
    yield made
    made.close()


@pytest.mark.parametrize(("before", "after"), [("3600", "3600"), ("-3600", "-3600"), ("0", "3600")])
def test_the_server_says_what_is_due(
    faulty: FaultySupervisor, database: DatabaseFactory, before: str, after: str
) -> None:
    """Ours is ahead, behind, or set forward while jobs wait: they run neither early nor a minute late."""
    one = database()
    faulty.write_conf(faulty.conf.read_text().replace("db_user", f"db_name = {one.name}\ndb_user"))
    faulty.switch.write_text(before)
    faulty.start()
    faulty.wait_ready(one.name)
    uuids = one.insert_jobs(2, eta_s=3)
    (first,) = one.insert_jobs(1)
    one.wait_for_states(done=1, pending=2)
    faulty.switch.write_text(after)
    one.wait_for_states(done=3, timeout_s=8)
    ((early, late),) = one.execute(
        "SELECT min(date_started - eta) < '0 s', max(date_started - eta) > '2 s' FROM queue_job WHERE uuid = ANY(%s)",
        (uuids,),
    )
    assert not early, "it ran before it was due"
    assert not late
    assert one.state(first) == "done"
