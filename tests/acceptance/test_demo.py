"""`qjsupervisor demo` as a user runs it: on a terminal or not, to its end or interrupted."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from qjsupervisor.demo import run as demo_run
from qjsupervisor.demo import work
from qjsupervisor.testing.processes import DemoError, spawn
from tests.helpers import REPOSITORY, clean_environment, is_alive, wait_until

_COMMAND = [sys.executable, "-m", "qjsupervisor", "demo"]
_JOBS = sum(batch.count for batch in work.PLAN)


class Demo:
    """Where one run writes, and how it is told from everybody else's."""

    def __init__(self) -> None:
        self.temporary = Path(tempfile.mkdtemp(prefix="qjs-d-", dir="/tmp"))
        self.temporary.chmod(0o755)  # the server's user must get through
        self.env = clean_environment(TMPDIR=str(self.temporary), TERM="xterm")
        self.env.pop("PYTHONUNBUFFERED")
        self._seen: list[psutil.Process] = []

    def note_processes(self, pid: int) -> int:
        """Remember all that run below the demo now; how many."""
        self._seen = psutil.Process(pid).children(recursive=True)
        return len(self._seen)

    def assert_nothing_is_left(self) -> None:
        wait_until(lambda: not self._alive(), lambda: f"still running: {self._alive()}")
        wait_until(lambda: not self._left(), lambda: f"left behind: {self._left()}")

    def close(self) -> None:
        for process in self._alive():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self.temporary)

    def _alive(self) -> list[psutil.Process]:
        return [one for one in self._seen if is_alive(one)]

    def _left(self) -> list[Path]:
        return list(self.temporary.iterdir())


@pytest.fixture
def demo() -> Iterator[Demo]:
    one = Demo()
    yield one
    one.close()


class Started:
    """The demo with the supervisor at work, its output being read."""

    def __init__(self, demo: Demo, output: int, process: subprocess.Popen[bytes]) -> None:
        self.demo = demo
        self.process = process
        self._output = output
        self.text = ""

    def read_until(self, pattern: str, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not re.search(pattern, self.text):
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"no {pattern!r} within {timeout_s:g} s in:\n{self.text}"
            if select.select([self._output], [], [], left_s)[0]:
                chunk = self._read()
                assert chunk, f"ended without {pattern!r}:\n{self.text}"

    def finish(self, timeout_s: float = 60.0) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + timeout_s
        while select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not self._read():
                break
        return self.process.wait(max(1.0, deadline - time.monotonic()))

    def _read(self) -> str:
        try:
            chunk = os.read(self._output, 65536).decode(errors="replace")
        except OSError:  # how a terminal says that its last program is gone
            chunk = ""
        self.text += chunk
        return chunk


@pytest.fixture
def on_terminal(demo: Demo, request: pytest.FixtureRequest) -> Iterator[Started]:
    """The demo on a terminal of its own, as the session's leader: Ctrl-C reaches it and nobody else.

    A parameter holds more arguments.
    """
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    command = [*_COMMAND, *getattr(request, "param", ())]
    process = subprocess.Popen(
        command, stdin=inner, stdout=inner, stderr=inner, env=demo.env, cwd=REPOSITORY, start_new_session=True
    )
    os.close(inner)
    with process:
        yield Started(demo, outer, process)
        process.kill()
    os.close(outer)


def test_all_jobs_come_out_as_they_should(demo: Demo) -> None:
    done = subprocess.run(
        _COMMAND, env=demo.env, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"All {_JOBS} jobs came out as they should" in done.stdout
    assert "\x1b" not in done.stdout
    assert re.search(rf"^ root +6 +6 +{_JOBS} *$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^ root\.slow +2 +2 +\d+ *$", done.stdout, re.MULTILINE), done.stdout
    demo.assert_nothing_is_left()


@pytest.mark.parametrize("on_terminal", [["--keep"]], indirect=True)
def test_live_table_on_a_terminal_that_is_kept_until_ctrl_c(on_terminal: Started) -> None:
    on_terminal.read_until(r"ODOO_RC=.*(\r\n.*){4}\r\n")
    text = on_terminal.text
    assert "\x1b[" in text
    for database in work.DATABASES:
        assert database in text
    assert "█" in text
    assert f"All {_JOBS} jobs came out as they should" in text
    assert "its Odoo worker was killed" in text
    assert "…" not in text, "nothing is cut at 80 columns"
    (page,) = re.findall(r"The page: +(\S+)", text)
    assert "demo_shop" in requests.get(page, timeout=5).text
    (conf,) = re.findall(r"ODOO_RC=(\S+)", text)
    done = subprocess.run(
        [sys.executable, "-m", "qjsupervisor", "requeue", work.SHOP, "--state", "failed"],
        env={**on_terminal.demo.env, "ODOO_RC": conf}, cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert "4 jobs put back to pending" in done.stdout
    assert on_terminal.demo.note_processes(on_terminal.process.pid) > 7
    on_terminal.process.send_signal(signal.SIGINT)
    assert on_terminal.finish() == 0
    assert "Nothing is left behind." in on_terminal.text
    on_terminal.demo.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
)
def test_interrupted(on_terminal: Started, signum: int, status: int) -> None:
    on_terminal.read_until(r"[1-9] s")
    # At least: caretaker, PostgreSQL and its own, Odoo, supervisor, a worker for each database.
    assert on_terminal.demo.note_processes(on_terminal.process.pid) > 7
    on_terminal.process.send_signal(signum)
    assert on_terminal.finish() == status
    assert "Traceback" not in on_terminal.text
    on_terminal.demo.assert_nothing_is_left()


def test_supervisor_that_does_not_run_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, and not only after the time is over."""

    def spawn_another(_command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        return spawn([sys.executable, "-c", "raise SystemExit('out of order')"], **options)

    monkeypatch.setattr("qjsupervisor.demo.run.spawn", spawn_another)
    with pytest.raises(DemoError, match="supervisor ended with exit status 1:\nout of order"):
        demo_run.run()


def test_missing_postgresql_is_one_clear_line(demo: Demo) -> None:
    done = subprocess.run(
        _COMMAND,
        env={**demo.env, "QJS_PG_BINDIR": "/nowhere"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 70
    assert done.stderr == "qjsupervisor: QJS_PG_BINDIR: no initdb and no postgres in /nowhere\n"
    demo.assert_nothing_is_left()
