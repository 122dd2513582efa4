"""A file that names the one process that may run, and proves by a lock that it still does.

The lock (flock) is the truth, the number in the file is only for people: a file left behind by a killed
process is free at once, whatever process got its number since. The lock belongs to the open file, which a
forked child inherits: every child must close it (`close()`), or it keeps the lock after its master died.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import ExitStack, suppress
from types import TracebackType

from ..errors import AlreadyRunning, ConfigError

_LONGEST_BYTES = 32
#: The file may be replaced between open and lock by one who ends just then; that cannot go on for ever.
_ATTEMPTS = 10


class Pidfile:
    """One locked file; `option` is the setting that names it, for messages."""

    def __init__(self, path: str, *, option: str = "pidfile") -> None:
        self.path = path
        self._option = option
        self._descriptor: int | None = None

    def __enter__(self) -> Pidfile:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Lock the file and write our pid to it.

        Raises AlreadyRunning if another process holds it, ConfigError if the path is not fit for it: a
        link, no regular file, a file that holds anything but a pid.
        """
        for _ in range(_ATTEMPTS):
            descriptor = self._open()
            with ExitStack() as unless_ours:
                unless_ours.callback(os.close, descriptor)
                self._lock(descriptor)
                self._check(descriptor)
                if self._is_current(descriptor):
                    unless_ours.pop_all()
                    self._descriptor = descriptor
                    self._write(descriptor)
                    return
        raise AlreadyRunning(f"{self.path}: replaced again and again by others; who else starts here?", None)

    def release(self) -> None:
        """Remove the file, while it is still locked, and unlock it. For the process that acquired it."""
        if self._descriptor is None:
            return
        if self._is_current(self._descriptor):
            with suppress(OSError):  # a directory that became read-only: the lock is what counts
                os.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Let go of the descriptor only; in a forked child this leaves the master's lock as it is."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(self.path, flags, 0o644)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._refused("is a symbolic link; remove it, or name another file") from None
            raise self._refused(f"cannot be opened: {error.strerror}") from error

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(descriptor)
            who = "another supervisor" if pid is None else f"a supervisor with pid {pid}"
            raise AlreadyRunning(f"{who} runs already (it holds {self.path})", pid) from None

    def _check(self, descriptor: int) -> None:
        """Refuse what is no pidfile: a mistyped path must not cost anybody a file."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise self._refused("is no regular file, or has a second name (hard link)")
        if status.st_size and (status.st_size > _LONGEST_BYTES or _read_pid(descriptor) is None):
            raise self._refused("holds something other than a process id; it is left alone")

    def _is_current(self, descriptor: int) -> bool:
        """Whether the path still leads to the file that we hold open."""
        try:
            at_path = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(os.fstat(descriptor), at_path)

    def _write(self, descriptor: int) -> None:
        text = f"{os.getpid()}\n".encode()
        # In this order a reader of the first line never sees an empty file or a mixed number.
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))

    def _refused(self, what: str) -> ConfigError:
        return ConfigError(self._option, f"{self._option}: {self.path} {what}")


def _read_pid(descriptor: int) -> int | None:
    line = os.pread(descriptor, _LONGEST_BYTES, 0).partition(b"\n")[0].strip()
    return int(line) if line.isdigit() else None
