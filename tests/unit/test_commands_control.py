"""Orders to the running supervisor, and what is said of its answers."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from qjsupervisor.commands import control
from qjsupervisor.commands.arguments import ScopeArgument
from qjsupervisor.config.load import load

CONFIG = load({"config": "/dev/null", "graceful_timeout": "1"}, {"HOME": "/nowhere"})


class Supervisor:
    """Takes orders, and answers what a test says."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] = {}
        self.pid: object = None
        self.orders: list[tuple[str, dict[str, Any]]] = []

    def order(self, _config: object, do: str, **details: Any) -> dict[str, Any]:
        self.orders.append((do, details))
        if do == "stop" and isinstance(self.pid, int):
            os.kill(self.pid, signal.SIGTERM)
        return self.answer

    def status(self, _config: object) -> dict[str, Any]:
        return {"pid": self.pid}


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    made = Supervisor()
    monkeypatch.setattr(control, "order", made.order)
    monkeypatch.setattr(control, "status", made.status)
    return made


def test_reload_says_what_changed(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor.answer = {"needs_restart": ["fairness"], "restarted": ["db1", "db2"]}
    assert control.reload(CONFIG) == 0
    assert capsys.readouterr().out.splitlines() == [
        "configuration read again",
        "fairness: takes effect at the next start only",
        "workers restarted, because their settings changed: db1, db2",
    ]
    supervisor.answer = {"needs_restart": None}
    control.reload(CONFIG)
    assert capsys.readouterr().out == "configuration read again\n"


def test_pause_and_release_say_for_how_long(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor.answer = {"warning": "there is no channel root.x"}
    assert control.pause(CONFIG, ScopeArgument("db", "root.x"), 90.0) == 0
    assert control.pause(CONFIG, ScopeArgument(None, "root"), None) == 0
    assert control.release(CONFIG, "db", 600.0) == 0
    assert [(do, details["for_s"]) for do, details in supervisor.orders] == [
        ("pause", 90.0), ("pause", None), ("release", 600.0),
    ]  # fmt: skip
    first, note, second, _, third = capsys.readouterr().out.splitlines()
    assert first.startswith("paused for 90 s: ")
    assert note == "note: there is no channel root.x"
    assert second.startswith("paused until resumed: ")
    assert third.startswith("released for 10 min: db; ")


def test_resume_and_resume_anyway(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor.answer = {"modules": {"sale": "to upgrade"}}
    assert control.resume(CONFIG, ScopeArgument("db", "root"), anyway=True) == 0
    assert "module sale is 'to upgrade'" in capsys.readouterr().out
    assert supervisor.orders[-1][1] == {"database": "db", "channel": "root", "anyway": True}
    assert control.resume(CONFIG, ScopeArgument("db", "root")) == 0
    assert "anyway" not in supervisor.orders[-1][1]


def child(*, stubborn: bool = False) -> int:
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        if stubborn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.write(told, b"x")
        signal.pause()
        os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    return pid


def test_stop_waits_for_the_end(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor.pid = pid = child()
    assert control.stop(CONFIG) == 0
    assert capsys.readouterr().out == f"stopped (was process {pid})\n"
    os.waitpid(pid, 0)


def test_stop_says_where_it_is_not_over(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "EXTRA_S", -0.9)
    supervisor.pid = pid = child(stubborn=True)
    try:
        assert control.stop(CONFIG) == 1
        assert "is still there" in capsys.readouterr().out
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_stop_of_a_process_that_cannot_be_watched(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    assert control.stop(CONFIG) == 0
    assert capsys.readouterr().out == "told to stop\n"
