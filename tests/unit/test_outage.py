"""An outage of PostgreSQL as several workers see it: told once, tried by one, over for all."""

from __future__ import annotations

import math
from typing import Any

import pytest

from qjsupervisor import logs
from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.errors import DatabaseError, DatabaseGone, DatabaseUnavailable, ServerDown
from qjsupervisor.states import Fairness, Phase
from qjsupervisor.table.layout import Server
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.worker.outage import SPREAD_S, Outage
from qjsupervisor.worker.reporting import ChangeLog, Loss

DOWN = ServerDown("db", "pg:5432", "Connection refused")


def connects() -> None:
    """A server that lets us in."""


def raises(error: DatabaseError) -> Any:
    def connect() -> None:
        raise error

    return connect


@pytest.fixture
def outages() -> list[Outage]:
    """Of three workers, one server."""
    table = SemaphoreTable([ChannelSpec(name="root", capacity=1)], slots=3, fairness=Fairness.ROUND_ROBIN)
    made = []
    for slot in range(3):
        table.assign(slot, f"db{slot}", 1)
        (health,) = table.worker_slot(slot).attach_servers(["postgresql://pg:5432"])
        made.append(Outage(health, "pg:5432", slot, logs.get_logger()))
    return made


def fail(outage: Outage, error: DatabaseError = DOWN) -> None:
    with pytest.raises(type(error)) as caught:
        outage.connect(raises(error), 0.0)
    if isinstance(caught.value, ServerDown):
        outage.failed(caught.value)


def make_due(outage: Outage) -> None:
    """The next try of the worker that tries it is due."""
    outage._health._core.words[outage._health._base + Server.RETRY_NS] = 0


def test_one_line_for_all(outages: list[Outage], log_events: list[Any]) -> None:
    one, two, three = outages
    for outage in outages:
        fail(outage)
    assert [(each["event"], each["server"], each["reason"]) for each in log_events] == [
        ("postgresql_down", "pg:5432", "Connection refused")
    ]
    assert one.next_try_s(0.0) < two.next_try_s(0.0) == three.next_try_s(0.0), "one of them tries it"
    with pytest.raises(ServerDown, match="PostgreSQL at pg:5432 cannot be reached: Connection refused"):
        two.connect(connects, 0.0)
    assert two.comeback_s(0.0) == math.inf
    make_due(one)
    one.connect(connects, 0.0)
    assert [each["event"] for each in log_events] == ["postgresql_down", "postgresql_recovered"]
    times = [outage.comeback_s(100.0) for outage in (two, three)]
    assert all(100.0 <= each < 100.0 + SPREAD_S for each in times)
    assert times[0] != times[1], "not at once"
    assert two.comeback_s(100.0) == math.inf, "once"
    for outage in (two, three):
        outage.connect(connects, 0.0)
    assert len(log_events) == 2


@pytest.mark.parametrize(
    ("error", "is_there"),
    [(DatabaseGone("db", "gone"), True), (DatabaseUnavailable("db", "closed"), False)],
)
def test_a_server_that_refuses_one_database_is_there(
    outages: list[Outage], log_events: list[Any], error: DatabaseError, is_there: bool
) -> None:
    one, two, _ = outages
    fail(one)
    fail(two)
    make_due(one)
    fail(one, error)
    assert (two.comeback_s(0.0) < math.inf) is is_there
    assert len(log_events) == 1 + is_there


def test_a_database_that_fails_by_itself_meanwhile_leaves_the_probe_to_others(
    outages: list[Outage], log_events: list[Any]
) -> None:
    """A server that goes down breaks connections in many ways; and one database may be ill by itself."""
    one, two, _ = outages
    fail(one)
    fail(two)
    make_due(one)
    with pytest.raises(ServerDown, match="Connection refused") as caught:
        one.connect(raises(DatabaseUnavailable("db", "closed unexpectedly")), 0.0)
    one.failed(caught.value)
    two._health._core.words[two._health._base + Server.LEASE_NS] = 0  # that moment is over
    two.connect(connects, 0.0)
    assert [each["event"] for each in log_events] == ["postgresql_down", "postgresql_recovered"]


def test_a_loss_is_explained_by_an_outage_that_came_after_it(outages: list[Outage]) -> None:
    """A silent server is found out by the first connect that is given up; by then many databases are lost."""
    one, two, three = outages
    for outage in outages:
        outage.lost()
    fail(one)
    make_due(one)
    assert one.connect(connects, 0.0)
    assert two.connect(connects, 0.0), "it never saw that the server was down"
    three.lost()
    assert three.connect(connects, 0.0), "the first loss counts"
    three.lost()
    assert not three.connect(connects, 0.0), "that was another one"


def test_an_attempt_that_began_before_the_server_was_back(outages: list[Outage]) -> None:
    one, two, _ = outages

    def gives_up() -> None:
        fail(one)
        make_due(one)
        one.connect(connects, 0.0)
        raise DatabaseUnavailable("db", "no connection within 5 s")

    with pytest.raises(ServerDown, match="just come back") as caught:
        two.connect(gives_up, 0.0)
    two.failed(caught.value)
    assert two.comeback_s(0.0) < math.inf


def test_whoever_tries_it_may_go(outages: list[Outage]) -> None:
    one, two, _ = outages
    fail(one)
    fail(two)
    one.close()
    two.connect(connects, 0.0)
    assert one.comeback_s(0.0) < math.inf


Step = tuple[Phase, str, Loss | None]
LOST: Step = (Phase.DISCONNECTED, "lost", Loss.OWN)
REFUSED: Step = (Phase.DISCONNECTED, "password", Loss.OWN)
AWAY: Step = (Phase.DISCONNECTED, "PostgreSQL", Loss.OF_SERVER)
READY: Step = (Phase.SERVING, "", None)
BLOCKED: Step = (Phase.BLOCKED, "to upgrade", None)


@pytest.mark.parametrize(
    ("steps", "lines"),
    [
        ([READY], ["info database_ready "]),
        ([LOST, READY], ["warning database_lost lost", "info database_ready "]),
        ([LOST, AWAY, AWAY, READY, READY], ["info database_ready "]),
        ([LOST, REFUSED, REFUSED, READY], ["error database_lost password", "info database_ready "]),
        ([BLOCKED, AWAY, BLOCKED], ["error database_blocked to upgrade"]),
        ([BLOCKED, LOST, BLOCKED], ["error database_blocked to upgrade"]),
        (
            [BLOCKED, LOST, REFUSED, BLOCKED],
            ["error database_blocked to upgrade", "error database_lost password", "error database_blocked to upgrade"],
        ),
        ([BLOCKED, AWAY, READY, BLOCKED], ["error database_blocked to upgrade"] * 2),
        ([READY, LOST, AWAY, REFUSED, REFUSED], ["info database_ready ", "error database_lost password"]),
        ([READY, LOST, AWAY, LOST, READY], ["info database_ready "]),
        (
            [READY, LOST, AWAY, REFUSED, REFUSED, READY],
            ["info database_ready ", "error database_lost password", "info database_ready "],
        ),
    ],
)
def test_what_of_a_database_is_logged(steps: list[Step], lines: list[str], log_events: list[Any]) -> None:
    """Nothing where the server's line says it."""
    changes = ChangeLog(logs.get_logger(database="db"))
    for phase, reason, loss in steps:
        changes.note(phase, reason, loss)
    told = [each for each in log_events if each["log_level"] != "debug"]
    assert [f"{each['log_level']} {each['event']} {each.get('reason', '')}" for each in told] == lines
