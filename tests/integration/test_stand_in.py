"""The stand-in Odoo behaves as docs/contract.md, sections 3 to 5, says that Odoo does."""

from __future__ import annotations

import base64
import http.client
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from qjsupervisor.testing import jobs, schema
from qjsupervisor.testing.schema import Schema
from qjsupervisor.testing.stand_in import StandIn
from tests.conftest import DatabaseFactory, StandInFactory
from tests.helpers import Database, wait_until

#: What a runner asks to find out whether nobody runs a job.
_FREE_LOCK_ROWS = "SELECT queue_job_id FROM queue_job_lock FOR NO KEY UPDATE SKIP LOCKED"
_LONG_S = 30


@dataclass
class Answer:
    version: str
    status: int
    headers: dict[str, str]
    body: bytes


class Request:
    """One request to run a job, whose answer may be long in coming."""

    def __init__(self, odoo: StandIn, target: str, headers: dict[str, str] | None = None) -> None:
        self._socket = socket.create_connection((odoo.host, odoo.port), timeout=10)
        lines = [f"GET {target} HTTP/1.1", "Host: odoo", *(f"{k}: {v}" for k, v in (headers or {}).items())]
        self._socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")

    def is_silent(self) -> bool:
        """Neither answered nor closed."""
        return not select.select([self._socket], [], [], 0)[0]

    def answer(self) -> Answer | None:
        """Wait for it; None: the connection was closed, or reset, without one."""
        received = b""
        with self._socket:
            try:
                while chunk := self._socket.recv(65536):
                    received += chunk
            except ConnectionResetError:
                return None
        if not received:
            return None
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        version, status, _ = first.split(" ", 2)
        return Answer(version, int(status), dict(line.split(": ", 1) for line in lines), body)

    def status(self) -> int:
        answer = self.answer()
        assert answer is not None, "closed without an answer"
        return answer.status

    def hang_up(self) -> None:
        self._socket.close()


def ask(odoo: StandIn, one: Database | str, uuid: str, headers: dict[str, str] | None = None) -> Request:
    name = one if isinstance(one, str) else one.name
    return Request(odoo, f"/queue_job/runjob?db={quote(name)}&job_uuid={quote(uuid)}", headers)


def enqueued(one: Database, *, channel: str = "root", max_retries: int = 5, **kwargs: object) -> str:
    """A job as the runner leaves it before it asks."""
    (uuid,) = one.insert_jobs(1, channel=channel, kwargs=kwargs, max_retries=max_retries)
    one.execute(
        "UPDATE queue_job SET state = 'enqueued', date_enqueued = now() AT TIME ZONE 'UTC' WHERE uuid = %s",
        (uuid,),
    )
    return uuid


def wait_state(one: Database, uuid: str, state: str) -> None:
    wait_until(lambda: one.state(uuid) == state, lambda: f"{state}; job is {one.state(uuid)}")


def wait_running(one: Database, uuid: str) -> None:
    """Until the job is started and its lock row held."""
    wait_state(one, uuid, "started")
    wait_until(lambda: one.execute(_FREE_LOCK_ROWS) == [], "the lock row is held")


@pytest.fixture
def one(database: DatabaseFactory) -> Database:
    return database()


class TestAnswers:
    """Each row of the table in section 4."""

    def test_job_ok(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one)
        answer = ask(odoo, one, uuid).answer()
        assert answer is not None
        assert (answer.version, answer.status, answer.body) == ("HTTP/1.0", 200, b"")
        assert answer.headers["Connection"] == "close"
        job = one.job(uuid)
        assert job["state"] == "done"
        assert job["exec_time"] >= 0
        assert job["date_started"] <= job["date_done"]
        assert job["exc_name"] is None

    def test_retryable_error(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, retry=1, retry_s=30)
        answer = ask(odoo, one, uuid).answer()
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"")
        job = one.job(uuid)
        assert (job["state"], job["retry"]) == ("pending", 1)
        assert one.execute("SELECT eta > now() AT TIME ZONE 'UTC' + interval '20 s' FROM queue_job") == [(True,)]

    def test_next_try_succeeds(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, retry=1, retry_s=0)
        ask(odoo, one, uuid).answer()
        one.execute("UPDATE queue_job SET state = 'enqueued'")
        assert ask(odoo, one, uuid).status() == 200
        assert one.state(uuid) == "done"

    def test_retries_used_up(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, retry=9, max_retries=1)
        assert ask(odoo, one, uuid).status() == 500
        job = one.job(uuid)
        assert (job["state"], job["retry"]) == ("failed", 1)
        assert job["exc_name"].endswith("FailedJobError")

    def test_no_limit_of_retries(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, retry=9, max_retries=0)
        assert ask(odoo, one, uuid).status() == 200
        assert one.state(uuid) == "pending"

    def test_job_raises(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, fail=True)
        answer = ask(odoo, one, uuid).answer()
        assert answer is not None
        assert answer.status == 500
        assert answer.headers["Content-Type"] == "text/html"
        job = one.job(uuid)
        assert (job["state"], job["exc_name"]) == ("failed", "odoo.exceptions.UserError")

    @pytest.mark.parametrize("state", ["pending", "started", "done", "failed", "cancelled", "wait_dependencies"])
    def test_job_is_not_enqueued(self, odoo: StandIn, one: Database, state: str) -> None:
        (uuid,) = one.insert_jobs(1, state=state)
        before = one.job(uuid)
        answer = ask(odoo, one, uuid).answer()
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"")
        assert one.job(uuid) == before

    def test_unknown_uuid_and_another_databases(self, odoo: StandIn, one: Database, database: DatabaseFactory) -> None:
        other = database()
        uuid = enqueued(other)
        assert ask(odoo, one, uuid).status() == 200
        assert ask(odoo, one, "no such job").status() == 200
        assert other.state(uuid) == "enqueued"

    def test_unknown_database_or_missing_parameter(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one)
        targets = [f"?db=no_such_db&job_uuid={uuid}", f"?job_uuid={uuid}", f"?db={one.name}", ""]
        for target in targets:
            assert Request(odoo, f"/queue_job/runjob{target}").status() == 500
        assert one.state(uuid) == "enqueued"

    def test_queue_job_is_not_installed(self, odoo: StandIn, database: DatabaseFactory) -> None:
        without = database(schema=None)
        assert ask(odoo, without, "any").status() == 404
        schema.install(without.connection)
        assert ask(odoo, without, enqueued(without)).status() == 200

    @pytest.mark.parametrize(
        ("mode", "status"), [("404", 404), ("303", 303), ("500", 500), ("401", 401), ("502", 502), ("not_run", 200)]
    )
    def test_nobody_runs_it(self, odoo: StandIn, one: Database, mode: str, status: int) -> None:
        odoo.set_mode(one.name, mode)
        uuid = enqueued(one)
        assert ask(odoo, one, uuid).status() == status
        assert one.state(uuid) == "enqueued"
        assert odoo.stats()["executions"] == {}

    def test_worker_killed(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, sleep=_LONG_S)
        request = ask(odoo, one, uuid)
        wait_running(one, uuid)
        assert odoo.kill_worker() == uuid
        assert request.answer() is None
        assert one.state(uuid) == "started"
        wait_until(lambda: len(one.execute(_FREE_LOCK_ROWS)) == 1, "the lock row is free")

    def test_all_workers_busy(self, stand_in: StandInFactory, one: Database) -> None:
        odoo = stand_in(workers=1)
        first, second = enqueued(one, sleep=_LONG_S), enqueued(one)
        busy = ask(odoo, one, first)
        wait_running(one, first)
        waiting = ask(odoo, one, second)
        wait_until(lambda: odoo.stats()["waiting"] == 1, "the second request waits")
        assert waiting.is_silent()
        assert one.state(second) == "enqueued"
        odoo.kill_worker()
        assert waiting.status() == 200
        assert busy.answer() is None
        assert one.state(second) == "done"


class TestRunning:
    def test_row_is_locked_while_it_runs_and_answer_comes_at_the_end(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, sleep=0.4)
        request = ask(odoo, one, uuid)
        wait_running(one, uuid)
        assert request.is_silent()
        job = one.job(uuid)
        assert job["worker_pid"] == odoo.pid
        assert one.execute(
            "SELECT abs(extract(epoch FROM now() AT TIME ZONE 'UTC' - date_started)) < 10 FROM queue_job"
        ) == [(True,)]
        assert one.execute("SELECT queue_job_id FROM queue_job_lock") == [(job["id"],)]
        assert request.status() == 200
        assert one.execute(_FREE_LOCK_ROWS) == [(job["id"],)]
        assert one.job(uuid)["exec_time"] >= 0.4

    def test_one_lock_row_however_often_it_is_tried(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, retry=1, retry_s=0)
        ask(odoo, one, uuid).answer()
        one.execute("UPDATE queue_job SET state = 'enqueued'")
        ask(odoo, one, uuid).answer()
        assert one.execute("SELECT count(*) FROM queue_job_lock") == [(1,)]

    def test_client_that_hangs_up_stops_nothing(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, sleep=0.3)
        request = ask(odoo, one, uuid)
        wait_running(one, uuid)
        request.hang_up()
        wait_state(one, uuid, "done")
        assert odoo.stats()["hung_up"] == 1

    def test_asked_twice_runs_once(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, sleep=0.2)
        requests = [ask(odoo, one, uuid) for _ in range(5)]
        assert [request.status() for request in requests] == [200] * 5
        stats = odoo.stats()
        assert stats["requests"] == {one.name: {uuid: 5}}
        assert stats["executions"] == {one.name: {uuid: 1}}

    def test_life_cycle_notifies_four_times(self, odoo: StandIn, one: Database) -> None:
        one.execute("LISTEN queue_job")
        uuid = enqueued(one)
        ask(odoo, one, uuid).answer()
        one.execute("SELECT 1")
        assert [notification.payload for notification in one.connection.notifies] == [uuid] * 4

    def test_dies_as_often_as_told(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, die=1)
        assert ask(odoo, one, uuid).answer() is None
        assert one.state(uuid) == "started"
        one.execute("UPDATE queue_job SET state = 'enqueued', retry = retry + 1")  # as the dead-job rule does
        assert ask(odoo, one, uuid).status() == 200
        assert odoo.stats()["outcomes"] == {one.name: {"died": 1, "done": 1}}

    def test_kwargs_that_make_no_sense_fail_the_job(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, sleep="long")
        assert ask(odoo, one, uuid).status() == 500
        assert one.job(uuid)["exc_name"] == "builtins.TypeError"

    def test_dependent_job_waits_for_all_its_parents(self, odoo: StandIn, one: Database) -> None:
        parents = [enqueued(one), enqueued(one)]
        (child,) = jobs.insert_dependent_jobs(one.connection, 1, parents)
        ask(odoo, one, parents[0]).answer()
        assert one.state(child) == "wait_dependencies"
        ask(odoo, one, parents[1]).answer()
        assert one.state(child) == "pending"

    def test_older_branches(self, odoo: StandIn, database: DatabaseFactory) -> None:
        old = database(schema=Schema(lock_table=False, jsonb=False, dependencies=False, channel_table=False))
        done, failed = enqueued(old), enqueued(old, fail=True)
        assert [ask(odoo, old, uuid).status() for uuid in (done, failed)] == [200, 500]
        assert (old.state(done), old.state(failed)) == ("done", "failed")

    def test_session_that_the_server_ended_is_replaced(self, odoo: StandIn, one: Database) -> None:
        ask(odoo, one, enqueued(one)).answer()
        ended = one.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = current_user"
        )
        assert ended == [(True,)]
        assert ask(odoo, one, enqueued(one)).status() == 200

    def test_forgotten_database_can_be_dropped(self, odoo: StandIn, one: Database) -> None:
        ask(odoo, one, enqueued(one)).answer()
        odoo.forget(one.name)
        one.connection.close()
        one.postgres.execute("postgres", f'DROP DATABASE "{one.name}"')

    def test_restart_leaves_jobs_started_and_keeps_the_port(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one, sleep=_LONG_S)
        request = ask(odoo, one, uuid)
        wait_running(one, uuid)
        port = odoo.port
        odoo.restart()
        assert odoo.port == port
        assert request.answer() is None
        assert one.state(uuid) == "started"
        assert ask(odoo, one, enqueued(one)).status() == 200


class TestModes:
    def test_other_databases_are_not_touched(self, odoo: StandIn, one: Database, database: DatabaseFactory) -> None:
        other = database()
        odoo.set_mode(one.name, "404")
        assert ask(odoo, other, enqueued(other)).status() == 200
        odoo.set_mode("*", "502")
        assert ask(odoo, other, enqueued(other)).status() == 502
        assert ask(odoo, one, enqueued(one)).status() == 404

    def test_mode_can_be_taken_back(self, odoo: StandIn, one: Database) -> None:
        odoo.set_mode(one.name, "404")
        odoo.set_mode(one.name, "ok")
        assert ask(odoo, one, enqueued(one)).status() == 200

    def test_redirect_that_is_followed_is_counted(self, odoo: StandIn, one: Database) -> None:
        odoo.set_mode(one.name, "303")
        answer = ask(odoo, one, enqueued(one)).answer()
        assert answer is not None
        assert answer.headers["Location"] == "/web/database/selector"
        assert odoo.stats()["redirects_followed"] == 0
        assert Request(odoo, answer.headers["Location"]).status() == 200
        assert odoo.stats()["redirects_followed"] == 1

    def test_hang_holds_no_worker(self, stand_in: StandInFactory, one: Database, database: DatabaseFactory) -> None:
        odoo = stand_in(workers=1)
        odoo.set_mode(one.name, "hang")
        request = ask(odoo, one, enqueued(one))
        other = database()
        assert ask(odoo, other, enqueued(other)).status() == 200
        assert request.is_silent()
        request.hang_up()

    def test_unanswered_runs_the_job(self, odoo: StandIn, one: Database) -> None:
        odoo.set_mode(one.name, "unanswered")
        uuid = enqueued(one)
        request = ask(odoo, one, uuid)
        wait_state(one, uuid, "done")
        odoo.set_mode(one.name, "ok")
        assert ask(odoo, one, enqueued(one)).status() == 200, "whatever was to be answered before is"
        assert request.is_silent()
        request.hang_up()

    def test_refuse_closes_the_listening_socket(self, odoo: StandIn, one: Database) -> None:
        odoo.set_mode("*", "refuse")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((odoo.host, odoo.port), timeout=5)
        odoo.set_mode("*", "ok")
        assert ask(odoo, one, enqueued(one)).status() == 200

    def test_refuse_for_one_database_resets(self, odoo: StandIn, one: Database) -> None:
        odoo.set_mode(one.name, "refuse")
        uuid = enqueued(one)
        assert ask(odoo, one, uuid).answer() is None
        assert one.state(uuid) == "enqueued"

    def test_die_leaves_started_and_unlocked(self, odoo: StandIn, one: Database) -> None:
        odoo.set_mode(one.name, "die")
        uuid = enqueued(one)
        assert ask(odoo, one, uuid).answer() is None
        assert one.state(uuid) == "started"
        wait_until(lambda: len(one.execute(_FREE_LOCK_ROWS)) == 1, "the lock row is free")

    def test_gateway_times_out_while_the_job_goes_on(self, odoo: StandIn, one: Database) -> None:
        odoo.set_mode(one.name, "504")
        uuid = enqueued(one, sleep=0.5)
        assert ask(odoo, one, uuid).status() == 504
        assert one.state(uuid) == "started"
        assert one.execute(_FREE_LOCK_ROWS) == []
        wait_state(one, uuid, "done")

    def test_slow(self, odoo: StandIn, one: Database) -> None:
        odoo.set_mode(one.name, "slow", seconds=0.3)
        uuid = enqueued(one)
        assert ask(odoo, one, uuid).status() == 200
        assert one.job(uuid)["exec_time"] >= 0.3

    def test_unknown_mode_is_refused(self, odoo: StandIn) -> None:
        with pytest.raises(ValueError, match="no_such_mode"):
            odoo.set_mode("*", "no_such_mode")


class TestRequests:
    @pytest.mark.parametrize("way", ["query", "header", "both"])
    def test_ways_to_name_the_database(self, odoo: StandIn, one: Database, way: str) -> None:
        query = "" if way == "header" else f"&db={one.name}"
        headers = {} if way == "query" else {"X-Odoo-Database": one.name}
        uuid = enqueued(one)
        request = Request(odoo, f"/queue_job/runjob?job_uuid={uuid}{query}", headers)
        assert request.status() == 200
        assert one.state(uuid) == "done"
        assert odoo.stats()["addressed"] == {way: 1}

    def test_contradiction_runs_nothing(self, odoo: StandIn, one: Database) -> None:
        uuid = enqueued(one)
        assert ask(odoo, one, uuid, {"X-Odoo-Database": "other"}).status() == 500
        assert one.state(uuid) == "enqueued"

    def test_names_are_decoded(self, odoo: StandIn, database: DatabaseFactory) -> None:
        odd = database("prod & böse/+%41")
        uuid = enqueued(odd)
        target = f"/queue_job/runjob?db={quote(odd.name, safe='')}&job_uuid={uuid}"
        header = {"X-Odoo-Database": quote(odd.name, safe="")}
        assert Request(odoo, target, header).status() == 200
        assert odd.state(uuid) == "done"

    def test_credentials_are_asked_for_and_counted(self, stand_in: StandInFactory, one: Database) -> None:
        odoo = stand_in(auth="runner:secret")
        uuid = enqueued(one)
        right = "Basic " + base64.b64encode(b"runner:secret").decode()
        assert ask(odoo, one, uuid).status() == 401
        assert ask(odoo, one, uuid, {"Authorization": "Basic d3Jvbmc6"}).status() == 401
        assert one.state(uuid) == "enqueued"
        assert ask(odoo, one, uuid, {"Authorization": right}).status() == 200
        stats = odoo.stats()
        assert stats["with_credentials"] == 2
        assert stats["authorizations"][right] == 1

    def test_other_paths_are_not_found(self, odoo: StandIn) -> None:
        assert Request(odoo, "/web/login").status() == 404

    def test_nonsense_is_refused(self, odoo: StandIn) -> None:
        with socket.create_connection((odoo.host, odoo.port), timeout=10) as raw:
            raw.sendall(b"\x00\xff\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.0 400")

    def test_http_client_library_understands_it(self, odoo: StandIn, one: Database) -> None:
        with closing(http.client.HTTPConnection(odoo.host, odoo.port, timeout=10)) as connection:
            connection.request("GET", f"/queue_job/runjob?db={one.name}&job_uuid={enqueued(one)}")
            response = connection.getresponse()
            assert (response.status, response.version, response.read()) == (200, 10, b"")


class TestStats:
    def test_peaks_count_ancestors_and_all_databases(
        self, odoo: StandIn, one: Database, database: DatabaseFactory
    ) -> None:
        other = database()
        running = [
            (one, enqueued(one, channel="root.a.b", sleep=_LONG_S)),
            (one, enqueued(one, channel="a", sleep=_LONG_S)),
            (other, enqueued(other, channel="", sleep=_LONG_S)),
        ]
        requests = [ask(odoo, where, uuid) for where, uuid in running]
        wait_until(lambda: odoo.stats()["running"].get("root") == 3, "three jobs run")
        stats = odoo.stats()
        assert stats["peak"] == {"root": 3, "root.a": 2, "root.a.b": 1}
        assert stats["peak_by_database"][one.name] == {"root": 2, "root.a": 2, "root.a.b": 1}
        assert stats["peak_by_database"][other.name] == {"root": 1}
        for _ in running:
            odoo.kill_worker()
        assert [request.answer() for request in requests] == [None] * 3
        assert odoo.stats()["running"] == {}
        assert odoo.stats()["peak"]["root"] == 3

    def test_runs_are_in_the_order_of_their_starts(self, stand_in: StandInFactory, one: Database) -> None:
        odoo = stand_in(workers=1)
        uuids = [enqueued(one, sleep=0.05) for _ in range(3)]
        for uuid in uuids:
            assert ask(odoo, one, uuid).status() == 200
        runs = odoo.stats()["runs"]
        assert [run["uuid"] for run in runs] == uuids
        assert {run["outcome"] for run in runs} == {"done"}
        for run in runs:
            assert run["finished_s"] is not None
            assert run["received_s"] <= run["started_s"] <= run["finished_s"] - 0.05

    def test_reset_forgets_what_is_over(self, odoo: StandIn, one: Database) -> None:
        ask(odoo, one, enqueued(one)).answer()
        odoo.reset()
        stats = odoo.stats()
        assert (stats["requests"], stats["runs"], stats["answers"]) == ({}, [], {})

    def test_many_at_once_are_all_done(self, stand_in: StandInFactory, one: Database) -> None:
        odoo = stand_in(workers=16)
        uuids = one.insert_jobs(300, state="enqueued")
        with ThreadPoolExecutor(16) as threads:
            statuses = list(threads.map(lambda uuid: ask(odoo, one, uuid).status(), uuids))
        assert statuses == [200] * 300
        assert one.states() == {"done": 300}
        stats = odoo.stats()
        assert stats["peak"]["root"] <= 16
        assert stats["outcomes"] == {one.name: {"done": 300}}
