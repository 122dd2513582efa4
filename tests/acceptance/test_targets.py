"""Odoo is away, ill or misconfigured: its jobs wait, each runs when it is back, and nobody else notices."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from qjsupervisor.testing.odoo_http import OdooMode
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import EVERYBODY, StandIn

from ..conftest import DatabaseFactory, StandInFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until
from ..scripted import black_hole, unused_port

SECRET = "s3cret-of-the-proxy"


@pytest.fixture
def observed(database: DatabaseFactory) -> Callable[[], Database]:
    """Makes databases that note what happens to their jobs' rows."""

    def make() -> Database:
        new = database()
        new.execute(
            """
            CREATE TABLE history (uuid varchar, former varchar, state varchar);
            CREATE FUNCTION write_history() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN INSERT INTO history VALUES (NEW.uuid, OLD.state, NEW.state); RETURN NULL; END';
            CREATE TRIGGER history AFTER UPDATE ON queue_job FOR EACH ROW EXECUTE FUNCTION write_history()
            """
        )
        return new

    return make


@pytest.fixture
def one(observed: Callable[[], Database]) -> Database:
    return observed()


def updates(database: Database) -> int:
    """How often a row was written, by anybody."""
    ((number,),) = database.execute("SELECT count(*) FROM history")
    return int(number)


def most_attempts(database: Database) -> int:
    """How often that job was enqueued that was enqueued most often."""
    statement = "SELECT count(*) FROM history WHERE state = 'enqueued' GROUP BY uuid ORDER BY 1 DESC LIMIT 1"
    rows = database.execute(statement)
    return int(rows[0][0]) if rows else 0


def start(
    postgres: ThrowawayPostgres,
    port: int,
    supervisor: SupervisorFactory,
    *databases: Database,
    channels: str = "root:10",
    sections: dict[str, dict[str, object]] | None = None,
) -> Supervisor:
    names = [database.name for database in databases]
    running = supervisor(odoo_conf(postgres, port, db_name=",".join(names), channels=channels, sections=sections))
    running.wait_ready(*names)
    return running


def last_for(seconds: float) -> None:
    """The outage itself."""
    threading.Event().wait(seconds)


def one_line_each(running: Supervisor, database: Database | None, *, reason: str) -> None:
    """One when it went down, with what to do; one when it was back. Without a database: for all of them."""

    def lines(event: str) -> list[dict[str, Any]]:
        found = running.log_events(event)
        if database is None:
            return [each for each in found if not {"database", "names"} & each.keys()]
        # Equal lines of two databases at one moment are one, with the names of both.
        return [each for each in found if database.name in (each.get("database"), *each.get("names", ()))]

    (down,) = lines("target_down")
    assert reason in down["reason"], down
    assert down["level"] == "error"
    wait_until(lambda: lines("target_recovered"), "its line is written")  # a moment later: see master/database_log.py
    (back,) = lines("target_recovered")
    assert back["url"] == down["url"]


def test_refused_for_a_while(
    postgres: ThrowawayPostgres, odoo: StandIn, one: Database, supervisor: SupervisorFactory
) -> None:
    running = start(postgres, odoo.port, supervisor, one)
    one.insert_jobs(3)
    one.wait_for_states(done=3)
    odoo.set_mode(EVERYBODY, OdooMode.REFUSE)
    before = updates(one)
    uuids = one.insert_jobs(100)
    down = wait_until(lambda: [t for t in [running.status()["target"]] if t["state"] == "down"], "the target is down")
    assert "refused" in down[0]["reason"]
    last_for(13)
    assert updates(one) - before <= 120
    assert most_attempts(one) <= 3
    assert one.states() == {"done": 3, "pending": 100}
    odoo.set_mode(EVERYBODY, OdooMode.OK)
    one.wait_for_states(done=103, timeout_s=40)
    assert odoo.stats()["executions"][one.name].items() >= dict.fromkeys(uuids, 1).items()
    wait_until(lambda: running.status()["target"]["state"] == "up", "the target is up")
    one_line_each(running, None, reason="Connection refused")


def test_misconfigured_for_a_while(
    postgres: ThrowawayPostgres,
    odoo: StandIn,
    observed: Callable[[], Database],
    database: DatabaseFactory,
    supervisor: SupervisorFactory,
) -> None:
    """For two databases; another one's jobs go on as if nothing was."""
    redirected, missing, other = observed(), observed(), database()
    running = start(
        postgres, odoo.port, supervisor, redirected, missing, other, channels="root:20,root.other:2,root.ill:10"
    )
    ill = ((redirected, OdooMode.REDIRECT, "dbfilter"), (missing, OdooMode.NOT_FOUND, "server_wide_modules"))
    for one, mode, _ in ill:
        odoo.set_mode(one.name, mode)
        one.insert_jobs(50, channel="root.ill")
    for one, _, _ in ill:
        running.wait_for("target_down", database=one.name)
    began_s = time.monotonic()
    while time.monotonic() - began_s < 6:
        number = other.states().get("done", 0)
        other.insert_jobs(2, channel="root.other")
        other.wait_for_states(done=number + 2, timeout_s=5)
    stats = odoo.stats()
    assert stats["redirects_followed"] == 0
    for one, _, _ in ill:
        assert sum(stats["requests"][one.name].values()) <= 15
        assert most_attempts(one) <= 4
        odoo.set_mode(one.name, OdooMode.OK)
    for one, _, reason in ill:
        one.wait_for_states(done=50, timeout_s=40)
        assert set(odoo.stats()["executions"][one.name].values()) == {1}
        one_line_each(running, one, reason=reason)
    assert running.log_events("target_down", database=other.name) == []


ILL = {
    OdooMode.UNAUTHORIZED: "http_auth_user",
    OdooMode.ERROR: "HTTP 500",
    OdooMode.BAD_GATEWAY: "HTTP 502",
    OdooMode.NOT_RUN: "no job was run",
    OdooMode.REFUSE: "without an answer",
    OdooMode.HANG: "no answer for",
}


def test_ill_for_a_moment(
    postgres: ThrowawayPostgres,
    odoo: StandIn,
    database: DatabaseFactory,
    supervisor: SupervisorFactory,
) -> None:
    """Each database in another way, and one that is well."""
    other = database()
    ill = {mode: database() for mode in ILL}
    own: dict[str, dict[str, object]] = {"qjsupervisor": {"read_timeout": 1}}
    running = start(postgres, odoo.port, supervisor, other, *ill.values(), channels="root:40", sections=own)
    for mode, one in ill.items():
        odoo.set_mode(one.name, mode)
        one.insert_jobs(5)
    for mode, one in ill.items():
        down = running.wait_for("target_down", database=one.name)
        assert ILL[mode] in down["reason"]
        wait_until(lambda one=one: one.states() == {"pending": 5}, f"all are given back: {mode}")
    other.insert_jobs(5)
    other.wait_for_states(done=5)
    for one in ill.values():
        odoo.set_mode(one.name, OdooMode.OK)
    for one in ill.values():
        one.wait_for_states(done=5, timeout_s=20)
        assert set(odoo.stats()["executions"][one.name].values()) == {1}
    assert {entry["state"] for entry in running.status()["databases"]} == {"ready"}
    assert running.log_events("target_down", database=other.name) == []


def test_a_proxy_that_gives_up(
    postgres: ThrowawayPostgres, odoo: StandIn, one: Database, supervisor: SupervisorFactory
) -> None:
    """504 while the job goes on: it is left alone, holds its permit, and is no fault of the target."""
    running = start(postgres, odoo.port, supervisor, one, channels="root:1")
    odoo.set_mode(one.name, OdooMode.GATEWAY_TIMEOUT)
    first, second = one.insert_jobs(2, kwargs={"sleep": 3})
    running.wait_for("job_unanswered", job_uuid=first, status=504)
    odoo.set_mode(one.name, OdooMode.OK)
    assert one.state(second) == "pending"
    one.wait_for_states(done=2)
    stats = odoo.stats()
    assert stats["requests"][one.name] == {first: 1, second: 1}
    assert stats["peak"]["root"] == 1
    assert running.log_events("target_down") == []


def test_an_odoo_that_never_answers_though_jobs_are_over_is_named(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """By its address in status, health and a metric, until it answers anybody."""
    one, other, port = database(), database(), unused_port()
    own: dict[str, dict[str, object]] = {"qjsupervisor": {"monitor": f"127.0.0.1:{port}"}}
    running = start(postgres, odoo.port, supervisor, one, other, channels="root:2", sections=own)
    running.wait_for("monitor_started")
    odoo.set_mode(one.name, OdooMode.HANG)
    one.insert_jobs(2)
    one.wait_for_states(enqueued=2)
    one.execute("UPDATE queue_job SET state = 'done'")  # Odoo's worker hangs after its commit
    url = f"http://127.0.0.1:{odoo.port}"

    def page(path: str) -> tuple[int, str]:
        answer = requests.get(f"http://127.0.0.1:{port}{path}", timeout=5)
        return answer.status_code, answer.text

    wait_until(
        lambda: f"Odoo at {url} does not answer: 2 jobs were over" in page("/healthz")[1],
        lambda: page("/healthz")[1],
        20,
    )
    assert page("/healthz")[0] == 200
    assert f'qjsupervisor_target_unanswered{{url="{url}"}} 2.0' in page("/metrics")[1]
    assert f"Odoo at {url} does not" in " ".join(running.run("status").stdout.split())
    odoo.set_mode(one.name, OdooMode.OK)
    other.insert_jobs(1)
    other.wait_for_states(done=1)
    wait_until(lambda: page("/healthz") == (200, "ok\n"), lambda: page("/healthz")[1])


def test_one_job_that_nobody_runs(
    postgres: ThrowawayPostgres, odoo: StandIn, one: Database, supervisor: SupervisorFactory
) -> None:
    """It is tried now and then, and no other job waits for it: the target is well."""
    one.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RETURN CASE WHEN NEW.priority <> 1 OR NEW.state <> ''started'' THEN NEW END; END';
        CREATE TRIGGER refuse BEFORE UPDATE ON queue_job FOR EACH ROW EXECUTE FUNCTION refuse()
        """
    )
    running = start(postgres, odoo.port, supervisor, one, channels="root:1")
    one.insert_jobs(1)
    one.wait_for_states(done=1)
    (never,) = one.insert_jobs(1, priority=1)
    running.wait_for("job_not_run", job_uuid=never)
    began_s, number = time.monotonic(), 1
    while time.monotonic() - began_s < 4:
        one.insert_jobs(1)
        number += 1
        wait_until(lambda wanted=number: one.states().get("done") == wanted, "another job is run", 5)
    assert 2 <= odoo.stats()["requests"][one.name][never] <= 4
    assert running.log_events("target_down") == []


def test_a_probe_whose_job_is_taken_away(
    postgres: ThrowawayPostgres, odoo: StandIn, observed: Callable[[], Database], supervisor: SupervisorFactory
) -> None:
    """Its end tells nothing of the target, which must not be waited for ever."""
    ends = {"DELETE FROM queue_job": observed(), "UPDATE queue_job SET state = 'cancelled'": observed()}
    own: dict[str, dict[str, object]] = {"qjsupervisor": {"read_timeout": 3}}
    running = start(postgres, odoo.port, supervisor, *ends.values(), sections=own)
    for statement, one in ends.items():
        odoo.set_mode(one.name, OdooMode.NOT_FOUND)
        one.insert_jobs(2)
        running.wait_for("target_down", database=one.name)
        odoo.set_mode(one.name, OdooMode.HANG)
        mark = running.mark()
        probe = running.wait_for("job_dispatched", after=mark, database=one.name)["job_uuid"]
        one.execute(f"{statement} WHERE uuid = %s", (probe,))
        running.wait_for("job_finished", job_uuid=probe)
        odoo.set_mode(one.name, OdooMode.OK)
        wait_until(lambda one=one: one.states().get("done") == 1, "the other job is run", 20)


@pytest.fixture
def dead_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Where nobody listens, or nobody accepts."""
    if request.param == "refused":
        yield unused_port()
    else:
        with black_hole() as port:
            yield port


@pytest.mark.parametrize("dead_port", ["refused", "black hole"], indirect=True)
def test_one_host_of_two_is_dead(
    dead_port: int,
    postgres: ThrowawayPostgres,
    odoo: StandIn,
    one: Database,
    supervisor: SupervisorFactory,
) -> None:
    own: dict[str, dict[str, object]] = {
        "queue_job": {"host": f"127.0.0.1:{dead_port}, 127.0.0.1"},
        "qjsupervisor": {"connect_timeout": 1},
    }
    running = start(postgres, odoo.port, supervisor, one, sections=own)
    uuids = one.insert_jobs(40)
    one.wait_for_states(done=40, timeout_s=20)
    assert odoo.stats()["executions"][one.name] == dict.fromkeys(uuids, 1)
    running.wait_for("target_down")
    (down,) = running.log_events("target_down")
    assert down["url"].endswith(f":{dead_port}")
    before = updates(one)
    last_for(2)
    assert updates(one) == before, "a job was used to look whether the dead host is back"


def test_each_database_has_its_own(
    postgres: ThrowawayPostgres,
    stand_in: StandInFactory,
    database: DatabaseFactory,
    supervisor: SupervisorFactory,
) -> None:
    """With credentials for one of them, which nobody else is told and no log or status shows."""
    public, guarded = stand_in(), stand_in(auth=f"runner:{SECRET}")
    one, other = database(), database("prod_guarded")
    own: dict[str, dict[str, object]] = {
        "qjsupervisor": {
            "targets": f"prod_*:http://runner:{SECRET}@127.0.0.1:{guarded.port}, *:{public.url}",
            "log_level": "debug",
        }
    }
    running = start(postgres, public.port, supervisor, one, other, sections=own)
    for each in (one, other):
        each.insert_jobs(5)
        each.wait_for_states(done=5)
    assert set(public.stats()["executions"]) == {one.name}
    assert set(guarded.stats()["executions"]) == {other.name}
    assert (public.stats()["with_credentials"], guarded.stats()["with_credentials"]) == (0, 5)
    guarded.stop()
    other.insert_jobs(2)
    running.wait_for("target_down", url=guarded.url)
    shown: list[Any] = [running.log_text(), running.run("status").stdout, running.run("status", "--json").stdout]
    shown += [running.run("check").stdout, *running.titles().values()]
    assert not any(SECRET in text for text in shown)


def test_names_as_odoo_18_and_19_read_them(
    postgres: ThrowawayPostgres, stand_in: StandInFactory, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """19 takes the header as it is; what no header can carry is run up to 18, and refused by 19 with the reason."""
    former, latest = stand_in(series=18), stand_in(series=19)
    own: dict[str, dict[str, object]] = {"qjsupervisor": {"targets": f"o*:{former.url}, *:{latest.url}"}}
    run = [database("o böse+%41&c"), database("o база"), database("n böse+%41&c")]
    refused = database("n база")
    running = start(postgres, former.port, supervisor, *run, refused, sections=own)
    for each in (*run, refused):
        each.insert_jobs(2)
    for each in run:
        each.wait_for_states(done=2)
    down = running.wait_for("target_down", database=refused.name)
    assert "its name: it has characters outside Latin-1; rename the database" in down["reason"]
    assert sum(latest.stats()["executions"][run[2].name].values()) == 2


def test_the_health_of_each_of_several(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """The second one refuses: nobody says so of the first, which runs the jobs."""
    one = database()
    well, ill = f"http://127.0.0.1:{odoo.port}", f"http://127.0.0.1:{unused_port()}"
    own = {"targets": f"*:{well},*:{ill}", "monitor": (monitor := f"127.0.0.1:{unused_port()}")}
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections={"qjsupervisor": own}))
    running.wait_ready(one.name)
    running.wait_for("monitor_started")

    def states() -> dict[str, str]:
        return {each["url"]: each["state"] for each in running.status()["targets"]}

    def both_known() -> bool:
        one.insert_jobs(2)
        return "unknown" not in states().values()

    wait_until(both_known, "both were asked")
    wait_until(lambda: set(one.states()) == {"done"}, "all is done")
    assert states() == {well: "up", ill: "down"}
    shown = running.database_status(one.name)
    assert shown is not None
    assert (shown["target"]["url"], shown["target"]["reason"]) == (ill, "Connection refused")
    health = f"ok\nwarning: Odoo at {ill} is down: Connection refused; its databases have another one\n"

    def shown_health() -> str:
        return requests.get(f"http://{monitor}/healthz", timeout=5).text

    wait_until(lambda: shown_health() == health, shown_health)
    metrics = requests.get(f"http://{monitor}/metrics", timeout=5).text
    assert f'qjsupervisor_target_up{{url="{well}"}} 1' in metrics
    assert f'qjsupervisor_target_up{{url="{ill}"}} 0' in metrics


def test_the_page_for_alerts_names_an_odoo_that_is_down(
    postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    port, monitor = unused_port(), f"127.0.0.1:{unused_port()}"
    running = supervisor(odoo_conf(postgres, port, db_name=one.name, sections={"qjsupervisor": {"monitor": monitor}}))
    running.wait_ready(one.name)
    running.wait_for("monitor_started")
    one.insert_jobs(5)
    running.wait_for("target_down")
    wait_until(lambda: running.status()["target"]["state"] == "down", "status knows")
    # The monitor asked the master when it started, and uses an answer for half a second.
    wait_until(lambda: not requests.get(f"http://{monitor}/healthz", timeout=5).ok, "the monitor knows")
    answer = requests.get(f"http://{monitor}/healthz", timeout=5)
    assert (answer.status_code, answer.text) == (503, f"Odoo at http://127.0.0.1:{port} is down: Connection refused\n")


def test_an_outage_is_one_for_all_databases(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Two log lines, and all run again within five seconds of its return; the prober dies in the middle of it.

    One more database is refused by dbfilter: that is its own business, before and after.
    """
    many, refused = [database() for _ in range(14)], database()
    running = start(postgres, odoo.port, supervisor, *many, refused, channels="root:12")
    odoo.set_mode(refused.name, OdooMode.REDIRECT)
    for one in (*many, refused):
        one.insert_jobs(1)
    for one in many:
        one.wait_for_states(done=1)
    own = running.wait_for("target_down", database=refused.name)
    assert "dbfilter" in own["reason"]
    assert running.status()["target"]["state"] == "up"
    mark = running.mark()

    odoo.set_mode(EVERYBODY, OdooMode.REFUSE)
    odoo.set_mode(refused.name, OdooMode.OK)
    for one in many:
        one.insert_jobs(2)
    running.wait_for("target_down", after=mark)
    last_for(1)
    target = running.status()["target"]
    assert (target["state"], target["reason"], target["refuses"]) == ("down", "Connection refused", [])
    assert all(view["target"]["reason"] == "Connection refused" for view in running.status()["databases"])
    for view in running.status()["databases"][:10]:
        os.kill(view["pid"], signal.SIGKILL)
    running.wait_ready(*(one.name for one in many), timeout_s=30)
    last_for(4)

    odoo.set_mode(EVERYBODY, OdooMode.OK)
    back_s = time.monotonic()
    running.wait_for("target_recovered", after=mark)
    for one in many:
        wait_until(lambda one=one: one.states().get("done", 0) >= 2, "it runs again", 20)
    resumed_s = time.monotonic() - back_s
    for one in many:
        one.wait_for_states(done=3)
    events = [each for each in running.log_events("target_down") if "database" not in each]
    assert [(each["reason"], each["level"]) for each in events] == [("Connection refused", "error")]
    assert len([each for each in running.log_events("target_recovered") if "database" not in each]) == 1
    assert resumed_s < 5, f"{len(many)} databases took {resumed_s:.1f} s"


def test_a_single_job_is_run_soon_after_its_database_is_served_again(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """Refused for so long that the next try of a job is far away: it took 31 to 52 s. No row is changed meanwhile."""
    ill = {database(): mode for mode in (OdooMode.NOT_FOUND, OdooMode.REDIRECT, OdooMode.ERROR)}
    running = start(postgres, odoo.port, supervisor, *ill)
    for one, mode in ill.items():
        odoo.set_mode(one.name, mode)
        one.insert_jobs(1)

    def tries(one: Database) -> int:
        return len(running.log_events("job_not_run", database=one.name))

    for one in ill:  # after 1, 2, 4 s
        wait_until(lambda one=one: tries(one) == 4, "tried four times", 20)
    for one in ill:
        odoo.set_mode(one.name, OdooMode.OK)
    for one in ill:
        one.wait_for_states(done=1, timeout_s=5)
        assert tries(one) == 4
