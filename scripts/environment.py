"""The virtual environment that scripts/demo, scripts/test and scripts/check run in.

Standard library only; run by any Python >= 3.10, by `setup-env`. Prints the path of the environment's Python,
all else goes to standard error. It is `.venv` in the checkout; where that is not ours to write (another user's
checkout, a read-only one, a `.venv` of somebody's own making), a directory of our own in the cache. It is made
once: a stamp tells what it was made from. Two runs at once wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

EXTRAS = ("demo", "test", "audit")
CHECKOUT = Path(__file__).resolve().parent.parent
#: What an installation of the project is made from.
SOURCES = ("setup.cfg", "setup.py", "README.md", "LICENSE", "qjsupervisor")
STAMP = "qjsupervisor.json"
#: Debian keeps pip's wheel for new environments here, apart from Python.
WHEELS = Path("/usr/share/python-wheels")


class CannotSetUp(Exception):
    """A reason for people, with what to do."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in EXTRAS:
        print(f"usage: setup-env {'|'.join(EXTRAS)}", file=sys.stderr)
        return 2
    try:
        print(ready(arguments[0]))
    except CannotSetUp as error:
        print(f"setup-env: {error}", file=sys.stderr)
        return 1
    return 0


def ready(extra: str) -> Path:
    """The Python of an environment in which the project and the extra are installed."""
    place = home()
    with alone(place):
        if not fresh(place, extra):
            make(place, extra)
    return place / "bin" / "python"


def home() -> Path:
    """The directory of the environment: the checkout's own, or one in our cache."""
    inside = CHECKOUT / ".venv"
    if inside.exists():
        usable = owned(inside) and read_stamp(inside) is not None
    else:
        usable = os.access(CHECKOUT, os.W_OK | os.X_OK)
    if usable:
        return inside
    name = "env-" + hashlib.sha256(os.fsencode(CHECKOUT)).hexdigest()[:12]
    for base in cache_places():
        with contextlib.suppress(OSError):
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            if owned(base):
                return base / name
    raise CannotSetUp(f"neither {CHECKOUT} nor a cache directory is ours; set XDG_CACHE_HOME to one that is")


def cache_places() -> Iterator[Path]:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield Path(cache, "qjsupervisor")
    yield Path(tempfile.gettempdir(), f"qjsupervisor-cache-{os.geteuid()}")


def owned(path: Path) -> bool:
    """Whether a directory is ours and nobody else can put anything in it that would then run as us.

    Being writable is not enough: root would leave files in it that its owner cannot remove.
    """
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & stat.S_IWOTH


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Wait until nobody else sets up the same place."""
    lock = os.open(place.with_name(place.name + ".lock"), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is setting up the environment, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def fresh(place: Path, extra: str) -> bool:
    """Whether the environment is there, runs, and was made from what the checkout holds now."""
    stamp = read_stamp(place)
    return stamp is not None and stamp.made_from == made_from() and extra in stamp.extras and runs(place)


class Stamp(NamedTuple):
    """What an environment was made from; None, and no extras, while that goes on."""

    made_from: str | None = None
    extras: tuple[str, ...] = ()


def read_stamp(place: Path) -> Stamp | None:
    """None: there is none, or it cannot be read."""
    try:
        made_from, extras = json.loads((place / STAMP).read_text())
        return Stamp(made_from, tuple(extras))
    except (OSError, ValueError, TypeError):
        return None


def write_stamp(place: Path, stamp: Stamp) -> None:
    (place / STAMP).write_text(json.dumps(stamp) + "\n")


def made_from() -> str:
    """What the environment depends on: the declared dependencies, the Python, and where the checkout is."""
    parts = (sys.version, os.path.realpath(sys.executable), str(CHECKOUT))
    digest = hashlib.sha256("\0".join(parts).encode())
    for name in ("setup.cfg", "setup.py"):
        digest.update((CHECKOUT / name).read_bytes())
    return digest.hexdigest()


def runs(place: Path) -> bool:
    """Whether its Python starts: an upgrade or removal of the base Python leaves a dangling link."""
    python = place / "bin" / "python"
    return python.exists() and works([str(python), "-I", "-c", ""])


def make(place: Path, extra: str) -> None:
    """Create what is missing and install; what an interrupted run or another Python left is begun anew."""
    say(f"setting up {place} ({extra}), once; this takes a minute")
    extras = {extra}
    if place.exists():
        stamp = read_stamp(place)
        if stamp is not None and stamp.made_from == made_from() and runs(place):
            extras |= set(stamp.extras)
        else:
            shutil.rmtree(place)
    place.mkdir(exist_ok=True)
    # First of all: it says that the directory is of our making.
    write_stamp(place, Stamp())
    create(place)
    install(place, sorted(extras))
    write_stamp(place, Stamp(made_from(), tuple(sorted(extras))))


def create(place: Path) -> None:
    """The bare environment, with pip in it."""
    try:
        import venv
    except ImportError:
        raise CannotSetUp(f"{sys.executable} has no module venv; {how_to_get_venv()}") from None
    python = place / "bin" / "python"
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    if not python.exists():
        venv.EnvBuilder(symlinks=True, with_pip=has_ensurepip).create(place)
    if not works([str(python), "-I", "-m", "pip", "--version"]):
        borrow_pip(python)


def borrow_pip(python: Path) -> None:
    """Debian leaves ensurepip out: install pip with the pip of the base Python, or from Debian's wheel."""
    own = [sys.executable, "-I", "-m", "pip"]
    ways = [[*own, "--python", str(python)], *([str(python), f"{wheel}/pip"] for wheel in WHEELS.glob("pip-*.whl"))]
    if not any(works([*way, "install", "--quiet", "pip"]) for way in ways):
        raise CannotSetUp(f"{sys.executable} has neither ensurepip nor pip; {how_to_get_venv()}")


def how_to_get_venv() -> str:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return f"install it (Debian, Ubuntu: apt-get install {version}-venv) or name another Python: PYTHON=..."


def install(place: Path, extras: list[str]) -> None:
    """The project, editable, with its dependencies.

    By way of a directory of links, so that nothing is written into the checkout, which may not be ours.
    """
    project = place / "project"
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir()
    for name in SOURCES:
        (project / name).symlink_to(CHECKOUT / name)
    pip = [str(place / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", "--use-pep517"]
    command = [*pip, "--editable", f"{project}[{','.join(extras)}]"]
    environment = {**os.environ, "PIP_USER": "no", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        raise CannotSetUp("pip could not install what is needed; its reason stands above")


def works(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def say(text: str) -> None:
    print(f"setup-env: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
