"""What is built and installed: the wheel, with its man page and completions, and the source archive."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from qjsupervisor.version import __version__

from ..helpers import REPOSITORY

SHARED = (
    "share/man/man1/qjsupervisor.1",
    "share/bash-completion/completions/qjsupervisor",
    "share/zsh/site-functions/_qjsupervisor",
)
#: Files that the package reads beside its modules.
READ = ("py.typed", "monitor/assets/page.css", "monitor/assets/page.js", "monitor/templates/overview.html")


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env={**os.environ, **environ}, capture_output=True, timeout=50
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def build(folder: Path) -> None:
    """Put there the wheel and the source archive, built from a copy: the checkout may not be ours to write."""
    copy = folder / "copy"
    skipped = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "project")
    shutil.copytree(REPOSITORY, copy, ignore=skipped)
    shutil.copytree(REPOSITORY / ".github", copy / ".github")
    run("setup.py", "-q", "sdist", "-d", folder, "bdist_wheel", "-d", folder, cwd=copy)


def test_what_is_built_is_complete_and_installs(tmp_path: Path) -> None:
    """One test, because the tests of a file run in several processes, and each would build."""
    build(tmp_path)
    check_archive(tmp_path)
    check_wheel(tmp_path)
    check_installed(tmp_path)


def check_archive(built: Path) -> None:
    """Enough to build, test and read."""
    with tarfile.open(built / f"qjsupervisor-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = {name.partition("/")[0] for name in names}
    assert {"conf", "docs", "models", "qjsupervisor", "scripts", "tests"} <= folders
    assert {"LICENSE", "LICENSE.GPL", "README.md", "CHANGELOG.md", "setup.cfg", "pyproject.toml", "mkdocs.yml"} <= names
    assert {"conf/odoo.conf.example", "docs/index.md", "scripts/test", "tests/conftest.py"} <= names
    assert not any(name.endswith(".pyc") or name.startswith((".git", ".ci")) for name in names)


def check_wheel(built: Path) -> None:
    """All that the package reads."""
    with zipfile.ZipFile(built / f"qjsupervisor-{__version__}-py3-none-any.whl") as archive:
        names = set(archive.namelist())
    modules = {str(file.relative_to(REPOSITORY)) for file in (REPOSITORY / "qjsupervisor").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert {f"qjsupervisor/{name}" for name in READ} <= names
    templates = {str(file.relative_to(REPOSITORY)) for file in (REPOSITORY / "qjsupervisor").rglob("*.html")}
    assert templates <= names


def check_installed(built: Path) -> None:
    """The command runs, and has its man page and completions."""
    wheel, prefix = built / f"qjsupervisor-{__version__}-py3-none-any.whl", built / "prefix"
    # Without --ignore-installed pip takes away the one that the environment has.
    run(
        "-m",
        "pip",
        "-q",
        "install",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        "--prefix",
        prefix,
        wheel,
        cwd=built,
    )
    (packages,) = prefix.glob("lib/python*/site-packages")
    command = prefix / "bin" / "qjsupervisor"
    assert os.access(command, os.X_OK)
    assert run(command, "--version", cwd=built, PYTHONPATH=str(packages)).strip() == f"qjsupervisor {__version__}"
    where = run("-c", "import qjsupervisor.cli as cli; print(cli.__file__)", cwd=built, PYTHONPATH=str(packages))
    assert where.startswith(str(packages)), "it is this one that was run"
    for name in SHARED:
        assert (prefix / name).read_bytes() == (REPOSITORY / source_of(name)).read_bytes()


def source_of(shared: str) -> str:
    name = Path(shared).name
    return f"conf/{name}" if name.endswith(".1") else f"conf/completions/{name}"
