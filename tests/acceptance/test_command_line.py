"""The command as a process: what `start` imports, pipes that close, errors without traceback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory
from ..helpers import REPOSITORY, clean_environment, odoo_conf

COMMAND = [sys.executable, "-m", "qjsupervisor"]


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=clean_environment(**env),
        timeout=30,
    )


def conf(tmp_path: Path, text: str = "") -> str:
    path = tmp_path / "odoo.conf"
    path.write_text(text or f"[qjsupervisor]\ncontrol_socket = {tmp_path}/s\n")
    return str(path)


def test_start_imports_no_more_than_it_needs() -> None:
    """What the master imports is in every worker: nothing of the other commands, no rich, no metrics."""
    code = (
        "import sys; from qjsupervisor import cli; cli.parse(['start']);"
        "from qjsupervisor import logs; from qjsupervisor.config import load; from qjsupervisor.master import master;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'rich', 'prometheus_client', 'http',"
        " 'supervisor', 'psutil', 'hypothesis'}), *[name for name in sys.modules if '.commands.' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=REPOSITORY, timeout=30
    )
    modules = set(done.stdout.split())
    # The command line is parsed; urllib3, which workers need, imports http.client.
    assert modules <= {"qjsupervisor.commands.arguments", "qjsupervisor.commands.parser", "http"}


@pytest.mark.parametrize("command", ["status", "reload", "stop", "pause", "resume"])
def test_nobody_runs(tmp_path: Path, command: str) -> None:
    done = run(command, "-c", conf(tmp_path))
    assert done.returncode == 69
    assert done.stdout == ""
    assert "no supervisor runs" in done.stderr
    assert done.stderr.count("\n") == 1


def test_who_answers_is_silent(tmp_path: Path) -> None:
    """Somebody listens at the socket and never answers: told so after a bounded time."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        done = run("status", "-c", conf(tmp_path))
    assert done.returncode == 69
    assert "no answer within" in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "[qjsupervisor]\nno_such = 1\n",
        "[queue_job]\nchannels = root:x\n",
        "[qjsupervisor]\nlog_level = loud\n",
        "no section",
    ],
)
@pytest.mark.parametrize("command", ["start", "check", "status"])
def test_wrong_configuration(tmp_path: Path, text: str, command: str) -> None:
    done = run(command, "-c", conf(tmp_path, text))
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.startswith("qjsupervisor: configuration: ")
    assert done.stderr.count("\n") == 1


def test_reader_goes_away(tmp_path: Path, database: DatabaseFactory, postgres: ThrowawayPostgres) -> None:
    """`qjsupervisor jobs db --json | head -1`: no traceback."""
    one = database()
    one.insert_jobs(2000)
    path = conf(tmp_path, odoo_conf(postgres, 1, sections={"qjsupervisor": {"control_socket": f"{tmp_path}/s"}}))
    reading, writing = os.pipe()
    with subprocess.Popen(
        [*COMMAND, "jobs", one.name, "--json", "--limit", "2000", "-c", path],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        # Unbuffered, Python takes a short write for a whole one, and never learns of the closed pipe.
        env=clean_environment(PYTHONUNBUFFERED=""),
    ) as process:
        os.close(writing)
        os.read(reading, 10)
        os.close(reading)
        _, stderr = process.communicate(timeout=30)
    assert stderr == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_terminal_without_utf8(tmp_path: Path, database: DatabaseFactory, postgres: ThrowawayPostgres) -> None:
    one = database("grün")
    path = conf(tmp_path, odoo_conf(postgres, 1, sections={"qjsupervisor": {"control_socket": f"{tmp_path}/s"}}))
    done = run("jobs", one.name, "-c", path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xfcn: no jobs" in done.stdout


def test_json_is_ascii(tmp_path: Path, database: DatabaseFactory, postgres: ThrowawayPostgres) -> None:
    one = database("grün")
    path = conf(tmp_path, odoo_conf(postgres, 1, sections={"qjsupervisor": {"control_socket": f"{tmp_path}/s"}}))
    done = run("jobs", one.name, "--json", "-c", path, PYTHONIOENCODING="ascii")
    assert done.stdout.isascii()
    assert json.loads(done.stdout)["database"] == "grün"
