"""What the monitor answers to each request; the server and its clients: tests/integration/test_monitor.py."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import pytest

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.errors import DatabaseUnavailable
from qjsupervisor.loop import Loop
from qjsupervisor.monitor.answers import Answers
from qjsupervisor.monitor.http import ClientRequest, Response
from qjsupervisor.monitor.master_link import DEAD_S, MasterLink, Said
from qjsupervisor.monitor.observer import Observer
from qjsupervisor.states import Fairness
from qjsupervisor.table.semaphore import SemaphoreTable
from tests.monitor_status import status


class Master(MasterLink):
    """Says what a test says."""

    def __init__(self) -> None:
        self.now = Said(status(2, troubled=False), 0.0, 1)

    def said(self) -> Said:
        return self.now

    def get(self, take: Callable[[Said], None]) -> None:
        take(self.now)

    def close(self) -> None:
        pass


class Port:
    """Reads no database."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.error: DatabaseUnavailable | None = None

    def list_jobs(self, _config: Config, database: str, _status: Mapping[str, Any]) -> Mapping[str, Any]:
        self.read.append(database)
        if self.error is not None:
            raise self.error
        return {"waiting": [], "failed": [], "error": ""}

    def requeue(self, _config: Config, _database: str, uuids: Sequence[str] | None) -> tuple[int, int]:
        return len(uuids or ()), 0


class Rig:
    """Answers to requests, without a server."""

    def __init__(self, loop: Loop, **options: str) -> None:
        self.loop, self.master, self.port = loop, Master(), Port()
        config = load({"config": "/dev/null", **options}, {"HOME": "/nowhere"})
        table = SemaphoreTable([ChannelSpec(name="root", capacity=1)], slots=1, fairness=Fairness.ROUND_ROBIN)
        self.answers = Answers(loop, config, self.master, Observer(loop, table), self.port)

    def ask(self, path: str, method: str = "GET", **headers: str) -> Response:
        replies: list[Response] = []

        def reply(response: Response) -> None:
            replies.append(response)

        self.answers.handle(ClientRequest(method, path, "", headers), reply)
        deadline_s = time.monotonic() + 10
        while not replies:
            assert time.monotonic() < deadline_s
            self.loop.turn(0.1)
        (response,) = replies
        return response


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Loop() as loop:
        made = Rig(loop, monitor_token="geheim")
        yield made
        made.answers.close()


def test_a_master_that_is_well(rig: Rig) -> None:
    assert rig.ask("/healthz").body == b"ok\n"
    assert rig.ask("/livez").body == b"ok\n"
    assert rig.ask("/readyz").body == b"ok\n"
    found = rig.ask("/status")
    assert (found.content_type, json.loads(found.body)) == ("application/json", rig.master.now.status)
    assert b"qjsupervisor_" in rig.ask("/metrics").body
    assert b"customer-001" in rig.ask("/").body


@pytest.mark.parametrize("said", [Said(None, 0.0, 0), Said(status(2), DEAD_S + 1, 1)])
def test_a_master_that_says_nothing_is_told_to_programs(rig: Rig, said: Said) -> None:
    rig.master.now = said
    for path in ("/healthz", "/livez", "/readyz", "/status"):
        response = rig.ask(path)
        assert response.status is HTTPStatus.SERVICE_UNAVAILABLE
        assert b"the master" in response.body
    assert rig.ask("/metrics").status is HTTPStatus.OK
    assert rig.ask("/").status is HTTPStatus.OK, "people are told on the page"


def test_health_is_a_line_for_each_thing(rig: Rig) -> None:
    rig.master.now = Said(status(16), 0.0, 1)
    response = rig.ask("/healthz")
    assert response.status is HTTPStatus.SERVICE_UNAVAILABLE
    lines = response.body.decode().splitlines()
    assert len(lines) > 1
    warnings = [line.startswith("warning: ") for line in lines]
    assert warnings == sorted(warnings), "what is wrong comes first"


@pytest.mark.parametrize(("key", "value", "said"), [("stopping", True, b"stopping"), ("gate_open", False, b"starting")])
def test_readiness(rig: Rig, key: str, value: bool, said: bytes) -> None:
    assert rig.master.now.status is not None
    rig.master.now = Said({**rig.master.now.status, key: value}, 0.0, 2)
    response = rig.ask("/readyz")
    assert (response.status, response.body.startswith(said)) == (HTTPStatus.SERVICE_UNAVAILABLE, True)
    assert rig.ask("/livez").status is HTTPStatus.OK


def test_what_is_made_of_one_status_is_kept_until_the_next(rig: Rig) -> None:
    first = rig.ask("/status")
    assert rig.ask("/status") is first
    rig.master.now = rig.master.now._replace(number=2)
    second = rig.ask("/status")
    assert second is not first
    rig.master.now = rig.master.now._replace(age_s=5.0)
    old = rig.ask("/status")
    assert old is not second
    assert dict(old.headers)["Age"] == "5", "what is old says so"


def test_who_is_logged_in_has_a_page_of_his_own(rig: Rig) -> None:
    assert rig.ask("/") is rig.ask("/")
    assert rig.ask("/login").status is HTTPStatus.OK


@pytest.mark.parametrize(
    ("path", "method", "code"),
    [
        ("/nowhere", "GET", HTTPStatus.NOT_FOUND),
        ("/status", "POST", HTTPStatus.METHOD_NOT_ALLOWED),
        ("/pause", "GET", HTTPStatus.METHOD_NOT_ALLOWED),
        ("/pause", "POST", HTTPStatus.FORBIDDEN),
        ("/database/nowhere", "GET", HTTPStatus.NOT_FOUND),
        ("/page.js", "GET", HTTPStatus.OK),
        ("/icon.svg", "GET", HTTPStatus.OK),
    ],
)
def test_paths(rig: Rig, path: str, method: str, code: HTTPStatus) -> None:
    assert rig.ask(path, method, **{"content-type": "application/x-www-form-urlencoded"}).status is code


def test_without_a_secret_there_is_no_login() -> None:
    with Loop() as loop:
        plain = Rig(loop)
        assert plain.ask("/login").status is not HTTPStatus.OK
        plain.answers.close()


def test_a_database_is_read_once_for_all_who_look_at_it(rig: Rig) -> None:
    for _ in range(3):
        assert b"customer-001" in rig.ask("/database/customer-001").body
    assert rig.port.read == ["customer-001"]
    rig.ask("/database/customer-000")
    assert rig.port.read == ["customer-001", "customer-000"]


def test_a_database_that_cannot_be_read_has_its_page(rig: Rig) -> None:
    rig.port.error = DatabaseUnavailable("customer-001", "it is away")
    response = rig.ask("/database/customer-001")
    assert (response.status, b"it is away" in response.body) == (HTTPStatus.OK, True)


def test_a_fault_of_ours_is_an_answer(rig: Rig) -> None:
    rig.master.now = Said({"databases": 7}, 0.0, 9)
    assert rig.ask("/healthz").status is HTTPStatus.INTERNAL_SERVER_ERROR
    rig.master.now = Said(status(1), 0.0, 10)
    assert rig.ask("/livez").status is HTTPStatus.OK
