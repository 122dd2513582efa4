"""The mark that our PostgreSQL sessions carry, by which a later process recognises what an earlier one left behind.

A server may keep a session for seconds, or for ever, after its process died: lost packets, a stopped backend, a proxy
that keeps its side open. Such a session holds the leader lock and must not be taken for another runner. So the mark
outlives the process: workers inherit it from the master, and it is stored beside the control socket for the next
supervisor. Whoever holds the socket's lock knows that the previous supervisor is dead.

The mark is a random number, stored with the host name, so that a copy of the directory on another machine does not make
two supervisors one.
"""

from __future__ import annotations

import os
import random
from contextlib import suppress

from ..logs import get_logger

_BITS = 63
_LONGEST_BYTES = 512


def session_mark(path: str) -> int:
    """The mark stored in this file, or a new one, which is then stored. Requires the control socket's lock.

    Logs a warning if the file cannot be read or written; then sessions of an earlier supervisor are not recognised.
    """
    kept = _read(path)
    if kept is not None:
        return kept
    mark = random.SystemRandom().getrandbits(_BITS)
    try:
        _write(path, f"{mark} {os.uname().nodename}\n")
    except OSError as error:
        reason = f"{path}: {error.strerror}: after a crash our former sessions will count as another runner's"
        get_logger().warning("session_mark_not_kept", reason=reason)
    return mark


def _read(path: str) -> int | None:
    """The stored mark; None if there is none, or if another user or another host wrote it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        text = os.read(descriptor, _LONGEST_BYTES).decode("ascii", "replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)
    mark, _, host = text.rstrip("\n").partition(" ")
    is_ours = mark.isascii() and mark.isdigit() and int(mark) < 2**_BITS and host == os.uname().nodename
    return int(mark) if is_ours else None


def _write(path: str, text: str) -> None:
    """Write atomically; readable only for us. Nobody else writes there, by the control socket's lock."""
    temporary = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
