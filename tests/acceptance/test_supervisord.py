"""A real supervisord runs the program section of conf/supervisord.conf as it is, but for paths."""

from __future__ import annotations

import configparser
import getpass
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory
from ..helpers import REPOSITORY, clean_environment, odoo_conf, wait_until

Control = Callable[..., str]


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
    watch["command"] = f"{sys.executable} -m qjsupervisor eventlistener --config {conf} --patience 6s"
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
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=30)
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
        second.wait_for_states(done=3, timeout_s=10)
        assert "stopped" in control("stop", "qjsupervisor")
        log = (folder / "supervisord.log").read_text()
        assert "stopped: qjsupervisor (exit status 0)" in log, log


@pytest.mark.timeout(120)
def test_a_master_that_is_stopped_is_restarted(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By the event listener, through supervisord; a moment's silence before that is forgiven."""
    folder = tmp_path_factory.mktemp("sv")
    conf = folder / "odoo.conf"
    one = database()
    conf.write_text(odoo_conf(postgres, odoo.port, db_name=one.name))
    watch = folder / "watch.log"
    with supervisord(folder, conf) as control:
        wait_until(lambda: watch.exists() and "-> RUNNING" in watch.read_text(), lambda: control("status"), 30)
        pid = int(control("pid", "qjsupervisor"))
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: "is restarted: no answer for" in watch.read_text(), watch.read_text, 30)
        wait_until(lambda: control("pid", "qjsupervisor").strip() not in ("0", str(pid)), lambda: control("status"), 30)
        one.insert_jobs(1)
        one.wait_for_states(done=1, timeout_s=30)
