"""Rates of channels, as the jobs that reach Odoo show them: no window over the limit, a busy channel gets all of it."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.schema import set_channel
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Supervisor, odoo_conf, wait_until

STARTS, PERIOD_S = 30, 2.0
#: On a busy machine one request is on its way for so much longer than another; what we count is that we ask.
SEEN_LATER_S = 0.3


def moments(odoo: StandIn, channel: str) -> list[float]:
    return sorted(run["received_s"] for run in odoo.stats()["runs"] if run["channel"] == channel)


def most_within(received_s: list[float], period_s: float) -> int:
    """Of all windows, the most that lie in one."""
    return max((sum(first <= each < first + period_s for each in received_s) for first in received_s), default=0)


def assert_within_rate(received_s: list[float], starts: int = STARTS, period_s: float = PERIOD_S) -> None:
    assert most_within(received_s, period_s - SEEN_LATER_S) <= starts


def kill_worker(running: Supervisor, name: str) -> None:
    pid = running.pids()[name]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: running.pids().get(name) not in (None, pid), f"a new worker for {name}")


def test_no_window_is_over(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Over two databases, three workers being killed, and a restart in the middle of a window, jobs being retried.

    Of a job that is to be retried no row tells that it was started: the state file does.
    """
    one, other = database(), database()
    conf = odoo_conf(
        postgres,
        odoo.port,
        db_name=f"{one.name},{other.name}",
        channels=f"root:40,root.mail:30:rate={STARTS}/{PERIOD_S:g}s,root.free:4",
    )
    running = supervisor(conf)
    running.wait_ready(one.name, other.name)
    for each in (one, other):
        each.insert_jobs(300, channel="root.mail", kwargs={"retry": 600})
    for name in (one.name, other.name, one.name):
        began = len(moments(odoo, "root.mail"))
        wait_until(lambda began=began: len(moments(odoo, "root.mail")) > began + STARTS // 2, "starts")
        kill_worker(running, name)
    before = len(moments(odoo, "root.mail"))
    wait_until(lambda: len(moments(odoo, "root.mail")) > before + STARTS, "starts")

    def rate() -> dict[str, Any]:
        (mail,) = [channel for channel in running.status()["channels"] if channel["name"] == "root.mail"]
        return dict(mail["rate"])

    assert (rate()["starts"], rate()["period_s"]) == (STARTS, PERIOD_S)
    wait_until(lambda: rate()["used"] > STARTS // 2, lambda: f"the window fills: {rate()}")
    free = one.insert_jobs(1, channel="root.free")
    began_s = time.monotonic()
    wait_until(lambda: one.state(free[0]) == "done", "a job of another channel")
    assert time.monotonic() - began_s < PERIOD_S / 2
    answer = json.loads(running.run("jobs", one.name, "--state", "pending", "--json").stdout)
    reasons = {reason["code"] for job in answer["jobs"] for reason in job["reasons"]}
    assert "rate" in reasons, answer["jobs"][:2]
    running.stop()
    stopped = len(moments(odoo, "root.mail"))
    running.start()  # the same one, which has its state file
    running.wait_ready(one.name, other.name)
    wait_until(lambda: len(moments(odoo, "root.mail")) > stopped + 2 * STARTS, "starts after the restart")
    assert_within_rate(moments(odoo, "root.mail"))


def test_a_busy_channel_gets_all_of_its_rate(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    # Each window comes later by a hundredth, by design, and by a wakeup, of which a short window is no measure.
    starts, period_s = 75, 5.0
    names = [database(), database(), database()]
    conf = odoo_conf(
        postgres,
        odoo.port,
        db_name=",".join(each.name for each in names),
        channels=f"root:40,root.mail:30:rate={starts}/{period_s:g}s",
    )
    supervisor(conf).wait_ready(*(each.name for each in names))
    for each in names:
        each.insert_jobs(80, channel="root.mail")
    wait_until(lambda: len(moments(odoo, "root.mail")) > 2 * starts, "two windows")
    received_s = moments(odoo, "root.mail")
    windows = (received_s[2 * starts] - received_s[0]) / period_s
    assert 2 / windows >= 0.98
    assert_within_rate(received_s, starts, period_s)


def test_channels_that_are_set_up_in_the_database(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """By channel_options; a reload changes them in place and the window goes on, and so it does in the next life."""
    one = database()
    set_channel(one.connection, "root.mail", capacity=9)

    def conf(rate: str) -> str:
        sections: dict[str, dict[str, object]] = {
            "queue_job": {"channels": None, "max_capacity": 20},
            "qjsupervisor": {"channel_options": f"root.mail:rate={rate}"},
        }
        return odoo_conf(postgres, odoo.port, db_name=one.name, sections=sections)

    running = supervisor(conf("5/1h"))
    running.wait_ready(one.name)
    one.insert_jobs(30, channel="root.mail")
    wait_until(lambda: len(moments(odoo, "root.mail")) == 5, "five starts")
    answer = json.loads(running.run("jobs", one.name, "--state", "pending", "--json").stdout)
    assert answer["jobs"][0]["why"].startswith("rate of root.mail: 5 of 5 in this hour, next in 59 min"), answer["jobs"]
    pids = running.pids()
    running.write_conf(conf("8/1h"))
    assert running.run("reload").returncode == 0
    wait_until(lambda: len(moments(odoo, "root.mail")) == 8, "three more")
    assert running.pids() == pids
    kill_worker(running, one.name)
    one.insert_jobs(1, channel="root.other")
    wait_until(lambda: moments(odoo, "root.other"), "a job of another channel")
    assert len(moments(odoo, "root.mail")) == 8
