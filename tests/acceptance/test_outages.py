"""Odoo goes away and comes back, then PostgreSQL: a line in the log for each, and the cause alone on every screen.

PostgreSQL is stopped, restarted at once, and silent (SIGSTOP). The same with many databases and for long:
QJS_OUTAGE_DATABASES=200 QJS_OUTAGE_ODOO_S=300 QJS_OUTAGE_POSTGRES_S=60.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import pytest
import requests

from qjsupervisor.testing import schema
from qjsupervisor.testing.odoo_http import OdooMode
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import EVERYBODY

from ..conftest import StandInFactory, SupervisorFactory
from ..helpers import Database, Supervisor, odoo_conf, wait_until
from ..scripted import unused_port

_log = logging.getLogger(__name__)
DATABASES = int(os.environ.get("QJS_OUTAGE_DATABASES", "8"))
ODOO_S = float(os.environ.get("QJS_OUTAGE_ODOO_S", "3"))
POSTGRES_S = float(os.environ.get("QJS_OUTAGE_POSTGRES_S", "4"))
#: What the requirement says, and what the machine of the tests needs besides.
RESUME_S = 5.0 + float(os.environ.get("QJS_OUTAGE_GRACE_S", "10"))
#: A silent server is found out at the next look at an idle connection, and by a connect that is given up.
SILENT_S = 70.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[ThrowawayPostgres]:
    settings: dict[str, str | int] = {"max_connections": 3 * DATABASES + 50, "fsync": "off"}
    with ThrowawayPostgres(settings=settings) as cluster:
        cluster.create_database("a_template")
        with closing(cluster.connect("a_template")) as connection:
            schema.install(connection)
        cluster.make_template("a_template")
        yield cluster


@pytest.fixture(scope="module")
def names(cluster: ThrowawayPostgres) -> list[str]:
    """Databases; the first one is being upgraded."""
    names = [f"shop{number:03}" for number in range(DATABASES)]
    for name in names:
        cluster.create_database(name, "a_template")
    run_in(cluster, names[:1], "UPDATE ir_module_module SET state = 'to upgrade' WHERE name = 'queue_job'")
    return names


def run_in(cluster: ThrowawayPostgres, names: Sequence[str], statement: str) -> None:
    for name in names:
        with closing(cluster.connect(name)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(statement)


def insert_jobs(cluster: ThrowawayPostgres, names: Sequence[str]) -> None:
    for name in names:
        one = Database(cluster, name)
        one.insert_jobs(1)
        one.connection.close()


def lines_since(running: Supervisor, mark: int) -> list[dict[str, Any]]:
    """What the log says besides jobs."""
    told = running.log_lines()[mark:]
    return [each for each in told if each["level"] != "debug" and not each["event"].startswith("job_")]


def ready_lines(running: Supervisor) -> int:
    """How many databases the log says are ready."""
    return sum(int(each.get("databases", 1)) for each in running.log_lines() if each["event"] == "database_ready")


class Screens:
    """What an operator sees, without the reason that one database has for itself."""

    def __init__(self, running: Supervisor, monitor: str, blocked: str) -> None:
        self._running = running
        self._monitor = monitor
        self._blocked = blocked

    def databases(self) -> list[dict[str, Any]]:
        """Of the status; none while the master is too busy to answer."""
        found: list[dict[str, Any]] = []
        with suppress(requests.Timeout):
            answer = requests.get(f"http://{self._monitor}/status", timeout=10)
            found = answer.json()["databases"] if answer.ok else []
        return found

    def states(self) -> dict[str, str]:
        """By database."""
        return {view["name"]: view["state"] for view in self.databases()}

    def finished(self) -> int:
        """Jobs of all databases."""
        return sum(view["finished"] for view in self.databases())

    def check(self, cause: str, *, strange: str) -> None:
        """`cause`: the one problem, a regular expression; `strange`: what is not the matter."""
        health = requests.get(f"http://{self._monitor}/healthz", timeout=10)
        assert health.status_code == 503
        lines = [line for line in health.text.splitlines() if not line.startswith(f"{self._blocked}: blocked")]
        assert len(lines) == 1, lines
        assert re.fullmatch(cause, lines[0]), lines
        shown = self._running.run("status").stdout
        assert re.search(cause.split("; ")[0], " ".join(shown.split())), shown
        page = requests.get(f"http://{self._monitor}/", timeout=10).text
        assert re.search(cause, page)
        for text in (health.text, shown, page):
            assert strange not in text, text
        assert not re.search(r"Odoo at \S+ is down: [^;<\n]*(upgrade|PostgreSQL)", page + health.text + shown)


@pytest.mark.timeout(180 + ODOO_S + POSTGRES_S + 3 * DATABASES)
def test_one_line_when_it_goes_and_one_when_it_is_back(
    cluster: ThrowawayPostgres,
    names: list[str],
    stand_in: StandInFactory,
    supervisor: SupervisorFactory,
) -> None:
    blocked, *served = names
    odoo = stand_in(cluster)
    monitor = f"127.0.0.1:{unused_port()}"
    conf = odoo_conf(cluster, odoo.port, channels="root:8", sections={"qjsupervisor": {"monitor": monitor}})
    running = supervisor(conf)
    running.wait_for("monitor_started", timeout_s=20)
    screens = Screens(running, monitor, blocked)
    states = screens.states
    well = {blocked: "blocked", **dict.fromkeys(served, "ready")}
    wait_until(lambda: states() == well, lambda: f"all are served: {states()}", 20 + DATABASES / 2)
    wait_until(lambda: ready_lines(running) == len(served), "the log says so")
    at_start = [each["event"] for each in lines_since(running, 0)]
    _log.info("%d lines at the start of %d databases: %s", len(at_start), DATABASES, at_start)
    assert len(at_start) < 8 + DATABASES / 4, at_start
    insert_jobs(cluster, served)
    wait_until(lambda: screens.finished() == len(served), "all ran", 20 + DATABASES)

    mark = len(running.log_lines())
    odoo.set_mode(EVERYBODY, OdooMode.REFUSE)
    insert_jobs(cluster, served)
    wait_until(lambda: lines_since(running, mark), "it is told", 20)
    threading.Event().wait(ODOO_S)
    waiting = f"; {DATABASES} databases wait for it"
    screens.check(rf"Odoo at http://127.0.0.1:{odoo.port} is down: Connection refused{waiting}", strange="PostgreSQL")
    odoo.set_mode(EVERYBODY, OdooMode.OK)
    began_s = time.monotonic()
    wait_until(lambda: screens.finished() == 2 * len(served), "all ran", RESUME_S)
    _log.info("%s: %s", "s from Odoo's return until all ran", round(time.monotonic() - began_s, 2))
    assert [each["event"] for each in lines_since(running, mark)] == ["target_down", "target_recovered"]

    mark = len(running.log_lines())
    cluster.stop()
    wait_until(lambda: lines_since(running, mark), "it is told", 20)
    threading.Event().wait(POSTGRES_S)
    wait_until(lambda: set(states().values()) == {"starting"}, lambda: f"all wait: {states()}")
    server = re.escape(f"{cluster.host}:{cluster.port}")
    screens.check(rf"PostgreSQL at {server} is down: [^;]*; {DATABASES} databases wait for it", strange="Odoo at")
    cluster.start()
    began_s = time.monotonic()
    wait_until(lambda: states() == well, lambda: f"all are served again: {states()}", RESUME_S)
    _log.info("%s: %s", "s from PostgreSQL's return until all are served", round(time.monotonic() - began_s, 2))
    insert_jobs(cluster, served)
    wait_until(lambda: screens.finished() == 3 * len(served), "all ran", 20 + DATABASES)
    told = lines_since(running, mark)
    _log.info("%s", told)
    down, back = told
    assert (down["event"], down["level"], "database" in down) == ("postgresql_down", "error", False)
    assert (back["event"], back["level"], "database" in back) == ("postgresql_recovered", "info", False)
    assert down["reason"] != ""

    mark = len(running.log_lines())
    cluster.restart()
    began_s = time.monotonic()
    wait_until(lambda: len(lines_since(running, mark)) > 1, "it is told", 20)
    wait_until(lambda: states() == well, lambda: f"all are served again: {states()}", RESUME_S)
    _log.info("%s: %s", "s from PostgreSQL's restart until all are served", round(time.monotonic() - began_s, 2))
    insert_jobs(cluster, served)
    wait_until(lambda: screens.finished() == 4 * len(served), "all ran", 20 + DATABASES)
    told = lines_since(running, mark)
    _log.info("%s", [(each["event"], each.get("databases")) for each in told])
    assert len(told) <= 2 + DATABASES / 20, told

    mark = len(running.log_lines())
    cluster.freeze()
    wait_until(lambda: lines_since(running, mark), "it is told", SILENT_S)
    wait_until(lambda: set(states().values()) == {"starting"}, lambda: f"all wait: {states()}", SILENT_S)
    silent = rf"PostgreSQL at {server} is down: it does not answer[^;]*; {DATABASES} databases wait for it"
    screens.check(silent, strange="Odoo at")
    cluster.thaw()
    began_s = time.monotonic()
    wait_until(lambda: states() == well, lambda: f"all are served again: {states()}", RESUME_S)
    _log.info("%s: %s", "s from PostgreSQL's SIGCONT until all are served", round(time.monotonic() - began_s, 2))
    insert_jobs(cluster, served)
    wait_until(lambda: screens.finished() == 5 * len(served), "all ran", 20 + DATABASES)
    told = lines_since(running, mark)
    assert [each["event"] for each in told] == ["postgresql_down", "postgresql_recovered"], told
