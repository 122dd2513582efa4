"""A file that names the one process that may run, and proves by a lock that it still runs.

The lock (flock) decides; the number in the file is only for people. A file left behind by a killed process is free at
once, whichever process has its number by now. Only our user can open the file (0600), so only we can lock it. If others
may open it, the lock proves nothing, and the process named in it decides. The lock belongs to the open file
description, which forked children inherit: every child must `close()` it, or the lock would outlive the master.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import ExitStack, suppress
from types import TracebackType

from ..errors import AlreadyRunning, ConfigError, QJSupervisorError, unusable_path

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LONGEST_BYTES = 32
#: The file may be replaced between open and lock by a process that is just exiting, but not again and again.
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

        Raises AlreadyRunning if another process holds it, ConfigError if the path is unsuitable (a link, not a regular
        file, a file that holds anything but a pid), NoRoom on a full disk.
        """
        for _ in range(_ATTEMPTS):
            descriptor = self._open()
            with ExitStack() as unless_ours:
                unless_ours.callback(os.close, descriptor)
                if not self._lock(descriptor):
                    continue
                self._check(descriptor)
                if self._is_current(descriptor):
                    self._write(descriptor)
                if self._is_current(descriptor):
                    unless_ours.pop_all()
                    self._descriptor = descriptor
                    return
        raise AlreadyRunning(f"{self.path}: replaced again and again by others; who else starts here?", None)

    def check(self) -> None:
        """Raise ConfigError if what is there now is not fit for it; makes and locks nothing."""
        try:
            descriptor = os.open(self.path, _FLAGS)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from error
        try:
            self._check(descriptor)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Remove the file while it is still locked, then unlock it. Only for the process that acquired it."""
        if self._descriptor is None:
            return
        if self._is_current(self._descriptor):
            with suppress(OSError):  # the directory became read-only; the lock is what counts
                os.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Close only the descriptor; in a forked child this leaves the master's lock in place."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        try:
            return os.open(self.path, _FLAGS | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> QJSupervisorError:
        if error.errno == errno.ELOOP:
            return self._refused("is a symbolic link; remove it, or name another file")
        return unusable_path(self._option, self.path, "cannot be opened", error)

    def _lock(self, descriptor: int) -> bool:
        """Take the lock. False if an unrelated process held it; the file was removed, so open a new one."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(descriptor)
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o066 and pid is not None and not _is_alive(pid):
                with suppress(FileNotFoundError):
                    os.unlink(self.path)
                return False
            who = "another supervisor" if pid is None else f"a supervisor with pid {pid}"
            raise AlreadyRunning(f"{who} runs already (it holds {self.path})", pid) from None
        return True

    def _check(self, descriptor: int) -> None:
        """Refuse a file that is not a pidfile, so that a mistyped path destroys nothing."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise self._refused("is not a regular file, or has a second name (hard link)")
        if status.st_size and (status.st_size > _LONGEST_BYTES or _read_pid(descriptor) is None):
            raise self._refused("holds something other than a process id; it is left alone")

    def _is_current(self, descriptor: int) -> bool:
        """Whether the path still refers to the file that we hold open."""
        try:
            at_path = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(os.fstat(descriptor), at_path)

    def _write(self, descriptor: int) -> None:
        text = f"{os.getpid()}\n".encode()
        try:
            os.fchmod(descriptor, 0o600)
            # In this order a reader never sees an empty file or a mixture of two numbers.
            os.pwrite(descriptor, text, 0)
            os.ftruncate(descriptor, len(text))
        except OSError as error:
            raise unusable_path(self._option, self.path, "cannot be written", error) from error

    def _refused(self, what: str) -> ConfigError:
        return ConfigError(self._option, f"{self._option}: {self.path} {what}")


def _read_pid(descriptor: int) -> int | None:
    line = os.pread(descriptor, _LONGEST_BYTES, 0).partition(b"\n")[0].strip()
    return int(line) if line.isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists and belongs to another user
    return True
