"""The demo notices work that did not come out as it must: it must never say that all is well when it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg2 import extensions

from qjsupervisor.demo import outcome, work
from qjsupervisor.demo.work import Batch, Work
from qjsupervisor.testing.odoo_stats import Stats
from qjsupervisor.testing.stand_in import StandIn
from tests.conftest import DatabaseFactory

_PLAN = (
    Batch(about="plain", database=work.SHOP, count=2),
    Batch(about="fail", database=work.SHOP, count=1, state="failed"),
    Batch(about="in order", database=work.SHOP, count=2, channel=work.SEQUENTIAL),
    Batch(about="due later", database=work.SHOP, count=1, eta_s=5),
)


class Scene:
    """A small plan, all of it run as it must be; tests spoil it."""

    def __init__(self, connection: extensions.connection, stats: Stats) -> None:
        self.connection = connection
        self.work = Work({work.SHOP: connection}, _PLAN)
        self.work.put_due(0.0)
        self.execute("UPDATE queue_job SET state = 'done', date_started = coalesce(eta, now() AT TIME ZONE 'UTC')")
        for (_, uuid), batch in self.work.batches.items():
            self.execute("UPDATE queue_job SET state = %s WHERE uuid = %s", batch.state, uuid)
        self.stats = stats
        uuids = [uuid for _, uuid in self.work.batches]
        stats["executions"] = {work.SHOP: dict.fromkeys(uuids, 1)}
        stats["peak"] = {"root": 6, work.SEQUENTIAL: 1}
        for (_, uuid), batch in self.work.batches.items():
            stats["runs"].append(
                {
                    "database": work.SHOP,
                    "uuid": uuid,
                    "channel": batch.channel,
                    "received_s": 0.0,
                    "started_s": 0.0,
                    "finished_s": 0.0,
                    "outcome": batch.state,
                }
            )

    def execute(self, statement: str, *params: object) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, params)

    def findings(self) -> list[str]:
        return list(outcome.findings(self.work, {work.SHOP: self.connection}, self.stats))


@pytest.fixture
def scene(database: DatabaseFactory, odoo: StandIn) -> Scene:
    return Scene(database().connection, odoo.stats())


def test_nothing_to_complain_about(scene: Scene) -> None:
    assert scene.findings() == []


def _not_finished(scene: Scene) -> None:
    scene.execute("UPDATE queue_job SET state = 'pending' WHERE state = 'failed'")


def _run_twice(scene: Scene) -> None:
    runs = scene.stats["executions"][work.SHOP]
    runs[next(iter(runs))] = 2


def _over_capacity(scene: Scene) -> None:
    scene.stats["peak"]["root"] = 7


def _out_of_order(scene: Scene) -> None:
    scene.stats["runs"].reverse()


def _too_early(scene: Scene) -> None:
    scene.execute("UPDATE queue_job SET date_started = eta - interval '1 s' WHERE eta IS NOT NULL")


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (_not_finished, f"{work.SHOP}: 1 of the jobs 'fail' are pending, not failed"),
        (_run_twice, f"{work.SHOP}: 1 of the jobs 'plain' were run 2 times, not 1"),
        (_over_capacity, "root: 7 jobs at once, more than its capacity of 6"),
        (_out_of_order, f"{work.SHOP}: the jobs of the sequential channel {work.SEQUENTIAL} were not run in order"),
        (_too_early, f"{work.SHOP}: 1 jobs began before they were due"),
    ],
)
def test_each_fault_is_named(scene: Scene, spoil: Callable[[Scene], None], finding: str) -> None:
    spoil(scene)
    assert scene.findings() == [finding]
