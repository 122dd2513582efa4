"""A real supervisord runs the program section of conf/supervisord.conf as it is, but for paths."""

from __future__ import annotations

import configparser
import getpass
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from qjsupervisor.control_client import ask
from qjsupervisor.errors import QJSupervisorError
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory
from ..helpers import REPOSITORY, Database, clean_environment, odoo_conf, wait_until, written

_log = logging.getLogger(__name__)
Control = Callable[..., str]
#: '' for the default one: then the restart takes as long as it does for an administrator.
PATIENCE = os.environ.get("QJS_WATCH_PATIENCE", "--patience 6s")
BUSY_S = 8.0 if PATIENCE else 40.0


@contextmanager
def supervisord(folder: Path, conf: Path) -> Iterator[Control]:
    """Run one; yields supervisorctl."""
    example = configparser.RawConfigParser()
    example.read(REPOSITORY / "conf" / "supervisord.conf")
    program = dict(example["program:qjsupervisor"])
    program["command"] = f"{sys.executable} -m qjsupervisor start --config {conf}"
    program["directory"] = str(REPOSITORY)
    program["stdout_logfile"] = str(folder / "qjsupervisor.log")
    for key in ("user", "stderr_logfile"):
        program.pop(key, None)
    settings = configparser.RawConfigParser()
    settings["supervisord"] = {
        "nodaemon": "true",
        "logfile": str(folder / "supervisord.log"),
        "pidfile": str(folder / "supervisord.pid"),
        "childlogdir": str(folder),
        "user": getpass.getuser(),
    }
    settings["unix_http_server"] = {"file": str(folder / "s.sock")}
    settings["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    settings["supervisorctl"] = {"serverurl": f"unix://{folder / 's.sock'}"}
    settings["program:qjsupervisor"] = program
    watch = dict(example["eventlistener:qjsupervisor-watch"])
    watch["command"] = f"{sys.executable} -m qjsupervisor eventlistener --config {conf} {PATIENCE}"
    watch["directory"] = str(REPOSITORY)
    watch["stderr_logfile"] = str(folder / "watch.log")
    settings["eventlistener:qjsupervisor-watch"] = watch
    file = folder / "supervisord.conf"
    with file.open("w") as text:
        settings.write(text)
    environment = clean_environment(
        PYTHONWARNINGS="ignore", QJSUPERVISOR_CONTROL_SOCKET=str(folder / "c" / "control.sock")
    )

    def control(*arguments: str) -> str:
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(file), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=60)
        return done.stdout + done.stderr

    server = subprocess.Popen(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(file)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield control
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.timeout(120)
def test_the_example_works(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It starts, serves a new database after HUP through supervisorctl, and stops with exit status 0."""
    folder = tmp_path_factory.mktemp("sv")
    conf = folder / "odoo.conf"
    names = {"databases_include": "sv_*"}
    conf.write_text(odoo_conf(postgres, odoo.port, sections={"qjsupervisor": names}))
    first = database("sv_first")
    first.insert_jobs(3)
    with supervisord(folder, conf) as control:
        first.wait_for_states(done=3, timeout_s=30)
        wait_until(lambda: "RUNNING" in control("status"), lambda: control("status"), 30)
        second = database("sv_second")
        second.insert_jobs(3)
        assert "signalled" in control("signal", "HUP", "qjsupervisor")
        second.wait_for_states(done=3)
        assert "stopped" in control("stop", "qjsupervisor")
        log = (folder / "supervisord.log").read_text()
        assert "stopped: qjsupervisor (exit status 0)" in log, log


def keep_busy(one: Database, control_socket: str, for_s: float) -> list[str]:
    """Jobs without a pause, and a dozen clients that ask for the status all the time; the jobs."""
    uuids: list[str] = []
    end_s = time.monotonic() + for_s

    def ask_on() -> None:
        while time.monotonic() < end_s:
            with suppress(QJSupervisorError):
                ask(control_socket, {"do": "status"}, timeout_s=10)

    with ThreadPoolExecutor(12) as clients:
        for _ in range(12):
            clients.submit(ask_on)
        while time.monotonic() < end_s:
            uuids += one.insert_jobs(20)
            one.wait_for_states(done=len(uuids), timeout_s=60)
    return uuids


@pytest.mark.timeout(200)
def test_a_master_that_is_stopped_is_restarted(
    postgres: ThrowawayPostgres,
    odoo: StandIn,
    database: DatabaseFactory,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """By the event listener, through supervisord, within a minute; one that is only busy is left alone."""
    folder = tmp_path_factory.mktemp("sv")
    conf = folder / "odoo.conf"
    one = database()
    conf.write_text(odoo_conf(postgres, odoo.port, db_name=one.name))
    watch = folder / "watch.log"
    with supervisord(folder, conf) as control:
        wait_until(lambda: "-> RUNNING" in written(watch), lambda: control("status"), 30)
        pid = int(control("pid", "qjsupervisor"))
        jobs = len(keep_busy(one, str(folder / "c" / "control.sock"), BUSY_S))
        assert "is restarted" not in written(watch)
        assert int(control("pid", "qjsupervisor")) == pid
        one.wait_for_states(done=jobs, timeout_s=60)
        os.kill(pid, signal.SIGSTOP)
        began_s = time.monotonic()
        wait_until(lambda: "is restarted: no answer for" in written(watch), watch.read_text, 50)
        wait_until(lambda: control("pid", "qjsupervisor").strip() not in ("0", str(pid)), lambda: control("status"), 30)
        one.insert_jobs(1)
        one.wait_for_states(done=jobs + 1, timeout_s=60)
        took_s = time.monotonic() - began_s
        _log.info("%s: %s", "s from SIGSTOP until a new supervisor ran a job", round(took_s, 1))
        assert took_s < 60
