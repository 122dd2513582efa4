"""The command as a process: what `start` imports, pipes that close, errors without traceback."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import REPOSITORY, Supervisor, clean_environment, odoo_conf, render, wait_until
from ..scripted import black_hole, unused_port

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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"log_file": "{folder}/nowhere/log"}, "log_file"),
        ({"log_file": "{folder}"}, "log_file"),
        ({"pidfile": "{folder}/nowhere/pid"}, "pidfile"),
        ({"pidfile": "{folder}/odoo.conf"}, "holds something other than a process id"),
        ({"pidfile": "{folder}/link"}, "is a symbolic link"),
        ({"control_socket": "{folder}/open/s"}, "may be written to by others"),
        ({"control_socket": "{folder}/odoo.conf"}, "exists and is not a socket"),
        ({"control_socket": "{folder}/odoo.conf/deep/s"}, "control_socket"),
        ({"control_socket": "{folder}/" + "s" * 110}, "control_socket"),
        ({"state_dir": "{folder}/nowhere/deep"}, "state_dir"),
        ({"state_dir": "state"}, "[qjsupervisor] state_dir: 'state' is relative; allowed: a path that begins"),
        ({"pidfile": "./pid"}, "[qjsupervisor] pidfile: './pid' is relative"),
        ({"channels": "root:4,root." + "c" * 260 + ":1"}, "channels"),
    ],
)
def test_what_start_refuses_check_refuses(tmp_path: Path, options: dict[str, str], said: str) -> None:
    """With 78, in the same words, and without making anything."""
    tmp_path.chmod(0o700)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to("elsewhere")
    given = {"control_socket": "{folder}/s", "db_name": "none", "db_host": "127.0.0.1", "db_port": "1", **options}
    sections: dict[str, dict[str, object]] = {"options": {}, "queue_job": {}, "qjsupervisor": {}}
    for name, value in given.items():
        section = {"channels": "queue_job", "db": "options"}.get(name.partition("_")[0], "qjsupervisor")
        sections[section][name] = value.replace("{folder}", str(tmp_path))
    path = conf(tmp_path, render(sections))
    before = sorted(os.listdir(tmp_path))
    checked = run("check", "-c", path)
    assert sorted(os.listdir(tmp_path)) == before
    started = run("start", "-c", path)
    assert (checked.returncode, started.returncode) == (78, 78), (checked.stderr, started.stderr)
    assert checked.stderr == started.stderr
    assert said in checked.stderr
    assert checked.stderr.count("\n") == 1


def test_connect_timeout_holds_for_postgresql_everywhere(tmp_path: Path, supervisor: SupervisorFactory) -> None:
    """Of each address: one takes connections and says nothing, the packets to the other are lost."""
    with black_hole() as lost, socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        tmp_path.chmod(0o700)
        ports = {
            "refused": [unused_port()],
            "lost": [lost],
            "silent": [silent.getsockname()[1]],
            "both": [silent.getsockname()[1], lost],
        }
        at_once_s = 0.0
        for name, each in ports.items():
            options = {"db_host": ",".join(["127.0.0.1"] * len(each)), "db_port": ",".join(map(str, each))}
            own = {"control_socket": f"{tmp_path}/s", "connect_timeout": "0.7"}
            path = conf(tmp_path, render({"options": {**options, "db_name": "one"}, "qjsupervisor": own}))
            begun_s = time.monotonic()
            done = run("jobs", "one", "-c", path)
            took_s = time.monotonic() - begun_s
            assert (done.returncode, done.stderr.count("\n")) == (70, 1), (name, done.stderr)
            at_once_s = at_once_s or took_s
            assert ("no connection within 0.7 s" in done.stderr) == (name != "refused"), name
            assert took_s - at_once_s < 5, name
        own = {"connect_timeout": "0.7"}
        running = supervisor(render({"options": {**options, "db_name": "one"}, "qjsupervisor": own}))
        reason = running.wait_for("postgresql_down")["reason"]
        assert reason.count("no connection within 0.7 s") == 2


def test_start_imports_no_more_than_it_needs() -> None:
    """What the master imports is in every worker, and takes its time: nothing of the other commands, no rich, no
    metrics, no asyncio; of broker, porter and monitor only what the master itself needs without them."""
    code = (
        "import sys; before = {*sys.modules}; from qjsupervisor.commands.parser import parse; parse(['start']);"
        "from qjsupervisor import logs; from qjsupervisor.config import load; from qjsupervisor.master import master;"
        "from qjsupervisor.monitor import monitor;"
        "print(*({*sys.modules} - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=REPOSITORY, timeout=30
    )
    modules = set(done.stdout.split())
    unwanted = {"rich", "prometheus_client", "http", "supervisor", "psutil", "hypothesis", "shutil", "bz2", "hashlib"}
    assert {name.partition(".")[0] for name in modules} & unwanted == set()
    assert not {"asyncio.events", "structlog._greenlets", "colorama"} & modules
    ours = [name.split(".", 1)[1] for name in modules if name.startswith("qjsupervisor.")]
    folders = ("commands", "broker", "porter", "monitor", "demo")
    assert {name for name in ours if name.partition(".")[0] in folders} == {
        "commands", "commands.arguments", "commands.parser", "porter", "porter.settings",
        "monitor", "monitor.listener", "monitor.monitor", "monitor.ports",
    }  # fmt: skip


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


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1 2"])
@pytest.mark.parametrize("command", ["status", "check", "--version"])
def test_closed_standard_streams(tmp_path: Path, command: str, closed: str) -> None:
    """`qjsupervisor status >&-`, as cron jobs and daemons do: an exit status, and no traceback."""
    arguments = [] if command.startswith("-") else ["-c", conf(tmp_path)]
    code = f"import os, sys; [os.close(int(n)) for n in {closed!r}.split()]; os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *COMMAND, command, *arguments],
        check=False, capture_output=True, text=True, cwd=REPOSITORY, env=clean_environment(), timeout=30,
    )  # fmt: skip
    assert done.returncode == {"status": 69, "check": 1, "--version": 0}[command]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["check", "jobs"])
def test_an_output_that_cannot_be_written(
    tmp_path: Path, database: DatabaseFactory, postgres: ThrowawayPostgres, command: str
) -> None:
    path = conf(tmp_path, odoo_conf(postgres, 1, sections={"qjsupervisor": {"control_socket": f"{tmp_path}/s"}}))
    arguments = [database().name] if command == "jobs" else []
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, command, *arguments, "-c", path],
            check=False, stdout=full, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
            env=clean_environment(PYTHONUNBUFFERED=""), timeout=30,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        70,
        "qjsupervisor: the output cannot be written: No space left on device\n",
    )


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


def _read_until(terminal: int, what: str) -> str:
    """What comes from a terminal until there is such a text in it."""
    seen = ""

    def has_come() -> bool:
        nonlocal seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")
        return what in seen

    wait_until(has_come, lambda: f"{what!r} on the screen; there is {seen[-2000:]!r}")
    return seen


def _watch_on_a_terminal(running: Supervisor) -> tuple[subprocess.Popen[bytes], int]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = subprocess.Popen(
        running.command("status", "--watch"),
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=REPOSITORY, env={**running.env, "TERM": "xterm"},
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    return process, ours


def test_status_is_watched_while_the_supervisor_dies(
    database: DatabaseFactory, postgres: ThrowawayPostgres, supervisor: SupervisorFactory
) -> None:
    one = database()
    running = supervisor(odoo_conf(postgres, 1))
    running.wait_ready(one.name)
    assert running.run("status", "--check").returncode == 0
    assert running.run("status", one.name[:-1] + "?").returncode == 0
    assert running.run("status", "nobody").returncode == 1
    reading = subprocess.Popen(
        running.command("status", "--watch"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd=REPOSITORY, env=running.env,
    )  # fmt: skip
    screen, terminal = _watch_on_a_terminal(running)
    try:
        assert reading.stdout is not None
        assert "1 database: 1 ready" in reading.stdout.readline()
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", _read_until(terminal, "q ends"))
        assert max(map(len, shown.split("\r\n"))) <= 80
        os.kill(screen.pid, signal.SIGCONT)  # as `fg` does behind Ctrl-Z
        running.kill()
        _read_until(terminal, "is how it was last")
        while "no supervisor runs" not in (line := reading.stdout.readline()):
            assert "database" in line
        reading.stdout.close()  # as head does; it is told with the next line
        os.write(terminal, b"q")
        assert "Traceback" not in _read_until(terminal, "\x1b[?1049l")
        assert (screen.wait(30), reading.wait(30)) == (0, 128 + signal.SIGPIPE)
        assert running.run("status", "--check").returncode == 2
    finally:
        for process in (reading, screen):
            process.kill()
            process.wait()
        os.close(terminal)
