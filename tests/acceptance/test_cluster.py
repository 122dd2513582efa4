"""One capacity over several supervisors, as Odoo sees it."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

import psutil
import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until
from .link import Link

#: A request that is longer on its way was held up by a busy machine.
LATE_S = 0.15
Member = Callable[..., Supervisor]
CHANNELS = "root:8,root.s:1:sequential"


@pytest.fixture
def member(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> Member:
    """Starts a supervisor of one cluster; the first one makes the schema."""
    ledger = database(schema=None)
    made: list[Supervisor] = []

    def start(*served: Database, channels: str = CHANNELS, link: Link | None = None, **options: object) -> Supervisor:
        ways = {} if link is None else {"options": {"db_host": link.host, "db_port": link.port}}
        conf = odoo_conf(
            postgres,
            odoo.port,
            db_name=",".join(each.name for each in served),
            channels=channels,
            sections={"qjsupervisor": {"cluster": "test", "cluster_database": ledger.name, **options}, **ways},
        )
        running = supervisor(conf)
        if not made:
            done = running.run("cluster", "init")
            assert done.returncode == 0, done.stderr
        made.append(running)
        return running

    return start


def cluster_of(running: Supervisor) -> dict[str, object]:
    found: dict[str, object] = running.status()["cluster"]
    return found


def broker_of(running: Supervisor) -> psutil.Process:
    return running.titled("qjsupervisor: broker")


def leader_beside_standby(member: Member, *served: Database) -> Supervisor:
    """The leader of these databases; another member waits for them."""
    first = member(*served)
    first.wait_ready(*(each.name for each in served))
    member(*served).wait_for("coordinator_joined")
    return first


def once_each(odoo: StandIn) -> bool:
    return {n for runs in odoo.stats()["executions"].values() for n in runs.values()} == {1}


def test_two_supervisors_share_one_capacity(member: Member, odoo: StandIn, database: DatabaseFactory) -> None:
    """Equal backlogs start equally, a sequential channel is one over both, and what is idle is lent at once."""
    one, other = database(), database()
    first, second = member(one), member(other)
    first.wait_ready(one.name)
    second.wait_ready(other.name)
    for each in (one, other):
        each.insert_jobs(60, kwargs={"sleep": 0.1})
        each.insert_jobs(5, kwargs={"sleep": 0.02}, channel="root.s")
    one.wait_for_states(done=65, timeout_s=30)
    other.wait_for_states(done=65, timeout_s=30)
    peak = odoo.stats()["peak"]
    assert (peak["root"], peak["root.s"]) == (8, 1)
    assert once_each(odoo)
    odoo.reset()
    one.insert_jobs(30, kwargs={"sleep": 0.2})
    wait_until(lambda: odoo.stats()["running"].get("root") == 8, "one has all that the other does not use")
    one.wait_for_states(done=95, timeout_s=30)
    done = first.run("cluster", "status", "--json")
    assert done.returncode == 0
    assert sum(entry["alive"] for entry in json.loads(done.stdout)["members"]) == 2
    assert len(cluster_of(first)["members"]) == 2  # type: ignore[arg-type]


def test_a_killed_supervisor_gives_its_share_up(member: Member, odoo: StandIn, database: DatabaseFactory) -> None:
    one, other = database(), database()
    first = leader_beside_standby(member, one, other)
    one.insert_jobs(4, kwargs={"sleep": 3})
    one.wait_for_states(started=4)
    killed_s = time.monotonic()
    first.kill()
    other.insert_jobs(250, kwargs={"sleep": 0.3})
    wait_until(lambda: odoo.stats()["running"].get("root") == 8, "the other one uses all", timeout_s=20)
    assert time.monotonic() - killed_s < 20
    other.wait_for_states(done=250, timeout_s=60)
    one.wait_for_states(done=4)
    assert odoo.stats()["peak"]["root"] <= 8
    assert once_each(odoo)


def test_a_stopped_supervisor_hands_over_what_runs(member: Member, odoo: StandIn, database: DatabaseFactory) -> None:
    one, other = database(), database()
    first = leader_beside_standby(member, one, other)
    one.insert_jobs(4, kwargs={"sleep": 2})
    one.wait_for_states(started=4)
    assert first.stop() == 0
    other.insert_jobs(30, kwargs={"sleep": 0.3})
    wait_until(lambda: odoo.stats()["running"].get("root") == 8, "the rest is free at once", timeout_s=8)
    other.wait_for_states(done=30, timeout_s=30)
    one.wait_for_states(done=4)
    assert odoo.stats()["peak"]["root"] <= 8


def test_the_floor_is_used_while_the_coordinator_is_away(
    member: Member, postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory
) -> None:
    """The broker alone is cut off, for longer than a lease; the other supervisor gets all but the floor."""
    one, other = database(), database()
    first = member(one, coordination_floor="root:2")
    second = member(other)
    first.wait_ready(one.name)
    second.wait_ready(other.name)
    wait_until(
        lambda: any(entry["own"] and entry["floor"] == {"root": 2} for entry in cluster_of(first)["members"]),  # type: ignore[attr-defined]
        "the ledger knows of the floor",
    )
    broker = broker_of(first)
    os.kill(broker.pid, signal.SIGSTOP)
    stopped_s = time.monotonic()
    try:
        wait_until(lambda: time.monotonic() > stopped_s + 16, "the lease is over", timeout_s=20)
        odoo.reset()
        one.insert_jobs(12, kwargs={"sleep": 0.3})
        other.insert_jobs(40, kwargs={"sleep": 0.3})
        one.wait_for_states(done=12, timeout_s=15)
        other.wait_for_states(done=40, timeout_s=15)
        stats = odoo.stats()
        assert stats["peak_by_database"][one.name]["root"] == 2
        assert stats["peak_by_database"][other.name]["root"] == 6
        assert stats["peak"]["root"] <= 8
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def test_nothing_starts_while_the_coordinator_is_away(
    member: Member, postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory
) -> None:
    """Longer than a lease. Packets are dropped, and nobody hears of it."""
    one = database()
    running = member(one)
    running.wait_ready(one.name)
    one.insert_jobs(1)
    one.wait_for_states(done=1)  # it keeps one permit for the next
    broker = broker_of(running)
    os.kill(broker.pid, signal.SIGSTOP)  # as good as a network that drops all
    stopped_s = time.monotonic()
    one.insert_jobs(1)
    one.wait_for_states(done=2)
    wait_until(lambda: time.monotonic() > stopped_s + 15, "the lease is over", timeout_s=20)
    one.insert_jobs(3)
    with pytest.raises(AssertionError):
        one.wait_for_states(done=5, timeout_s=2)
    os.kill(broker.pid, signal.SIGCONT)
    one.wait_for_states(done=5, timeout_s=5)


def test_capacities_that_differ(member: Member, odoo: StandIn, database: DatabaseFactory) -> None:
    one, other = database(), database()
    first, second = member(one, channels="root:5"), member(other, channels="root:3")
    first.wait_ready(one.name)
    second.wait_ready(other.name)
    second.wait_for("coordinator_joined")
    one.insert_jobs(20, kwargs={"sleep": 0.1})
    other.insert_jobs(20, kwargs={"sleep": 0.1})
    one.wait_for_states(done=20)
    other.wait_for_states(done=20)
    assert odoo.stats()["peak"]["root"] <= 5
    line = second.wait_for("capacities_differ")
    assert "the smallest holds" in line["reason"]
    assert "root" in cluster_of(second)["differs"]  # type: ignore[operator]


def test_faults_for_forty_seconds(
    member: Member, postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory
) -> None:
    """Three supervisors; brokers and workers killed or stopped, stopped: never over, none lost, none twice."""
    chance = random.Random(17)
    databases = [database() for _ in range(3)]
    running = [member(*databases) for _ in range(3)]
    for each in running:
        each.wait_for("coordinator_joined")
    for database_ in databases:
        database_.insert_jobs(250, kwargs={"sleep": 0.1})
        database_.insert_jobs(40, kwargs={"sleep": 0.05}, channel="root.s")
    pause, deadline, faults = threading.Event(), time.monotonic() + 25, 0
    while time.monotonic() < deadline:
        victim = chance.choice(running)
        with suppress(ProcessLookupError, psutil.Error, IndexError, StopIteration):
            kind = chance.choice(["broker", "broker", "worker", "stop"])
            if kind == "worker":
                os.kill(chance.choice(sorted(victim.pids().values())), signal.SIGKILL)
            elif kind == "broker":
                broker_of(victim).kill()
            else:
                broker = broker_of(victim)
                broker.suspend()
                pause.wait(chance.uniform(0.1, 1))
                broker.resume()
            faults += 1
        pause.wait(chance.uniform(0.1, 0.6))
    assert faults > 20
    for database_ in databases:
        database_.wait_for_states(done=290, timeout_s=120)
    stats = odoo.stats()
    assert stats["peak"]["root"] <= 8
    assert stats["peak"]["root.s"] <= 1
    assert once_each(odoo)


def test_rates_and_throttles_hold_over_both(member: Member, odoo: StandIn, database: DatabaseFactory) -> None:
    """As Odoo sees them, each supervisor with a backlog; one is stopped and the other goes on with what it counted."""
    channels = "root:8,root.rated:6:rate=8/2s,root.slow:2:throttle=1"
    one, other = database(), database()
    first, second = member(one, channels=channels), member(other, channels=channels)
    first.wait_ready(one.name)
    second.wait_ready(other.name)
    for each in (one, other):
        each.insert_jobs(24, channel="root.rated", kwargs={"sleep": 0.01})
        each.insert_jobs(4, channel="root.slow", kwargs={"sleep": 0.01})
    wait_until(lambda: len(starts(odoo, "root.rated")) > 20, "both start some", timeout_s=20)
    first.stop()
    other.wait_for_states(done=28, timeout_s=30)
    first.start()
    one.wait_for_states(done=28, timeout_s=30)
    assert (len(starts(odoo, "root.rated")), len(starts(odoo, "root.slow"))) == (48, 8)
    # Both supervisors by one clock, as they sent them, and as Odoo received those that were not held up on their way.
    for channel, most, gap_s in (("root.rated", 8, 0.0), ("root.slow", 2, 1.0)):
        sent = sent_by([first, second], channel)
        assert sent.keys() == {run["uuid"] for run in odoo.stats()["runs"] if run["channel"] == channel}
        received = {run["uuid"]: run["received_s"] for run in odoo.stats()["runs"] if run["channel"] == channel}
        in_time = [at for uuid, at in received.items() if at - sent[uuid] < LATE_S]
        assert len(in_time) > len(sent) / 2
        for moments, late_s in ((sorted(sent.values()), 0.05), (sorted(in_time), LATE_S)):
            assert max(sum(at <= each < at + 2 - late_s for each in moments) for at in moments) <= most
            assert min(after - before for before, after in itertools.pairwise(moments)) >= gap_s - late_s
    assert once_each(odoo)


def starts(odoo: StandIn, channel: str) -> list[float]:
    return sorted(run["received_s"] for run in odoo.stats()["runs"] if run["channel"] == channel)


def sent_by(members: Sequence[Supervisor], channel: str) -> dict[str, float]:
    """When each job of a channel was sent, by the logs, in monotonic seconds."""
    offset_s = time.time() - time.monotonic()
    found = [each for one in members for each in one.log_events("job_dispatched", channel=channel)]
    utc = {each["job_uuid"]: datetime.fromisoformat(each["timestamp"].replace("Z", "+00:00")) for each in found}
    return {uuid: at.timestamp() - offset_s for uuid, at in utc.items()}


def test_a_coordinator_without_its_schema_ends_nothing(
    member: Member, postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory
) -> None:
    """It is told, what is leased goes on, and with the schema all is well again."""
    one = database()
    running = member(one)
    running.wait_ready(one.name)
    one.insert_jobs(1)
    one.wait_for_states(done=1)
    ledger = running.conf.read_text().partition("cluster_database = ")[2].split()[0]
    mark = running.mark()
    postgres.execute(ledger, "ALTER SCHEMA qjsupervisor RENAME TO elsewhere", superuser=True)
    lost = running.wait_for("coordinator_lost", after=mark)
    assert "run `qjsupervisor cluster init`" in lost["reason"]
    wait_until(lambda: "run `qjsupervisor cluster init`" in running.run("status").stdout, "the status tells it too")
    one.insert_jobs(1)
    one.wait_for_states(done=2)
    mark = running.mark()
    postgres.execute(ledger, "ALTER SCHEMA elsewhere RENAME TO qjsupervisor", superuser=True)
    running.wait_for("coordinator_joined", after=mark)
    assert "cluster test: 1 supervisor; root:" in running.run("status").stdout
    one.insert_jobs(9)
    one.wait_for_states(done=11)
    assert running.log_events("child_failed") == []
