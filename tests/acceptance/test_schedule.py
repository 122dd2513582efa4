"""Schedules with real boundaries, a few seconds away: in the shared table, and in a database's own channels."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from qjsupervisor.testing import schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until

#: Its wall is nobody else's here.
ZONE = "Asia/Kathmandu"
#: From a boundary to a job that was waiting for it, on a machine that does much else.
LATE_S = 2.0


def wall(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, ZoneInfo(ZONE)).strftime("%H:%M:%S")


def between(start_s: float, end_s: float, what: str = "root.heavy: closed") -> dict[str, object]:
    return {"schedule": f"{what} daily {wall(start_s)}-{wall(end_s)}", "timezone": ZONE}


class Scheduled:
    """A supervisor of one database, whose schedule a test replaces."""

    def __init__(
        self, postgres: ThrowawayPostgres, odoo: StandIn, one: Database, supervisor: SupervisorFactory, **queue_job: Any
    ) -> None:
        self._conf = (postgres, odoo.port, one.name, queue_job)
        self.running: Supervisor = supervisor(self._text({}))
        self.running.wait_ready(one.name)

    def reload(self, options: dict[str, object]) -> float:
        """Put it in force; when that was done."""
        self.running.write_conf(self._text(options))
        done = self.running.run("reload")
        assert done.returncode == 0, done.stderr
        return time.time()

    def _text(self, options: dict[str, object]) -> str:
        postgres, port, name, queue_job = self._conf
        sections = {"qjsupervisor": options, "queue_job": queue_job}
        return odoo_conf(postgres, port, db_name=name, channels=None, sections=sections)


def reasons(running: Supervisor, one: Database) -> list[tuple[str, str]]:
    done = running.run("jobs", one.name, "--state", "pending", "--json")
    return [(each["code"], each["text"]) for job in json.loads(done.stdout)["jobs"] for each in job["reasons"]]


def starts_at(one: Database, uuid: str) -> float:
    wait_until(lambda: one.state(uuid) != "pending", "it starts", 20)
    return time.time()


def test_a_channel_closes_and_opens_at_its_time_over_a_restart_in_the_middle(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    scheduled = Scheduled(postgres, odoo, one, supervisor, channels="root:4,root.heavy:2")
    running = scheduled.running
    (long,) = one.insert_jobs(1, channel="root.heavy", kwargs={"sleep": 6})
    wait_until(lambda: one.state(long) == "started", "it is open yet")
    closes_s = float(int(time.time()) + 4)
    from_s = max(closes_s, scheduled.reload(between(closes_s, closes_s + 3600)))
    wait_until(lambda: running.log_events("schedule_changed", channel="root.heavy", limit=0), "it closes")
    assert closes_s <= time.time() < from_s + LATE_S
    (waits,) = one.insert_jobs(1, channel="root.heavy")
    (other,) = one.insert_jobs(1)
    wait_until(lambda: one.state(other) == "done", "others run")
    until = f"closed until {wall(closes_s + 3600)}"
    assert [text for code, text in reasons(running, one) if code == "closed"] == [
        f"channel root.heavy is {until}, by schedule"
    ]
    wait_until(lambda: one.state(long) == "done", "what runs ends as usual", 20)
    running.kill()
    running.start()
    running.wait_ready(one.name)
    assert one.state(waits) == "pending"
    (heavy,) = [each for each in running.status()["channels"] if each["name"] == "root.heavy"]
    assert (heavy["closed"], heavy["paused"], heavy["schedule"]) == (True, False, until)
    check = " ".join(running.run("check").stdout.split())
    assert f"schedule in {ZONE}: now root.heavy {until}; then" in check
    opens_s = float(int(time.time()) + 4)
    from_s = max(opens_s, scheduled.reload(between(closes_s, opens_s)))
    assert opens_s <= starts_at(one, waits) < from_s + LATE_S


def test_channels_of_the_database_itself_and_the_root_of_all(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    schema.set_channel(one.connection, "root.heavy", capacity=2)
    scheduled = Scheduled(postgres, odoo, one, supervisor, max_capacity=6)
    now_s = float(int(time.time()))
    scheduled.reload(between(now_s - 60, now_s + 3600))
    (waits,) = one.insert_jobs(1, channel="root.heavy")
    (unknown,) = one.insert_jobs(1, channel="root.heavy.deep")
    (other,) = one.insert_jobs(1)
    wait_until(lambda: one.state(other) == "done", "others run")
    assert {one.state(waits), one.state(unknown)} == {"pending"}
    assert {code for code, _text in reasons(scheduled.running, one)} == {"closed"}
    opens_s = float(int(time.time()) + 4)
    from_s = max(opens_s, scheduled.reload(between(now_s - 60, opens_s)))
    assert opens_s <= starts_at(one, waits) < from_s + LATE_S
    scheduled.reload(between(now_s - 60, now_s + 3600, "root.heavy: 1"))
    one.insert_jobs(4, channel="root.heavy", kwargs={"sleep": 0.3})
    one.wait_for_states(done=7)
    scheduled.reload(between(now_s - 60, now_s + 3600, "root: 2"))
    one.insert_jobs(6, kwargs={"sleep": 0.3})
    one.wait_for_states(done=13)
    stats = odoo.stats()
    assert stats["peak_by_database"][one.name]["root.heavy"] == 1
    assert stats["peak"]["root"] <= 2
