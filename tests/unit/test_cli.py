"""The command line: what reaches which command, and what becomes of errors. No command runs."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from qjsupervisor import cli
from qjsupervisor.commands import check, jobs, probe, requeue, status
from qjsupervisor.commands import control as orders
from qjsupervisor.commands.arguments import ScopeArgument
from qjsupervisor.commands.status_view import Choice
from qjsupervisor.config import load as config
from qjsupervisor.errors import AlreadyRunning, ConfigError, DatabaseError

from .called import CONFIG, Calls


@pytest.mark.parametrize(
    ("module", "function", "argv", "args", "kwargs"),
    [
        (check, "run", ["check"], (), {"as_json": False}),
        (check, "run", ["check", "--json"], (), {"as_json": True}),
        (status, "run", ["status"], (Choice(),), {"as_json": False, "only_names": False, "watch": False}),
        (
            status,
            "run",
            ["status", "--watch", "prod_*", "--sort", "rate", "db", "--problems", "--all"],
            (Choice(patterns=("prod_*", "db"), sort="rate", only_problems=True, everything=True),),
            {"as_json": False, "only_names": False, "watch": True},
        ),
        (probe, "run", ["status", "--check", "prod_*"], (("prod_*",),), {}),
        (orders, "reload", ["reload"], (), {}),
        (orders, "stop", ["stop"], (), {}),
        (orders, "pause", ["pause"], (ScopeArgument(None, "root"), None), {}),
        (orders, "release", ["release", "db1", "--for", "10m"], ("db1", 600.0), {}),
        (orders, "pause", ["pause", "db1:slow", "--for", "30m"], (ScopeArgument("db1", "root.slow"), 1800.0), {}),
        (orders, "resume", ["resume", ":root.slow"], (ScopeArgument(None, "root.slow"),), {"anyway": False}),
        (orders, "resume", ["resume", "db1", "--anyway"], (ScopeArgument("db1", "root"),), {"anyway": True}),
        (jobs, "run", ["jobs", "db1"], ("db1", jobs.Wanted()), {"as_json": False}),
        (
            jobs,
            "run",
            ["jobs", "db1", "--state", "pending", "u1", "--channel", "slow", "u2", "--limit", "7", "--json"],
            ("db1", jobs.Wanted(uuids=("u1", "u2"), state="pending", channel="root.slow", limit=7)),
            {"as_json": True},
        ),
        (
            requeue,
            "run",
            ["requeue", "db1", "--state", "started", "--older-than", "1h"],
            ("db1", requeue.Selection(state="started", older_than_s=3600.0)),
            {"sure": False},
        ),
        (requeue, "run", ["requeue", "db1", "u1"], ("db1", requeue.Selection(uuids=("u1",))), {"sure": False}),
        (
            requeue,
            "run",
            ["requeue", "--all", "--state", "failed", "--channel", "slow", "--yes"],
            (None, requeue.Selection(state="failed", channel="root.slow")),
            {"sure": True},
        ),
        (
            jobs,
            "run",
            ["jobs", "u1", "--all", "--state", "failed", "u2"],
            (None, jobs.Wanted(uuids=("u1", "u2"), state="failed")),
            {"as_json": False},
        ),
    ],
)
def test_commands(
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    function: str,
    argv: list[str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    monkeypatch.setattr(module, function, calls.called)
    assert cli.main(argv) == 5
    assert calls.made == [((CONFIG, *args), kwargs)]


def test_options_reach_the_configuration(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "reload", calls.called)
    for argv in (
        ["reload", "-c", "f.conf", "--log-level", "debug", "--monitor="],
        ["reload", "--config=f.conf", "--log-level=debug", "--monitor", ""],
    ):
        cli.main(argv)
        assert calls.options == {"config": "f.conf", "log_level": "debug", "monitor": ""}


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nothing"],
        ["status", "--json", "--watch"],
        ["status", "--sort", "colour"],
        ["status", "--check", "--json"],
        ["jobs"],
        ["jobs", "db", "--state", "wrong"],
        ["jobs", "db", "--limit", "0"],
        ["jobs", "db", "--lim", "3"],
        ["pause", "db:.."],
        ["pause", "db", "--for", "soon"],
        ["requeue", "db", "--state", "done"],
        ["requeue", "--state", "failed"],
        ["requeue", "db", "--older-than", "-1h"],
        ["requeue", "db", "u1", "--unknown"],
    ],
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def command(_arguments: object, *_more: object) -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("x", "odoo.conf: [a] x: wrong"), 78, "qjsupervisor: configuration: odoo.conf: [a] x: wrong\n"),
        (AlreadyRunning("process 7 runs", 7), 73, "qjsupervisor: process 7 runs\n"),
        (DatabaseError("db", "db: two\nlines \x1b[2J"), 70, "qjsupervisor: db: two\\nlines \\x1b[2J\n"),
    ],
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
    calls: Calls,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
    line: str,
) -> None:
    monkeypatch.setattr(orders, "reload", raising(error))
    assert cli.main(["reload"]) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", line)


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    monkeypatch.setattr(orders, "reload", raising(KeyboardInterrupt()))
    assert cli.main(["reload"]) == 130


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    monkeypatch.setattr(orders, "reload", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["reload"])


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([flag])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("qjsupervisor ")


def test_no_stdout(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    """Started with descriptor 1 closed, as some init scripts do."""
    monkeypatch.setattr(orders, "reload", calls.called)
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["reload"]) == 5


def test_closed_standard_descriptors_are_filled() -> None:
    """So that no socket gets one of their numbers."""
    program = (
        "import os; os.closerange(0, 3); from qjsupervisor.cli import fill_standard_descriptors as fill; fill();"
        "same = [os.path.samestat(os.fstat(fd), os.stat(os.devnull)) for fd in range(3)];"
        "os._exit(0 if all(same) else 1)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_a_plugin_answers_on_standard_output_also_to_a_wrong_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*_args: object) -> object:
        raise ConfigError("channels", "channels: nonsense | more")

    monkeypatch.setattr(config, "load", load)
    assert cli.main(["status", "--check"]) == 3
    assert capsys.readouterr() == ("UNKNOWN - channels: nonsense / more\n", "")
