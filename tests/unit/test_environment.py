"""scripts/environment.py: where the environment is, and when it is made anew. Nothing is installed here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, set upon an empty checkout."""
    spec = importlib.util.spec_from_file_location("environment_under_test", SCRIPTS / "environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("setup.cfg", "setup.py"):
        (checkout / name).write_text(name)
    monkeypatch.setattr(module, "CHECKOUT", checkout)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return module


@pytest.fixture
def made(environment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Which extras were installed, one entry for each time; neither venv nor pip runs."""
    installed: list[list[str]] = []

    def create(place: Path) -> None:
        (place / "bin").mkdir(exist_ok=True)
        if not (place / "bin" / "python").exists():
            (place / "bin" / "python").symlink_to(sys.executable)

    monkeypatch.setattr(environment, "create", create)
    monkeypatch.setattr(environment, "install", lambda _place, extras: installed.append(extras))
    return installed


def test_made_once(environment: ModuleType, made: list[list[str]]) -> None:
    python = environment.ready("demo")
    assert python == environment.CHECKOUT / ".venv" / "bin" / "python"
    assert environment.ready("demo") == python
    assert made == [["demo"]]


def test_extras_add_up(environment: ModuleType, made: list[list[str]]) -> None:
    for extra in ("demo", "test", "demo", "test"):
        environment.ready(extra)
    assert made == [["demo"], ["demo", "test"]]


def test_made_anew_when_dependencies_change(environment: ModuleType, made: list[list[str]]) -> None:
    environment.ready("test")
    (environment.CHECKOUT / "setup.cfg").write_text("other")
    environment.ready("demo")
    assert made == [["test"], ["demo"]]


def test_made_anew_when_its_python_is_gone(environment: ModuleType, made: list[list[str]]) -> None:
    python = environment.ready("test")
    python.unlink()
    python.symlink_to("/nowhere/python")
    environment.ready("test")
    assert made == [["test"], ["test"]]


def test_interrupted_run_is_begun_anew(
    environment: ModuleType, made: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_place: Path, _extras: list[str]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(environment, "install", interrupted)
        with pytest.raises(KeyboardInterrupt):
            environment.ready("test")
    environment.ready("test")
    assert made == [["test"]]


def test_somebody_s_own_environment_is_left_alone(environment: ModuleType, made: list[list[str]]) -> None:
    own = environment.CHECKOUT / ".venv"
    own.mkdir()
    (own / "precious").touch()
    python = environment.ready("test")
    assert environment.CHECKOUT not in python.parents
    assert [entry.name for entry in own.iterdir()] == ["precious"]
    assert made == [["test"]]


@pytest.mark.parametrize("writable", [True, False])
def test_checkout_that_is_not_ours_to_write(
    environment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    monkeypatch.setattr(environment.os, "access", lambda *_: writable)
    home = environment.home()
    assert (home == environment.CHECKOUT / ".venv") is writable
    assert (home.parent == tmp_path / "cache" / "qjsupervisor") is not writable


def test_cache_that_others_can_write_to_is_not_used(
    environment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_to_all = tmp_path / "cache" / "qjsupervisor"
    open_to_all.mkdir(parents=True)
    open_to_all.chmod(0o777)
    monkeypatch.setattr(environment.os, "access", lambda *_: False)
    monkeypatch.setattr(environment.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    assert environment.home().parent == tmp_path / "tmp" / f"qjsupervisor-cache-{os.geteuid()}"
    (tmp_path / "tmp" / f"qjsupervisor-cache-{os.geteuid()}").chmod(0o777)
    with pytest.raises(environment.CannotSetUp, match="XDG_CACHE_HOME"):
        environment.home()


def test_without_ensurepip_pip_is_borrowed_or_asked_for(
    environment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip-23.0-py3-none-any.whl").touch()
    monkeypatch.setattr(environment, "WHEELS", tmp_path)
    tried: list[list[str]] = []

    def fails(command: list[str]) -> bool:
        tried.append(command)
        return False

    monkeypatch.setattr(environment, "works", fails)
    with pytest.raises(environment.CannotSetUp, match=r"neither ensurepip nor pip; .* python3\.\d+-venv"):
        environment.borrow_pip(Path("/env/bin/python"))
    assert [command[0] for command in tried] == [sys.executable, "/env/bin/python"]
    assert tried[1][1].endswith("any.whl/pip")


@pytest.mark.parametrize("arguments", [[], ["else"], ["demo", "test"]])
def test_usage(environment: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert environment.main(arguments) == 2
    assert "usage" in capsys.readouterr().err


def test_reason_is_one_line_and_the_status_tells(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_extra: str) -> Path:
        raise environment.CannotSetUp("no pip")

    monkeypatch.setattr(environment, "ready", fail)
    assert environment.main(["demo"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "setup-env: no pip\n")


@pytest.mark.parametrize(
    ("variables", "said"),
    [({"PYTHON": "/bin/false"}, "is no Python >= 3.10"), ({"PATH": ""}, "Install one")],
)
def test_no_python_is_said_clearly(variables: dict[str, str], said: str, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "dirname").symlink_to("/usr/bin/dirname")
    environ = {**variables, "PATH": variables.get("PATH") or str(tools)}
    done = subprocess.run(
        ["/bin/sh", SCRIPTS / "setup-env", "demo"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stdout == ""
