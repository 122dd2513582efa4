"""Every option of a channel, as the jobs that reach Odoo show it."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from qjsupervisor.monitor.health import problems, warnings
from qjsupervisor.testing.odoo_stats import Run
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.schema import set_channel
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until


def start(
    postgres: ThrowawayPostgres, odoo: StandIn, supervisor: SupervisorFactory, *databases: Database, channels: str
) -> Supervisor:
    names = [database.name for database in databases]
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=",".join(names), channels=channels))
    running.wait_ready(*names)
    return running


def runs(odoo: StandIn, channel: str) -> list[Run]:
    return [run for run in odoo.stats()["runs"] if run["channel"] == channel]


def done(database: Database, channel: str) -> int:
    ((number,),) = database.execute("SELECT count(*) FROM queue_job WHERE channel = %s AND state = 'done'", (channel,))
    return int(number)


def test_order_and_sequence(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """By priority, then by age; a sequential channel stops on a failed job of its database, and goes on after it."""
    one, other = database(), database()
    last = one.insert_jobs(2, channel="root.seq", priority=20)
    bad = one.insert_jobs(1, channel="root.seq", priority=10, kwargs={"fail": True})
    first = one.insert_jobs(3, channel="root.seq", priority=10)
    very_first = one.insert_jobs(1, channel="root.seq", priority=1)
    one.execute("UPDATE queue_job SET date_created = now() WHERE uuid = %s", (bad[0],))
    running = start(postgres, odoo, supervisor, one, other, channels="root:4,root.seq:1:sequential")
    wait_until(lambda: one.state(bad[0]) == "failed", "the failing job's turn")
    one.insert_jobs(3, channel="root.elsewhere")
    wait_until(lambda: done(one, "root.elsewhere") == 3, "other channels go on")
    assert [run["uuid"] for run in runs(odoo, "root.seq")] == [*very_first, *first, *bad]
    assert {one.state(uuid) for uuid in last} == {"pending"}
    told = f"channel root.seq is stopped by failed job {bad[0]} of {one.name}: `qjsupervisor requeue"
    wait_until(lambda: told in " ".join(warnings(running.status())), "the status names the job")
    assert problems(running.status()) == [], "no database's service is less for it"
    one.execute("UPDATE queue_job SET state = 'done' WHERE uuid = %s", (bad[0],))
    wait_until(lambda: done(one, "root.seq") == 7, "what comes after the failed one")
    wait_until(lambda: warnings(running.status()) == [], "nothing is stopped")
    assert [run["uuid"] for run in runs(odoo, "root.seq")][-2:] == last
    assert odoo.stats()["peak"]["root.seq"] == 1


def test_an_earlier_job_that_is_not_due_is_waited_for(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    start(postgres, odoo, supervisor, one, channels="root:4,root.seq:1:sequential")
    early = one.insert_jobs(1, channel="root.seq", eta_s=1.5, priority=5)
    free = one.insert_jobs(1, channel="root.free", eta_s=1.5, priority=5)
    late = one.insert_jobs(2, channel="root.seq")
    one.insert_jobs(2, channel="root.free")
    inserted_s = time.monotonic()
    one.wait_for_states(done=6)
    assert [run["uuid"] for run in runs(odoo, "root.seq")] == [*early, *late]
    assert [run["uuid"] for run in runs(odoo, "root.free")][2:] == free
    begun = {run["uuid"]: run["started_s"] for run in odoo.stats()["runs"]}
    assert all(begun[uuid] > inserted_s + 1 for uuid in (*early, *free)), "before its eta"


def test_throttle(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Over all databases, and for what is below the channel; nobody else is held up by it."""
    one, other = database(), database()
    for each in (one, other):
        each.insert_jobs(1, channel="root.slow")
        each.insert_jobs(1, channel="root.slow.sub")
    one.insert_jobs(5, channel="root.free")
    start(postgres, odoo, supervisor, one, other, channels="root:4,root.slow:3:throttle=1")
    wait_until(lambda: done(one, "root.free") == 5, "what is not throttled")
    for each, number in ((one, 7), (other, 2)):
        each.wait_for_states(done=number)
    begun = sorted(run["received_s"] for run in [*runs(odoo, "root.slow"), *runs(odoo, "root.slow.sub")])
    assert len(begun) == 4
    assert min(later - earlier for earlier, later in pairwise(begun)) > 0.7
    free = [run["started_s"] for run in runs(odoo, "root.free")]
    assert max(free) < begun[-1]


@pytest.mark.parametrize("per_database", [False, True])
def test_a_throttle_outlives_the_supervisor(
    postgres: ThrowawayPostgres,
    odoo: StandIn,
    database: DatabaseFactory,
    supervisor: SupervisorFactory,
    per_database: bool,
) -> None:
    """The rows tell when the last job was started."""
    one = database()
    set_channel(one.connection, "root.slow", capacity=2, throttle=6)
    own = {"channels": None, "max_capacity": 4} if per_database else {"channels": "root:4,root.slow:2:throttle=6"}
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections={"queue_job": own}))
    running.wait_ready(one.name)
    one.insert_jobs(1, channel="root.slow")
    one.wait_for_states(done=1)
    running.kill()
    running.start()
    one.insert_jobs(1, channel="root.slow")
    one.insert_jobs(1)
    one.wait_for_states(done=2, pending=1)
    one.wait_for_states(done=3)
    first, second = sorted(run["received_s"] for run in runs(odoo, "root.slow"))
    assert 5.9 < second - first < 9


def test_defaults_pause_and_unknown_names(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    kwargs = {"sleep": 0.2}
    for channel in ("root.many.a", "root.many.b"):
        one.insert_jobs(3, channel=channel, kwargs=kwargs)
    one.insert_jobs(1, channel="root.ordered.x", kwargs={"fail": True})
    one.insert_jobs(2, channel="root.ordered.x")
    one.insert_jobs(2, channel="root.ordered.y")
    one.insert_jobs(2, channel="root.off")
    one.insert_jobs(2, channel="root.off.below")
    for name in (None, "", "root", "root.nobody.knows", "no_root"):
        one.insert_jobs(2, channel=name)
    channels = "root:8,many:4:capacity_default=1,ordered:4:sequential_default,off:2:paused"
    running = start(postgres, odoo, supervisor, one, channels=channels)
    # Six below `many`, two in `ordered.y`, ten elsewhere; `ordered.x` stopped, `off` never began.
    one.wait_for_states(done=18, failed=1, pending=6)
    peak = odoo.stats()["peak"]
    assert (peak["root.many.a"], peak["root.many.b"], peak["root.many"]) == (1, 1, 2)
    assert one.execute("SELECT DISTINCT channel FROM queue_job WHERE state = 'pending' ORDER BY 1") == [
        ("root.off",),
        ("root.off.below",),
        ("root.ordered.x",),
    ]
    shown = {channel["name"]: channel for channel in running.status()["channels"]}
    assert shown["root.off"]["paused"] is True
    assert shown["root.off"]["pending"] == 4


def test_capacities_of_a_path(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A subchannel may have more than its parent: it is the parent that counts."""
    one, other = database(), database()
    for each in (one, other):
        each.insert_jobs(6, channel="root.a.b", kwargs={"sleep": 0.1})
        each.insert_jobs(6, channel="root.c", kwargs={"sleep": 0.1})
    start(postgres, odoo, supervisor, one, other, channels="root:5,root.a:2,root.a.b:8,root.c:0")
    for each in (one, other):
        each.wait_for_states(done=12)
    peak = odoo.stats()["peak"]
    assert (peak["root"], peak["root.a"], peak["root.a.b"]) == (5, 2, 2)


def test_a_tree_of_each_database(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """The same options from the table of 18.0.4; they hold in their own database, and change while it runs."""
    one, other = database(), database()
    for each in (one, other):
        set_channel(each.connection, "root", capacity=0)
        set_channel(each.connection, "root.two", capacity=2)
        set_channel(each.connection, "root.seq", capacity=1, sequential=True)
        set_channel(each.connection, "root.off", capacity=1, paused=True)
        set_channel(each.connection, "root.slow", capacity=2, throttle=1)
        each.insert_jobs(4, channel="root.two", kwargs={"sleep": 0.2})
        each.insert_jobs(1, channel="root.seq", kwargs={"fail": True})
        each.insert_jobs(1, channel="root.seq")
        each.insert_jobs(1, channel="root.off")
        each.insert_jobs(3, channel="root.slow")
    sections = {"queue_job": {"channels": None, "max_capacity": 10, "db_max_capacity": "*:4"}}
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}", sections=sections))
    running.wait_ready(one.name, other.name)
    for each in (one, other):
        each.wait_for_states(done=7, failed=1, pending=2)
    peaks = odoo.stats()["peak_by_database"]
    for each in (one, other):
        assert (peaks[each.name]["root.two"], peaks[each.name]["root.seq"]) == (2, 1)
        assert peaks[each.name]["root"] <= 4
        begun = [run["received_s"] for run in runs(odoo, "root.slow") if run["database"] == each.name]
        assert min(later - earlier for earlier, later in pairwise(begun)) > 0.7
    failed = [each.execute("SELECT uuid FROM queue_job WHERE state = 'failed'")[0][0] for each in (one, other)]
    told = [
        f"channel root.seq of {each.name} is stopped by failed job {uuid}: `qjsupervisor requeue"
        for each, uuid in zip((one, other), failed, strict=True)
    ]
    shown = " ".join(warnings(running.status()))
    assert all(each in shown for each in told), shown
    set_channel(one.connection, "root.off", capacity=1)
    set_channel(one.connection, "root.seq", capacity=1)
    one.wait_for_states(done=9, failed=1)
    assert other.states() == {"done": 7, "failed": 1, "pending": 2}
    (left,) = warnings(running.status())
    assert left.startswith(told[1]), "the channel of the other one is no sequential one any more"
